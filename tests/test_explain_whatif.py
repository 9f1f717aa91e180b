"""Regions taken away, by hand-set models whose every answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from explain.examination import Settings, examine
from explain.schema import Heatmap, MapPart
from explain.whatif import (
    Change,
    Remover,
    box_mask,
    changes_of,
    draw_outline,
    hottest_mask,
    smallest_evidence,
)
from explain.whatif_asking import ask_without, find_evidence
from models.errors import ExhibitError
from models.imaging import read_image
from models.schema import LoadState, ModelStatus, Prediction

SIDE = 16


def heatmap(values) -> Heatmap:
    values = np.asarray(values, np.float32)
    height, width = values.shape
    part = MapPart(values, (0.0, 0.0, float(width), float(height)))
    return Heatmap((part,), (width, height), float(values.min()), float(values.max()), "gradcam", "logit:on", "l", "m")


def rows_from_the_top() -> Heatmap:
    """The hottest pixel is the first that is read, the coldest the last."""
    return heatmap(np.arange(SIDE * SIDE, 0, -1).reshape(SIDE, SIDE))


def half_lit() -> Image.Image:
    """The upper half white, the lower black."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[: SIDE // 2] = 255
    return Image.fromarray(pixels)


def prediction(model_id: str, on: float) -> Prediction:
    return Prediction(
        model_id=model_id,
        label="on" if on > 0.5 else "off",
        probabilities={"on": on, "off": 1 - on},
        logits={"on": on, "off": 1 - on},
        text=None,
        latency_s=0.0,
        status=ModelStatus(LoadState.BUNDLED),
    )


def test_a_box_is_its_two_corners_in_any_order_and_cut_to_the_picture():
    mask = box_mask((6, 4), (5, 3, 2, 1))
    assert mask.shape == (4, 6)
    assert mask.sum() == 3 * 2
    assert mask[1:3, 2:5].all()
    assert box_mask((6, 4), (-10, -10, 100, 100)).all()
    with pytest.raises(ExhibitError, match="two opposite corners"):
        box_mask((6, 4), (7, 0, 9, 4))


def test_the_hottest_part_has_the_area_asked_for():
    mask = hottest_mask(rows_from_the_top(), 0.25)
    assert mask[:4].all()
    assert not mask[4:].any()
    for share in (0, 1.5):
        with pytest.raises(ExhibitError, match="no region"):
            hottest_mask(rows_from_the_top(), share)


@pytest.mark.parametrize("fill", ["blur", "mean", "inpaint"])
def test_what_is_not_removed_stays_to_the_byte_and_what_is_removed_is_gone(fill):
    pixels = np.full((40, 60, 3), 90, np.uint8)
    pixels[10:20, 20:30] = (255, 0, 0)
    mask = box_mask((60, 40), (18, 8, 32, 22))
    left = np.asarray(Remover(Image.fromarray(pixels), fill)(mask)).astype(int)
    assert (left[~mask] == pixels[~mask]).all()
    reddest = (left[mask][:, 0] - left[mask][:, 1]).max()
    assert reddest < {"blur": 255, "mean": 20, "inpaint": 20}[fill]


def test_mean_is_the_pictures_mean_colour():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[0, 0] = True
    assert np.asarray(Remover(half_lit(), "mean")(mask))[0, 0].tolist() == [128] * 3


def test_unknown_filling_is_named():
    with pytest.raises(ExhibitError, match="blur, mean, inpaint"):
        Remover(half_lit(), "sparkle")


def test_smallest_evidence_of_a_known_model_to_the_pixel():
    # Says "on" while at least 100 of the 128 white pixels are seen; grey ones, which fill the holes, do not count.
    asked = []

    def ask(image):
        asked.append(image)
        return "on" if (np.asarray(image)[..., 0] == 255).sum() >= 100 else "off"

    found = smallest_evidence(half_lit(), rows_from_the_top(), ask, "mean")
    assert (found.label, found.flipped_to) == ("on", "off")
    assert found.flips.sum() == 128 - 99
    assert found.flips[0].all()
    assert found.keeps.sum() == 100
    assert found.flips_share == pytest.approx(29 / 256)
    assert found.keeps_share == pytest.approx(100 / 256)
    assert len(asked) <= 1 + 2 * (8 + 1)


def test_a_verdict_that_nothing_changes_has_no_evidence_and_needs_none():
    found = smallest_evidence(half_lit(), rows_from_the_top(), lambda image: "on", "mean")
    assert found.flips is None
    assert found.flipped_to is None
    assert found.keeps.sum() == 0  # nothing of the picture need be seen


def test_change_is_of_the_label_given_before():
    (change,) = changes_of([prediction("m", 0.9), prediction("gone", 0.9)], [prediction("m", 0.2)])
    assert isinstance(change, Change)
    assert change.flipped
    assert change.difference == pytest.approx(-0.7)
    assert not Change(prediction("m", 0.2), prediction("m", 0.4)).flipped


def test_outline_is_drawn_around_the_region_on_a_copy():
    photo = Image.new("RGB", (120, 80), (90, 90, 90))
    drawn = np.asarray(draw_outline(photo, box_mask((60, 40), (20, 10, 40, 30))))
    assert drawn.shape == (80, 120, 3)
    assert (drawn[20, 60] == 255).all()  # its upper edge, twice as far from the corner as in the mask
    assert (drawn[40, 60] == 90).all()
    assert (np.asarray(photo) == 90).all()


@pytest.fixture
def examined(tiny_loader, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(path)
    settings = Settings("deepfake", ("tiny-resnet", "tiny-vit"), ("gradcam",), detector=None)
    return examine(read_image(path), settings, tiny_loader)


def test_every_model_is_asked_again_about_the_very_picture_shown(examined, tiny_loader):
    mask = box_mask((60, 40), (0, 0, 30, 40))
    found = ask_without(examined, tiny_loader, mask, "mean")
    assert [change.before for change in found.changes] == list(examined.predictions)
    assert found.share == 0.5
    for change in found.changes:
        again = tiny_loader.load(change.before.model_id).predict([found.picture])[0]
        assert change.after.probabilities == pytest.approx(again.probabilities)
        assert change.after.probabilities != change.before.probabilities
    assert found.before == examined.verdict
    assert found.after.label in ("fake", "real")


def test_an_empty_region_and_an_examination_without_answers_are_named(examined, tiny_loader):
    with pytest.raises(ExhibitError, match="empty"):
        ask_without(examined, tiny_loader, np.zeros((40, 60), bool), "mean")
    with pytest.raises(ExhibitError, match="examine the picture first"):
        ask_without(replace(examined, predictions=()), tiny_loader, np.ones((40, 60), bool), "mean")


def test_evidence_of_a_real_network_decides_as_it_says(examined, tiny_loader):
    (heatmap, *_) = examined.heatmaps
    counts: list[int] = []
    found = find_evidence(examined, tiny_loader, heatmap, "mean", counts.append)
    assert counts == list(range(len(counts)))
    live, remove = tiny_loader.load(heatmap.model_id), Remover(examined.source.rgb, "mean")
    assert found.label == examined.predictions[0].label
    if found.flips is not None:
        assert live.predict([remove(found.flips)])[0].label == found.flipped_to != found.label
    assert live.predict([remove(~found.keeps)])[0].label == found.label
