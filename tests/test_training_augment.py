"""Random changes keep shapes, ranges and labels consistent."""

from __future__ import annotations

import pytest
import torch

from training.augment import augment_pictures, mix_batch
from training.recipe import AugmentRecipe

ALL = AugmentRecipe(
    flip=1, shift=3, affine=1, jpeg=1, blur=1, sharpen=1, noise=1, colour=1, erase=1, mixup=0.5, cutmix=0.5
)
NONE = AugmentRecipe(flip=0)


def _pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, 24, 24), dtype=torch.uint8, generator=generator)


def test_everything_at_once_stays_in_range_and_leaves_the_source_alone() -> None:
    torch.manual_seed(0)
    pictures = _pictures()
    kept = pictures.clone()
    changed = augment_pictures(pictures, 20, ALL)
    assert changed.shape == (6, 3, 20, 20)
    assert changed.dtype == torch.float32
    assert changed.is_contiguous()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(pictures, kept)


def test_nothing_asked_gives_the_very_pixels() -> None:
    pictures = _pictures()
    assert torch.equal(augment_pictures(pictures, 24, NONE), pictures.float() / 255)


def test_flip_mirrors_left_and_right() -> None:
    pictures = _pictures()
    flipped = augment_pictures(pictures, 24, AugmentRecipe(flip=1))
    assert torch.equal(flipped, pictures.flip(3).float() / 255)


def test_a_crop_is_a_window_of_the_picture() -> None:
    torch.manual_seed(1)
    pictures = _pictures()
    crop = (augment_pictures(pictures, 20, NONE)[0] * 255).round().to(torch.uint8)
    windows = pictures[0].unfold(1, 20, 1).unfold(2, 20, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 20, 20)
    assert any(torch.equal(crop, window) for window in windows)


def test_the_same_random_state_gives_the_same_pictures() -> None:
    state = torch.get_rng_state()
    first = augment_pictures(_pictures(), 20, ALL)
    torch.set_rng_state(state)
    assert torch.equal(first, augment_pictures(_pictures(), 20, ALL))


def test_sharpening_adds_what_a_blur_takes_away_and_leaves_plain_areas_alone() -> None:
    torch.manual_seed(3)
    plain = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    assert torch.allclose(augment_pictures(plain, 16, AugmentRecipe(flip=0, sharpen=1)), plain.float() / 255, atol=1e-6)
    edge = plain.clone()
    edge[..., 8:] = 160
    row = augment_pictures(edge, 16, AugmentRecipe(flip=0, sharpen=1))[0, 0, 8]
    # Gaussian weights at -2 .. 2 for 1 px: the edge's own pixel is drawn over by their sum on the other side.
    weights = torch.exp(-0.5 * torch.arange(-2.0, 3.0) ** 2)
    other = float(weights[:2].sum() / weights.sum()) * 32 / 255
    amount = (float(row[8]) - 160 / 255) / other
    assert 0.2 <= amount <= 1.5
    assert float(row[7]) == pytest.approx(128 / 255 - amount * other, abs=1e-5)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_are_mixed_by_the_share_of_pixels(kind: str) -> None:
    torch.manual_seed(2)
    # Picture i is uniform at i / 4 and has label i: the mean pixel must equal the expectation of the mixed label.
    values = torch.arange(5.0) / 4
    pixels = values.view(5, 1, 1, 1).expand(5, 3, 16, 16).clone()
    mixed, targets = mix_batch(pixels, torch.eye(5), AugmentRecipe(**{kind: 1.0}))
    assert not torch.equal(mixed, pixels)
    assert torch.allclose(targets.sum(1), torch.ones(5))
    assert torch.allclose(mixed.mean((1, 2, 3)), targets @ values, atol=1e-5)
