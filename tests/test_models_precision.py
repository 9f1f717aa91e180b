"""How weights are kept: quantised decoders with untouched towers, on the CPU too, gradients alive."""

import numpy as np
import pytest
import torch
from PIL import Image

from explain.capture import capture
from explain.targets import LabelMargin
from models.errors import ModelUnavailableError
from models.families import get_family
from models.precision import load_options, resolve, skeleton
from models.schema import LoadState, ModelSpec, ModelStatus
from models.vlm import VisionLanguageModel
from models.vlm_core import load_core
from tests.tiny_adapters import build_adapter

CPU = torch.device("cpu")
FAMILIES = ("paligemma", "llava_next", "qwen2_vl", "smolvlm")


@pytest.fixture
def ask(tiny_vlm):
    def make(family, precision):
        folder = tiny_vlm(family)
        core = load_core(get_family(family), folder, precision, skeleton(folder), CPU, "tiny")
        spec = ModelSpec(
            id="tiny",
            name="Tiny",
            task="deepfake",
            kind="vlm",
            source="./tiny",
            licence="MIT",
            size_mb=1,
            memory_mb=1,
            family=family,
            question="Is it real?",
            answers={"0": "fake", "1": "real"},
        )
        return VisionLanguageModel(spec, ModelStatus(LoadState.FINE_TUNED, "tiny"), core)

    return make


def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def slope(live):
    inputs = live.prepare([picture()])
    taken = capture(live.module, lambda: live.forward(inputs), [live.target_layer], [LabelMargin(live.labels, "fake")])
    return taken.gradients[live.target_layer].flatten()


def test_auto_follows_the_device(monkeypatch):
    assert resolve("auto", CPU) == "fp32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert resolve("auto", torch.device("cuda")) == "bf16"
    assert resolve("nf4", CPU) == "nf4"


@pytest.mark.parametrize(("precision", "kind"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_decoder_is_quantised_and_tower_projector_and_head_are_not(ask, family, precision, kind):
    live = ask(family, precision)
    parts = live.core.anatomy
    quantised = {name for name, part in live.module.named_modules() if type(part).__name__ == kind}
    assert quantised
    assert all(name.startswith(f"{parts.language}.") for name in quantised)
    plain = live.module.get_submodule(parts.tower).parameters()
    assert {weight.dtype for weight in plain} == {torch.float32}
    head = live.module.get_output_embeddings()
    assert type(head).__name__ == "Linear"
    prediction = live.predict([picture()])[0]
    assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_gradients_reach_the_tower_through_nf4_and_point_the_same_way(ask):
    whole, small = slope(ask("paligemma", "fp32")), slope(ask("paligemma", "nf4"))
    # Sixteen channels average little out; unrelated gradients of this size stay below 0.1.
    assert torch.cosine_similarity(whole, small, dim=0) > 0.8


def test_bf16_answers_nearly_like_fp32(ask):
    whole, half = ask("paligemma", "fp32"), ask("paligemma", "bf16")
    assert {weight.dtype for weight in half.module.parameters()} == {torch.bfloat16}
    expected = list(whole.predict([picture()])[0].logits.values())
    assert list(half.predict([picture()])[0].logits.values()) == pytest.approx(expected, abs=0.3)
    assert torch.cosine_similarity(slope(whole), slope(half), dim=0) > 0.9


def test_an_adapter_works_on_quantised_weights_but_is_not_merged_into_them(ask, tiny_vlm, tmp_path):
    live = ask("paligemma", "nf4")
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "a")
    before = live.predict([picture()])[0].logits
    live.core.adapters.attach(folder, "a")
    tuned = VisionLanguageModel(live.spec, live.status, live.core, adapter="a")
    assert list(tuned.predict([picture()])[0].logits.values()) != pytest.approx(list(before.values()), abs=0.05)
    assert live.predict([picture()])[0].logits == before
    with pytest.raises(ModelUnavailableError, match="cannot be merged into quantised weights"):
        tuned.merged()


def test_a_network_without_a_skeleton_is_not_quantised():
    with pytest.raises(ModelUnavailableError, match="the family paligemma cannot be quantised"):
        load_options("int8", None, get_family("paligemma"), CPU)
