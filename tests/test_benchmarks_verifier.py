"""What the verifier's benchmark counts: errors of calibration, hits, replaced words, drawn vectors."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from benchmarks.verifier_claims import calibration_error, caption_figures
from benchmarks.verifier_data import (
    Asked,
    SceneLook,
    centres_inside,
    find_fillers,
    names_box,
    replace_word,
    to_sample,
)
from benchmarks.verifier_search import draw_vectors
from rag.looks import Look
from rag.signals import Signals
from rag.verifier import Verifier
from tests.colour_clip import ColourClip


def test_calibration_error_is_the_mean_distance_of_score_and_truth() -> None:
    scores = np.array([0.05, 0.05, 0.95, 0.95])
    assert calibration_error(scores, np.array([False, False, True, True])) == pytest.approx(0.05)
    assert calibration_error(scores, np.array([True, False, True, True])) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_a_centre_counts_within_a_box_and_fifteen_pixels_around_it() -> None:
    regions = [(40.0, 40.0, 60.0, 60.0), (55.0, 40.0, 75.0, 60.0), (60.0, 40.0, 80.0, 60.0)]
    assert centres_inside(regions, [(30.0, 30.0, 50.0, 70.0)]).tolist() == [True, True, False]
    assert centres_inside(regions, []).tolist() == [False, False, False]


@pytest.mark.parametrize(
    ("claim", "named"),
    [
        ("The press-seal bags hold white crystals.", True),
        ("The number of press-seal bags is four.", True),
        ("The things lie on a wooden table.", False),
        ("The wall is white.", False),
        ("There is a pile of coins.", False),
    ],
)
def test_a_claim_names_a_box_by_its_thing_and_not_by_its_colour(claim: str, named: bool) -> None:
    assert names_box(claim, ("bag of white crystals",)) is named


def test_a_replaced_caption_differs_in_one_word_of_the_lists() -> None:
    caption = "Two dogs run over green grass."
    for seed in range(20):
        changed = replace_word(caption, Random(seed))
        assert changed is not None
        assert changed != caption
        assert len(set(caption.split()) - set(changed.split())) == 1
    assert replace_word("Quite so.", Random(0)) is None


def test_drawn_vectors_have_length_one_the_same_spread_and_clusters() -> None:
    random = np.random.default_rng(0)
    centres = random.normal(size=(5, 16))
    real = np.repeat(centres, 20, axis=0) + 0.2 * random.normal(size=(100, 16))
    real = (real / np.linalg.norm(real, axis=1, keepdims=True)).astype(np.float32)
    drawn = np.concatenate(list(draw_vectors(real, 1500, 24)))
    assert drawn.shape == (1500, 24)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.ones(1500), abs=1e-5)
    assert np.array_equal(drawn, np.concatenate(list(draw_vectors(real, 1500, 24))))
    nearest = np.sort(drawn @ drawn.T, axis=1)[:, -10:-1].mean()
    assert nearest > 0.9  # members of a cluster lie together
    assert (drawn @ drawn.T).mean() < nearest - 0.2  # clusters apart


def made_up_claims(photos: int = 60) -> list[Asked]:
    """Whole-sentence cosines that tell little, and a margin over foils that tells much."""
    random = np.random.default_rng(0)
    asked = []
    for picture in range(photos):
        for kind in ("true", "foreign", "replaced"):
            truth = kind == "true"
            values = {"whole": random.normal(0.3 * truth), "foils": random.normal(2.0 * truth)}
            asked.append(Asked(picture, "a claim", truth, kind, Signals(values)))
    return asked


def test_a_fusion_is_measured_on_photographs_that_it_was_not_fitted_on_beside_the_whole_sentence() -> None:
    clip: Any = ColourClip()
    figures = {one.name: one for one in caption_figures(Verifier(clip), made_up_claims(), resamples=20)}
    for against in ("foreign", "replaced"):
        assert figures[f"fusion_auroc_{against}"].value > 0.85
        assert figures[f"whole_auroc_{against}"].value < 0.75
        assert figures[f"fusion_gain_{against}"].holds
        assert "foils 0.9" in figures[f"fusion_gain_{against}"].how
    assert 0 <= figures["calibration_error_photographs"].value < 0.15
    assert figures["supported_precision_photographs"].value > 0.8


def test_a_fusion_that_gains_nothing_does_not_hold_its_bound() -> None:
    clip: Any = ColourClip()
    random = np.random.default_rng(1)
    asked = [
        Asked(one.picture, one.text, one.truth, one.kind, Signals({"whole": one.truth + random.normal(), "foils": 0.0}))
        for one in made_up_claims()
    ]
    figures = {one.name: one for one in caption_figures(Verifier(clip), asked, resamples=20)}
    assert not figures["fusion_gain_foreign"].holds or figures["fusion_gain_foreign"].value == 0.0


def scene_of(*pairs: tuple[str, str]) -> SceneLook:
    look = Look((100, 100), ((0.0, 0.0, 40.0, 40.0),), np.ones(3, np.float32), np.ones((1, 3), np.float32))
    true, false = (tuple(side) for side in zip(*pairs, strict=True))
    return SceneLook("things/bags", look, true, false, ((10.0, 10.0, 30.0, 30.0),), ("bag of tablets",))


def test_further_false_claims_fill_the_place_in_which_a_claim_and_its_twin_differ() -> None:
    clip: Any = ColourClip()
    tablets = [("The tablets are red.", "The tablets are blue."), ("The tablets are green.", "The tablets are red.")]
    scenes = [
        scene_of(tablets[0], ("There is a key on the table.", "There is a coin on the table.")),
        scene_of(tablets[1], ("One message says “a”.", "One message says “b”.")),
    ]
    fillers = find_fillers(scenes)
    assert fillers == {("The tablets are ", "."): ("red", "blue", "green")}
    sample = to_sample(scenes[0], Verifier(clip), fillers)
    assert clip.text_batches[-1] == [*scenes[0].true, *scenes[0].false, "The tablets are green."]
    assert sample.truths.tolist() == [True, True, False, False, False]
    # The region's centre lies in the box; the claims about tablets name it, those about the table do not.
    assert sample.about[:, 0].tolist() == [True, False, True, False, True]
