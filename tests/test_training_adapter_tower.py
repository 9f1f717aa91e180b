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
from models.vlm_core import VlmCore
from tests.test_models_adapters import scores, view
from tests.test_training_language import _adapter, base, data, one_thread, vit  # noqa: F401 - fixtures
from training.errors import RecipeError
from training.language import finetune_language
from training.looking import choose_way
from training.pupil import build_pupil
from training.questions import read_questions

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


def _seen(core: VlmCore, picture: Image.Image) -> Tensor:
    pixels = core.processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        seen: Tensor = core.module.get_submodule(core.anatomy.tower)(pixels).last_hidden_state
    return seen
