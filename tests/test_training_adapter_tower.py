"""An adapter that brings a vision tower of its own: trained, saved, and loaded by the app without touching the base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from explain.cam import explain_batch
from models.families import get_family
from models.vlm import VisionLanguageModel
from models.vlm_core import VlmCore
from tests.test_models_adapters import scores, view
from tests.test_training_language import _adapter, base, data, one_thread, vit  # noqa: F401 - fixtures
from training.errors import RecipeError
from training.language import finetune_language
from training.looking import choose_way
from training.opening import Wanted, open_wanted
from training.pupil import build_pupil
from training.questions import read_questions
from training.resizing import resize_positions

METHODS = ("eigencam", "gradcam", "gradcampp", "layercam")


@pytest.fixture(scope="module")
def learnt(vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Another ViT of the same shape."""
    folder = tmp_path_factory.mktemp("learnt")
    torch.manual_seed(7)
    ViTForImageClassification(ViTConfig.from_pretrained(vit)).save_pretrained(folder)
    ViTImageProcessor.from_pretrained(vit).save_pretrained(folder)
    return folder


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize("trained", [False, True])
def test_the_tower_comes_with_the_adapter(
    base: Path,  # noqa: F811
    data: Path,  # noqa: F811
    learnt: Path,
    tmp_path: Path,
    trained: bool,
) -> None:
    changes = {"adapter.tower": str(learnt), "model.train_tower": trained}
    recipe = _adapter(base, tmp_path / "r.yaml", changes)
    pupil = build_pupil(recipe, read_questions(recipe.questions, data, 0))
    assert choose_way(recipe, pupil) == ("resized" if trained else "features")
    finetune_language(recipe, data, tmp_path / "run", progress=False)
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    theirs = ViTForImageClassification.from_pretrained(learnt).vit.state_dict()
    brought = {name: tensor for name, tensor in saved.items() if "vision_tower" in name}
    assert len(brought) == len(theirs) - 1  # all but the class token
    (name,) = (name for name in brought if name.endswith("layers.1.mlp.fc1.weight"))
    assert torch.equal(brought[name], theirs["layers.1.mlp.fc1.weight"]) is not trained


def test_the_app_swaps_the_tower_with_the_adapter_and_explains_it(
    base: Path,  # noqa: F811
    data: Path,  # noqa: F811
    learnt: Path,
    picture: Image.Image,
    tmp_path: Path,
) -> None:
    recipe = _adapter(base, tmp_path / "r.yaml", {"adapter.tower": str(learnt)})
    finetune_language(recipe, data, tmp_path / "run", progress=False)
    module, processor, _ = get_family("paligemma").load(base)
    core = VlmCore(get_family("paligemma"), module, processor)
    plain = view(core)
    before, seen_before = scores(plain, picture), _seen(core, picture)
    core.adapters.attach(tmp_path / "run", "a")
    tuned = view(core, "a")
    assert not torch.allclose(scores(tuned, picture), before, atol=1e-3)
    assert not torch.allclose(_seen(core, picture), seen_before, atol=1e-2)
    # A copy with the weights in place of the base's has no switches to be forgotten.
    merged = tuned.merged()
    torch.testing.assert_close(scores(merged, picture), scores(tuned, picture), atol=1e-4, rtol=0)
    ours, theirs = (explain_batch(live, [picture], methods=METHODS)[0] for live in (tuned, merged))
    assert len(ours.heatmaps) == len(theirs.heatmaps) > 1
    for one, other in zip(ours.heatmaps, theirs.heatmaps, strict=True):
        np.testing.assert_allclose(one.values, other.values, atol=1e-3)
    assert torch.equal(scores(plain, picture), before)
    core.adapters.activate(None)
    assert torch.equal(_seen(core, picture), seen_before)


def test_a_part_trained_whole_comes_with_the_adapter_and_leaves_the_base_alone(
    base: Path,  # noqa: F811
    data: Path,  # noqa: F811
    picture: Image.Image,
    tmp_path: Path,
) -> None:
    changes = {"adapter.modules_to_save": ["language_model.norm"]}
    finetune_language(_adapter(base, tmp_path / "r.yaml", changes), data, tmp_path / "run", progress=False)
    (saved,) = (
        tensor
        for name, tensor in load_file(tmp_path / "run" / "adapter_model.safetensors").items()
        if name.endswith("language_model.norm.weight")
    )
    module, _, _ = get_family("paligemma").load(base)
    own = module.get_submodule("model.language_model.norm").weight
    assert saved.shape == own.shape
    assert not torch.allclose(saved, own, atol=1e-3)
    tuned = open_wanted(Wanted(str(tmp_path / "run"))).live
    assert isinstance(tuned, VisionLanguageModel)
    plain = tuned.without_adapter()
    before, ours = scores(plain, picture), scores(tuned, picture)
    assert torch.equal(scores(plain, picture), before)
    torch.testing.assert_close(scores(tuned.merged(), picture), ours, atol=1e-4, rtol=0)


