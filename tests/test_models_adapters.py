"""Adapters on one shared network: applied whole or refused by name, switched, merged, and the base left as it was."""

import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from models.adapters import Adapters, stated_base
from models.errors import ModelUnavailableError, UnsafeWeightsError
from models.families import get_family
from models.schema import LoadState, ModelSpec, ModelStatus
from models.vlm import VisionLanguageModel
from models.vlm_core import VlmCore
from tests.tiny_adapters import OLD_NAMES, build_adapter, rewrite

SPEC = ModelSpec(
    id="tiny",
    name="Tiny",
    task="deepfake",
    kind="vlm",
    source="./tiny",
    licence="MIT",
    size_mb=1,
    memory_mb=1,
    family="paligemma",
    question="Is this image made by AI?",
    answers={"0": "fake", "1": "real"},
)


@pytest.fixture
def core_of(tiny_vlm):
    def make(family="paligemma"):
        module, processor, _ = get_family(family).load(tiny_vlm(family))
        return VlmCore(get_family(family), module, processor)

    return make


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


def view(core, key=None):
    status = ModelStatus(LoadState.FINE_TUNED, "tiny")
    return VisionLanguageModel(SPEC, status, core, adapter=key, base_status=ModelStatus(LoadState.BASE, "base"))


def scores(live, picture):
    return torch.tensor(list(live.predict([picture])[0].logits.values()))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("family", sorted(OLD_NAMES))
def test_every_tensor_is_applied_under_todays_and_earlier_names(core_of, tiny_vlm, tmp_path, picture, family, old):
    from peft import PeftModel

    folder = build_adapter(family, tiny_vlm(family), tmp_path / "adapter", old=old)
    core = core_of(family)
    before = scores(view(core), picture)
    core.adapters.attach(folder, "a")
    tuned = scores(view(core, "a"), picture)
    assert not torch.allclose(before, tuned, atol=1e-2)
    # peft's own loading of today's names is the reference.
    plain = build_adapter(family, tiny_vlm(family), tmp_path / "plain")
    module, processor, _ = get_family(family).load(tiny_vlm(family))
    reference = VlmCore(get_family(family), PeftModel.from_pretrained(module, plain).base_model.model, processor)
    torch.testing.assert_close(tuned, scores(view(reference), picture), atol=1e-4, rtol=0)


def test_a_tensor_that_was_not_applied_is_named_and_the_network_is_as_before(core_of, tiny_vlm, tmp_path, picture):
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "adapter")
    rewrite(folder, lambda key: key.replace("layers.1.self_attn.q_proj", "blocks.1.self_attn.q_proj"))
    core = core_of()
    before = scores(view(core), picture)
    with pytest.raises(ModelUnavailableError, match=r"2 of 12 tensors were not applied, the first is .*blocks\.1"):
        core.adapters.attach(folder, "a")
    assert "a" not in core.adapters
    assert torch.equal(scores(view(core), picture), before)
    good = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "good")
    core.adapters.attach(good, "a")
    assert "a" in core.adapters


def test_a_library_that_does_not_apply_a_tensor_is_found_out(core_of, tiny_vlm, tmp_path, monkeypatch):
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "adapter")
    core = core_of()
    real = type(core.module).load_adapter

    def forgetful(self, *args, **options):
        report = real(self, *args, **options)
        next(weight for name, weight in self.named_parameters() if "lora_B" in name).data.zero_()
        return report

    monkeypatch.setattr(type(core.module), "load_adapter", forgetful)
    with pytest.raises(ModelUnavailableError, match=r"1 of 12 tensors were not applied, the first is .*lora_B"):
        core.adapters.attach(folder, "a")


def test_an_adapter_for_another_base_is_refused_by_name(core_of, tiny_vlm, tmp_path):
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "shapes")
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "org/bigger"}))
    rewrite(folder, change=lambda tensors: {key: torch.cat([one, one], dim=1) for key, one in tensors.items()})
    with pytest.raises(ModelUnavailableError, match=r"has shape .* needs .*org/bigger"):
        core_of().adapters.attach(folder, "a")
    assert stated_base(folder) == "org/bigger"
    other = build_adapter("qwen2_vl", tiny_vlm("qwen2_vl"), tmp_path / "targets", target_modules=["qkv"])
    with pytest.raises(ModelUnavailableError, match=r"does not fit PaliGemmaForConditionalGeneration.*qkv"):
        core_of().adapters.attach(other, "a")
    assert stated_base(other) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "only as a pickle"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
        (lambda f: (f / "adapter_config.json").unlink(), "has no adapter_config.json"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda f: edit(f, bias="all"), "changes weights of its base .bias=all"),
        (lambda f: edit(f, init_lora_weights="pissa_niter_4"), "changes weights of its base .init_lora_weights=pissa"),
        (lambda f: edit(f, peft_type="IA3"), "only LoRA"),
    ],
)
def test_what_cannot_be_used_safely_is_refused(core_of, tiny_vlm, tmp_path, change, message):
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "adapter")
    change(folder)
    with pytest.raises(ModelUnavailableError, match=message) as refusal:
        core_of().adapters.attach(folder, "a")
    assert isinstance(refusal.value, UnsafeWeightsError) == ("pickle" in message)
    assert "\n" not in str(refusal.value)


