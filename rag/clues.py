"""Forensic clues: those that a picture looks like are named to a vision-language model, which is then asked once more.

Clues speak for a generator or for a camera, and both verdicts are kept, so a verdict can turn in either direction and
every turn can be counted. What a model says of its own confidence is not asked for: the probabilities are those of the
labels (``models.scoring``), and nothing else is shown as one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.clip import ImageTextModel
from models.errors import ExhibitError
from models.prompts import get_style
from models.schema import Prediction

if TYPE_CHECKING:
    from models.vlm import VisionLanguageModel

__all__ = [
    "LANGUAGES",
    "Clue",
    "ClueCalibration",
    "ClueLibrary",
    "FoundClue",
    "Reexamination",
    "calibrate_clues",
    "find_clue_calibration",
    "load_clues",
    "reexamine",
    "tell",
]

LANGUAGES = ("en", "ko")
LEAST_ABOVE = 1.0
"""How far above its usual similarity a clue must lie to be found, in standard deviations over ordinary pictures."""

MOST = 4
_DATA = Path(__file__).with_name("clues.yaml")
_CALIBRATIONS = Path(__file__).with_name("calibrations")
_LEADS = {"en": "Clues to check in this image: ", "ko": "이 이미지에서 확인할 단서: "}


class Clue(BaseModel):
    """One thing to look for.

    Attributes:
        id: stays the same.
        topic: texture, edges, light and shadow ...
        points_to: what it speaks for.
        look: caption of a picture that shows it, English, compared with the picture.
        en: what a model is told, English.
        ko: the same, Korean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    topic: str
    points_to: Literal["fake", "real"]
    look: str
    en: str
    ko: str

    def text(self, language: str) -> str:
        """What a model is told in that language.

        Raises:
            ExhibitError: the clues are not written in it.
        """
        if language not in LANGUAGES:
            raise ExhibitError(f"the clues are not written in {language!r}; choose one of {', '.join(LANGUAGES)}")
        return self.ko if language == "ko" else self.en