def test_a_part_to_be_trained_whole_that_is_not_there_is_named(base: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = _adapter(base, tmp_path / "r.yaml", {"adapter.modules_to_save": ["last_norm"]})
    with pytest.raises(RecipeError, match="no part of the network is named last_norm"):
        build_pupil(recipe, read_questions(recipe.questions, data, 0))


def test_a_tower_that_does_not_fit_is_refused(base: Path, data: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = _adapter(base, tmp_path / "r.yaml", {"adapter.tower": str(tmp_path)})
    with pytest.raises(RecipeError, match=r"tower: .*holds no config\.json"):
        build_pupil(recipe, read_questions(recipe.questions, data, 0))
    other = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    ViTForImageClassification(other).save_pretrained(tmp_path / "small")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "small")
    recipe = _adapter(base, tmp_path / "r.yaml", {"adapter.tower": str(tmp_path / "small")})
    with pytest.raises(RecipeError, match="the ViT does not fit"):
        build_pupil(recipe, read_questions(recipe.questions, data, 0))


@pytest.fixture(scope="module")
def larger(learnt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other ViT, for pictures of 48 px instead of 32: 36 patches instead of 16."""
    folder = tmp_path_factory.mktemp("larger")
    network = ViTForImageClassification.from_pretrained(learnt)
    resize_positions(network, 48)
    network.save_pretrained(folder)
    ViTImageProcessor.from_pretrained(learnt, size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("trained", [False, True])
def test_an_adapter_may_bring_a_tower_for_larger_pictures(
    base: Path,  # noqa: F811
    data: Path,  # noqa: F811
    larger: Path,
    picture: Image.Image,
    tmp_path: Path,
    trained: bool,
) -> None:
    changes = {"adapter.tower": str(larger), "model.train_tower": trained}
    finetune_language(_adapter(base, tmp_path / "r.yaml", changes), data, tmp_path / "run", progress=False)
    tuned = open_wanted(Wanted(str(tmp_path / "run"))).live
    assert isinstance(tuned, VisionLanguageModel)
    plain = tuned.without_adapter()
    inputs, fewer = tuned.prepare([picture]), plain.prepare([picture])
    assert (inputs["pixel_values"].shape[-1], fewer["pixel_values"].shape[-1]) == (48, 32)
    # Each sees its own patches, one after the other, and as it would alone.
    alone, processor, _ = get_family("paligemma").load(base)
    before = scores(plain, picture)
    ours = scores(tuned, picture)
    assert torch.equal(scores(plain, picture), before)
    torch.testing.assert_close(before, scores(view_of(plain, VlmCore(plain.core.family, alone, processor)), picture))
    assert torch.equal(scores(tuned, picture), ours)
    assert len(tuned.describe([picture])) == 1  # the base's words
    merged = tuned.merged()
    torch.testing.assert_close(scores(merged, picture), ours, atol=1e-4, rtol=0)
    one, other = (explain_batch(live, [picture], methods=METHODS)[0] for live in (tuned, merged))
    assert len(one.heatmaps) == len(other.heatmaps) > 1
    for heatmap, same in zip(one.heatmaps, other.heatmaps, strict=True):
        np.testing.assert_allclose(heatmap.values, same.values, atol=1e-3)
    (layout,) = tuned.layout(inputs, [picture.size])
    assert layout.grids[0].tokens.shape == (6, 6)


def test_the_positions_of_the_larger_tower_are_those_it_had(learnt: Path, larger: Path) -> None:
    before, after = (ViTForImageClassification.from_pretrained(folder).vit.state_dict() for folder in (learnt, larger))
    name = "embeddings.position_embeddings"
    assert after[name].shape == (1, 37, 32)
    assert torch.equal(after[name][:, 0], before[name][:, 0])
    # Seen at its old size again, a smooth field of positions is what it was; the middle of four lies between them.
    old, new = before[name][0, 1:].unflatten(0, (4, 4)), after[name][0, 1:].unflatten(0, (6, 6))
    torch.testing.assert_close(new.mean((0, 1)), old.mean((0, 1)), atol=0.02, rtol=0)
    assert all(torch.equal(after[key], before[key]) for key in before if key != name)


def test_a_picture_that_patches_do_not_fill_is_refused(learnt: Path) -> None:
    with pytest.raises(RecipeError, match="multiple of 8"):
        resize_positions(ViTForImageClassification.from_pretrained(learnt), 50)


def view_of(live: VisionLanguageModel, core: VlmCore) -> VisionLanguageModel:
    return VisionLanguageModel(live.spec, live.status, core, question=live.question, answers=live.answers)


def _seen(core: VlmCore, picture: Image.Image) -> Tensor:
    pixels = core.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        seen: Tensor = core.module.get_submodule(core.anatomy.tower)(pixels).last_hidden_state
    return seen
