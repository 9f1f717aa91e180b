"""What a model needs is told from file headers and compared with what is free, before anything is loaded."""

import pytest
import torch
from safetensors.torch import load_file

from models import memory
from models.errors import ModelUnavailableError
from models.families import get_family
from models.memory import check_room, count_weights, free_bytes, weight_bytes, working_bytes
from models.precision import quantisable, skeleton, unquantised

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_weights_are_counted_from_headers_alone(tiny_vlm):
    file = tiny_vlm("paligemma") / "model.safetensors"
    expected = sum(tensor.numel() for tensor in load_file(file).values())
    assert count_weights([file, file]) == 2 * expected


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelUnavailableError, match=r"model\.safetensors is damaged or cut off"):
        count_weights([tmp_path / "model.safetensors"])


def test_a_skeleton_tells_which_weights_shrink_and_takes_no_memory(tiny_vlm):
    network, family = skeleton(tiny_vlm("paligemma")), get_family("paligemma")
    assert all(weight.is_meta for weight in network.parameters())
    parts = family.anatomy(network)
    assert set(unquantised(network, family)) == {parts.tower, parts.projector, "lm_head"}
    decoder = network.get_submodule(parts.language).layers
    linear = sum(part.weight.numel() for part in decoder.modules() if isinstance(part, torch.nn.Linear))
    assert quantisable(network, family) == linear
    assert skeleton(tiny_vlm("paligemma").parent) is None


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("fp32", CPU, 4000),
        ("bf16", CPU, 2000),
        ("int8", CPU, 200 * 4 + 800),
        ("nf4", CPU, 200 * 4 + 800 * 0.5625),
        ("nf4", GPU, 200 * 2 + 800 * 0.5625),
    ],
)
def test_bytes_by_precision(precision, device, expected):
    assert weight_bytes(1000, precision, device, 800) == expected


def test_too_little_memory_names_the_ways_out(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3_000_000_000)
    check_room(3_000_000_000, CPU, "fp32")
    with pytest.raises(ModelUnavailableError) as refusal:
        check_room(6_000_000_000, CPU, "bf16", spare=["other", "third"])
    assert refusal.value.reason == "it needs about 6.0 GB in bf16 and 3.0 GB are free on this machine"
    assert refusal.value.remedy == "choose the precision nf4, or unload other, third, or choose a smaller model"
    with pytest.raises(ModelUnavailableError) as refusal:
        check_room(6_000_000_000, GPU, "nf4")
    assert refusal.value.remedy == "choose a smaller model"
    assert "on the GPU" in refusal.value.reason


def test_a_model_in_use_takes_more_than_its_weights():
    assert working_bytes(1_000_000_000) == 1_300_000_000


def test_free_memory_of_this_machine_is_a_sensible_figure():
    import psutil

    assert 0 < free_bytes(CPU) <= psutil.virtual_memory().total