class ClueCalibration(BaseModel):
    """How similar ordinary pictures are to each clue; a cosine by itself has no zero point.

    Attributes:
        clip: zoo id of the image-text model.
        weights_sha256: of its weights.
        about: one sentence: which pictures were looked at.
        pictures: how many.
        usual: clue id to the mean of its cosine.
        spread: clue id to the standard deviation of its cosine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    clip: str
    weights_sha256: str
    about: str
    pictures: int = Field(gt=1)
    usual: dict[str, float]
    spread: dict[str, float]


@dataclass(frozen=True)
class FoundClue:
    """A clue that a picture looks like.

    Attributes:
        clue: which.
        similarity: cosine with the picture in [-1, 1].
        above: how far that lies above the clue's usual similarity, in standard deviations.
    """

    clue: Clue
    similarity: float
    above: float


@dataclass(frozen=True)
class Reexamination:
    """Both verdicts of a model on one picture.

    Attributes:
        first: asked plainly.
        second: asked with the clues; None where no clue was found.
        clues: what it was told, the nearest first.
        question: the second question.
    """

    first: Prediction
    second: Prediction | None
    clues: tuple[FoundClue, ...]
    question: str = ""

    @property
    def final(self) -> Prediction:
        """The second verdict where there is one."""
        return self.second or self.first

    @property
    def flipped(self) -> bool:
        """Whether the clues turned the verdict, in whatever direction."""
        return self.final.label != self.first.label


class ClueLibrary:
    """The clues, indexed by an image-text model.

    Args:
        clip: the image-text model.
        calibration: what is usual for its weights.
        clues: those of Exhibit when not given.

    Raises:
        ExhibitError: the calibration does not know a clue.
    """

    def __init__(self, clip: ImageTextModel, calibration: ClueCalibration, clues: Sequence[Clue] | None = None) -> None:
        self.clip, self.calibration = clip, calibration
        self.clues = tuple(load_clues() if clues is None else clues)
        missing = [clue.id for clue in self.clues if not calibration.spread.get(clue.id)]
        if missing:
            raise ExhibitError(
                f"the calibration of {calibration.clip} does not know the clues {', '.join(missing)}; "
                "run python -m benchmarks.clues --calibrate"
            )

    def find(
        self, images: Sequence[Image.Image], *, most: int = MOST, least_above: float = LEAST_ABOVE
    ) -> list[tuple[FoundClue, ...]]:
        """The clues that each RGB picture looks more like than ordinary pictures do, the nearest first.

        Args:
            images: pictures.
            most: clues per picture at most.
            least_above: standard deviations above a clue's usual similarity.
        """
        cosines = self.clip.similarity(images, [clue.look for clue in self.clues])
        usual = np.array([self.calibration.usual[clue.id] for clue in self.clues])
        spread = np.array([self.calibration.spread[clue.id] for clue in self.clues])
        above = (cosines - usual) / spread
        return [
            tuple(
                FoundClue(self.clues[at], float(row[at]), float(far[at]))
                for at in np.argsort(-far, kind="stable")[:most]
                if far[at] >= least_above
            )
            for row, far in zip(cosines, above, strict=True)
        ]


@lru_cache(maxsize=4)
def load_clues(file: Path = _DATA) -> tuple[Clue, ...]:
    """The clues of a YAML file.

    Raises:
        ExhibitError: an entry is incomplete, or two have one id.
    """
    try:
        clues = tuple(Clue(**entry) for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["clues"])
    except (ValidationError, TypeError, KeyError, OSError) as error:
        raise ExhibitError(f"{file}: cannot be read as clues ({str(error).splitlines()[0]})") from error
    if len({clue.id for clue in clues}) < len(clues):
        raise ExhibitError(f"{file}: two clues have the same id")
    return clues


def calibrate_clues(clip: ImageTextModel, images: Sequence[Image.Image], about: str) -> ClueCalibration:
    """What is usual for each clue, from ordinary pictures of the kind that is examined, real and fake alike.

    Args:
        clip: the image-text model.
        images: RGB, two at least.
        about: which pictures these are.
    """
    clues = load_clues()
    cosines: NDArray[np.float32] = clip.similarity(images, [clue.look for clue in clues])
    means, spreads = cosines.mean(0).tolist(), cosines.std(0).tolist()
    return ClueCalibration(
        clip=clip.spec.id,
        weights_sha256=clip.status.weights_sha256,
        about=about,
        pictures=len(images),
        usual={clue.id: round(mean, 6) for clue, mean in zip(clues, means, strict=True)},
        spread={clue.id: round(spread, 6) for clue, spread in zip(clues, spreads, strict=True)},
    )


def find_clue_calibration(weights_sha256: str, folder: Path = _CALIBRATIONS) -> ClueCalibration | None:
    """What is usual for an image-text model with these weights; None where nobody has measured it.

    Raises:
        ExhibitError: a file cannot be read.
    """
    for file in sorted(folder.glob("*.clues.json")):
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            calibration = ClueCalibration(**content)
        except (ValueError, TypeError) as error:
            raise ExhibitError(f"{file}: cannot be read as a calibration ({str(error).splitlines()[0]})") from error
        if weights_sha256 and calibration.weights_sha256 == weights_sha256:
            return calibration
    return None


def tell(clues: Sequence[FoundClue], question: str, language: str = "en") -> str:
    """The question with clues before it, in the prompt style ``informed``.

    Args:
        clues: at least one.
        question: what is asked.
        language: one of ``LANGUAGES``.
    """
    hint = _LEADS.get(language, "") + " ".join(found.clue.text(language) for found in clues)
    return get_style("informed").write(question, hint=hint)


def reexamine(
    vlm: VisionLanguageModel, library: ClueLibrary, images: Sequence[Image.Image], *, language: str = "en"
) -> list[Reexamination]:
    """Ask a model about each picture, and once more with the clues that the picture looks like.

    Args:
        vlm: asks its own question, in its own style.
        library: the clues.
        images: RGB.
        language: in which it is told the clues.

    Raises:
        ModelUnavailableError: the network answers with numbers that are not finite.
    """
    results = []
    firsts = vlm.predict(images)
    for image, first, clues in zip(images, firsts, library.find(images), strict=True):
        if not clues:
            results.append(Reexamination(first, None, ()))
            continue
        question = tell(clues, vlm.question, language)
        second = vlm.asking(question=question).predict([image])[0]
        results.append(Reexamination(first, second, clues, question))
    return results
