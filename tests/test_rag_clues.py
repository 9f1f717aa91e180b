"""Clues: found only where they stand out, told in the user's language, and able to turn a verdict both ways."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.clues import figures_of
from models.errors import ExhibitError
from models.schema import LoadState, ModelStatus, Prediction
from rag.clues import (
    Clue,
    ClueCalibration,
    ClueLibrary,
    FoundClue,
    Reexamination,
    calibrate_clues,
    find_clue_calibration,
    load_clues,
    reexamine,
    tell,
)
from tests.colour_clip import ColourClip, halves

RED, BLUE = (
    Clue(id=colour, topic="colour", points_to=points, look=f"a {colour} thing", en=f"Look: {colour}.", ko=f"{colour}?")
    for colour, points in (("red", "fake"), ("blue", "real"))
)


def library(usual: float = 0.5, spread: float = 0.25) -> ClueLibrary:
    clip: Any = ColourClip()
    calibration = ClueCalibration(
        clip="colours",
        weights_sha256="c0ffee",
        about="made up",
        pictures=2,
        usual={"red": usual, "blue": usual},
        spread={"red": spread, "blue": spread},
    )
    return ClueLibrary(clip, calibration, (RED, BLUE))


class Vlm:
    """Says fake of what it is asked about, unless a clue about blue stands in the question; counts its questions."""

    def __init__(self, question: str = "Is it fake?", asked: list[str] | None = None) -> None:
        self.question = question
        self.asked: list[str] = [] if asked is None else asked

    def asking(self, *, question: str) -> Vlm:
        return Vlm(question, self.asked)

    def predict(self, images: list[Image.Image]) -> list[Prediction]:
        self.asked += [self.question] * len(images)
        fake = 0.2 if "blue" in self.question else 0.9
        label = "fake" if fake > 0.5 else "real"
        return [_said(label, {"fake": fake, "real": 1 - fake}) for _ in images]


def _said(label: str, probabilities: dict[str, float]) -> Prediction:
    return Prediction("vlm", label, probabilities, {}, 0.0, ModelStatus(LoadState.BUNDLED))


def test_only_clues_above_their_usual_similarity_are_found_the_nearest_first() -> None:
    red, mixed = halves("red", "red"), halves("red", "blue")
    first, second = library().find([red, mixed])
    assert [(one.clue.id, one.similarity, one.above) for one in first] == [("red", 1.0, 2.0)]
    # Both colours at 1/sqrt(2), 0.83 spreads above what is usual: not enough.
    assert second == ()
    found = library().find([mixed], least_above=0.5)[0]
    assert [one.clue.id for one in found] == ["red", "blue"]
    assert found[0].above == pytest.approx((np.sqrt(0.5) - 0.5) / 0.25, abs=1e-5)
    assert len(library().find([mixed], least_above=0.5, most=1)[0]) == 1


def test_a_model_is_asked_again_only_where_clues_were_found_and_may_turn() -> None:
    vlm: Any = Vlm()
    blue, red, mixed = reexamine(vlm, library(), [halves("blue", "blue"), halves("red", "red"), halves("red", "blue")])
    assert (blue.first.label, blue.final.label, blue.flipped) == ("fake", "real", True)
    assert (red.first.label, red.final.label, red.flipped) == ("fake", "fake", False)
    assert mixed.second is None
    assert mixed.final is mixed.first
    assert vlm.asked[3:] == [blue.question, red.question]
    assert blue.question == "Clues to check in this image: Look: blue. Is it fake?"


def test_clues_are_told_in_korean_where_that_is_asked() -> None:
    found = [FoundClue(RED, 1.0, 2.0)]
    assert tell(found, "가짜인가요?", "ko") == "이 이미지에서 확인할 단서: red? 가짜인가요?"
    with pytest.raises(ExhibitError, match="'pl'"):
        tell(found, "?", "pl")


def test_the_library_has_both_directions_all_topics_and_korean_throughout() -> None:
    clues = load_clues()
    assert {clue.points_to for clue in clues} == {"fake", "real"}
    topics = {"texture", "edges", "distortion", "light and shadow", "reflections", "symmetry", "perspective"}
    assert topics | {"hands and teeth"} <= {clue.topic for clue in clues}
    assert all(any("가" <= letter <= "힣" for letter in clue.ko) for clue in clues)
    assert all(clue.en.isascii() and clue.look.isascii() for clue in clues)
    assert len({clue.look for clue in clues}) == len(clues)


def test_usual_similarities_are_means_and_spreads_over_the_pictures() -> None:
    clip: Any = ColourClip()
    calibration = calibrate_clues(clip, [halves("red", "red"), halves("blue", "blue")], "made up")
    # Red eyes are as red as the first picture and nothing like the second; teeth are grey, 1/sqrt(3) from either.
    assert (calibration.usual["red-eyes"], calibration.spread["red-eyes"]) == (0.5, 0.5)
    assert calibration.usual["teeth"] == pytest.approx(np.sqrt(1 / 3), abs=1e-5)
    assert calibration.spread["teeth"] == 0.0
    with pytest.raises(ExhibitError, match="does not know"):
        ClueLibrary(clip, calibration)


def test_a_calibration_is_found_by_the_weights_it_belongs_to(tmp_path: Path) -> None:
    calibration = library().calibration
    (tmp_path / "colours.clues.json").write_text(calibration.model_dump_json(), encoding="utf-8")
    assert find_clue_calibration("c0ffee", tmp_path) == calibration
    assert find_clue_calibration("other", tmp_path) is None
    assert find_clue_calibration("", tmp_path) is None
    (tmp_path / "broken.clues.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ExhibitError, match=r"broken\.clues\.json"):
        find_clue_calibration("c0ffee", tmp_path)


def test_two_clues_of_one_id_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "clues.yaml"
    entry = "{id: a, topic: t, points_to: fake, look: l, en: e, ko: k}"
    file.write_text(f"clues: [{entry}, {entry}]", encoding="utf-8")
    with pytest.raises(ExhibitError, match="same id"):
        load_clues(file)


def test_figures_before_and_after_count_flips_in_both_directions() -> None:
    fake, real = _said("fake", {"fake": 0.9, "real": 0.1}), _said("real", {"fake": 0.1, "real": 0.9})
    # Truths fake, fake, real, real; first right, wrong, right, wrong; then one mended, one spoilt.
    results = [
        Reexamination(fake, real, (), "?"),
        Reexamination(real, fake, (), "?"),
        Reexamination(real, None, ()),
        Reexamination(fake, None, ()),
    ]
    found = figures_of(results, ["fake", "fake", "real", "real"])
    assert found["before"]["accuracy"]["value"] == 0.5
    assert found["after"]["accuracy"]["value"] == 0.5
    assert found["before"]["precision"]["value"] == 0.5
    assert found["before"]["recall"]["value"] == 0.5
    assert found["before"]["f1"]["value"] == 0.5
    assert found["flips"] == [
        {"picture": 0, "from": "fake", "to": "real", "truth": "fake", "clues": []},
        {"picture": 1, "from": "real", "to": "fake", "truth": "fake", "clues": []},
    ]
    assert found["turned"] == {"fake to real": 1, "real to fake": 1, "mended": 1, "spoilt": 1}
    assert found["asked_again"] == 2


def test_no_number_a_model_speaks_of_is_kept_as_a_probability() -> None:
    names = set(Reexamination.__dataclass_fields__)
    assert names == {"first", "second", "clues", "question"}
    vlm: Any = SimpleNamespace(
        question="?",
        predict=lambda images: [_said("fake", {"fake": 0.6, "real": 0.4})],
        asking=lambda question: vlm,
    )
    result = reexamine(vlm, library(), [halves("red", "red")])[0]
    assert result.final.text is None
    assert sum(result.final.probabilities.values()) == pytest.approx(1)