def edit(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_several_adapters_take_turns_and_leave_the_base_untouched(core_of, tiny_vlm, tmp_path, picture):
    core = core_of()
    base = scores(view(core), picture)
    alone = {}
    for key in ("a", "b"):
        folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / key, seed=ord(key))
        fresh = core_of()
        fresh.adapters.attach(folder, key)
        alone[key] = scores(view(fresh, key), picture)
        core.adapters.attach(folder, key)
        core.adapters.attach(folder, key)
    assert len(core.adapters) == 2
    for key in ("a", "b", "a", None, "b", None):
        live = view(core, key)
        assert torch.equal(scores(live, picture), alone[key] if key else base)
    assert torch.equal(scores(view(core, "a").without_adapter(), picture), base)
    assert not any(weight.requires_grad for weight in core.module.parameters())


def test_views_in_two_threads_never_answer_with_each_others_adapter(core_of, tiny_vlm, tmp_path, picture):
    core = core_of()
    lives = [view(core)]
    for key in ("a", "b"):
        core.adapters.attach(build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / key, seed=ord(key)), key)
        lives.append(view(core, key))
    expected = [scores(live, picture) for live in lives]
    wrong = []

    def work(index):
        wrong.extend(index for _ in range(6) if not torch.equal(scores(lives[index], picture), expected[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_merged_copy_answers_alike_without_touching_the_shared_network(core_of, tiny_vlm, tmp_path, picture):
    core = core_of()
    folder = build_adapter(
        "paligemma", tiny_vlm("paligemma"), tmp_path / "a", modules_to_save=["multi_modal_projector"]
    )
    base = scores(view(core), picture)
    core.adapters.attach(folder, "a")
    tuned = scores(view(core, "a"), picture)
    merged = view(core, "a").merged()
    torch.testing.assert_close(scores(merged, picture), tuned, atol=1e-4, rtol=0)
    assert not any("lora" in name for name, _ in merged.module.named_parameters())
    assert torch.equal(scores(view(core), picture), base)
    with pytest.raises(ModelUnavailableError, match="has no adapter to merge"):
        merged.merged()
    with pytest.raises(ModelUnavailableError, match="whole model without an adapter"):
        merged.without_adapter()


def test_a_network_that_takes_no_adapters_says_so(tiny_vlm, tmp_path):
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path / "a")
    with pytest.raises(ModelUnavailableError, match="Linear takes no adapters"):
        Adapters(torch.nn.Linear(2, 2)).attach(folder, "a")


IN_PARTS, AS_ONE = ["embeddings.patch_embedding", "embeddings.position_embedding"], ["embeddings"]


def brings(tiny_vlm, folder, parts, *, seed=0):
    """An adapter with parts of the vision tower of its own, which differ from the base's."""
    build_adapter("paligemma", tiny_vlm("paligemma"), folder, seed=seed, modules_to_save=parts)
    rewrite(
        folder, change=lambda all_: {key: one if "lora" in key else one + 0.1 * (seed + 1) for key, one in all_.items()}
    )
    return folder


@pytest.mark.parametrize("order", [(IN_PARTS, AS_ONE), (AS_ONE, IN_PARTS), (IN_PARTS, IN_PARTS)])
def test_embeddings_brought_in_parts_and_as_one_share_a_base(core_of, tiny_vlm, tmp_path, picture, order):
    folders = [brings(tiny_vlm, tmp_path / f"{seed}", parts, seed=seed) for seed, parts in enumerate(order)]
    alone = []
    for folder in folders:
        core = core_of()
        core.adapters.attach(folder, "one")
        alone.append(scores(view(core, "one"), picture))
    core = core_of()
    base = scores(view(core), picture)
    for key, folder in enumerate(folders):
        core.adapters.attach(folder, str(key))
    for key, expected in enumerate(alone):
        assert torch.equal(scores(view(core, str(key)), picture), expected)
    assert torch.equal(scores(view(core), picture), base)
    assert len({tuple(one.tolist()) for one in (base, *alone)}) == 3


@pytest.mark.parametrize("order", [("mlp", "mlp.fc1"), ("mlp.fc1", "mlp")])
def test_a_part_within_anothers_part_is_refused_in_one_line(core_of, tiny_vlm, tmp_path, picture, order):
    first, second = (brings(tiny_vlm, tmp_path / part, [f"encoder.layers.0.{part}"], seed=1) for part in order)
    core = core_of()
    base = scores(view(core), picture)
    core.adapters.attach(first, "first")
    expected = scores(view(core, "first"), picture)
    with pytest.raises(
        ModelUnavailableError, match=rf"its own \S+0\.{order[1]}, another one on this base its own \S+0\.{order[0]}"
    ):
        core.adapters.attach(second, "second")
    assert "second" not in core.adapters
    assert torch.equal(scores(view(core, "first"), picture), expected)
    assert torch.equal(scores(view(core), picture), base)
