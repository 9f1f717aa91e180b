"""Clue re-examination: a vision-language model's verdicts before and after it was told the clues, on unseen generators.

python -m benchmarks.clues --calibrate   (what is usual for the clues, into rag/calibrations)
python -m benchmarks.clues --json --save
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score
from tqdm.auto import tqdm

from benchmarks.report import Figure, report
from benchmarks.verifier_calibration import open_verifier
from benchmarks.verifier_data import Photo
from models.clip import ImageTextModel
from models.errors import ExhibitError
from models.intervals import estimate, mcnemar
from models.loading import ModelLoader
from models.registry import load_zoo
from models.vlm import VisionLanguageModel
from rag.clues import ClueLibrary, Reexamination, calibrate_clues, find_clue_calibration, reexamine
from rag.fusion import CALIBRATIONS

GENERATORS = Path("../shared/data/deepfake_generators/validation.parquet")
ORDINARY = Path("../shared/data/deepfake_faces/validation.parquet")
ORDINARY_PICTURES = 300
LABELS = ("fake", "real")
AT_ONCE = 16
CLIP, VLM = "bundled-openclip", "bundled-paligemma-deepfake"


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate, or measure, print and save if asked; exit 2 with one line where something is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clues", description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/clues.json")
    parser.add_argument("--calibrate", action="store_true", help="measure what is usual for the clues, and store it")
    parser.add_argument("--clip", default=CLIP, help="zoo id of the image-text model")
    parser.add_argument("--vlm", default=VLM, help="zoo id of the vision-language model")
    parser.add_argument("--language", default="en", choices=("en", "ko"), help="in which it is told the clues")
    options = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    try:
        clip = open_verifier(options.clip, sentences=False, detector=False).clip
        if options.calibrate:
            _calibrate(clip)
            return 0
        report("clues", _measure(clip, options.vlm, options.language), options)
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def figures_of(results: Sequence[Reexamination], truths: Sequence[str]) -> dict[str, Any]:
    """Accuracy, precision, recall and F1 of ``fake`` before and after with 95 % intervals, and every flip.

    Args:
        results: of n pictures.
        truths: ``fake`` or ``real`` of each.
    """
    first = [one.first.label for one in results]
    last = [one.final.label for one in results]
    right, right_now = (
        np.array([said == truth for said, truth in zip(side, truths, strict=True)]) for side in (first, last)
    )
    flips = [
        {
            "picture": place,
            "from": one.first.label,
            "to": one.final.label,
            "truth": truth,
            "clues": [found.clue.id for found in one.clues],
        }
        for place, (one, truth) in enumerate(zip(results, truths, strict=True))
        if one.flipped
    ]
    return {
        "before": estimate(_statistic(first, truths), len(truths), resamples=300),
        "after": estimate(_statistic(last, truths), len(truths), resamples=300),
        "mcnemar": mcnemar(right_now, right),
        "asked_again": sum(one.second is not None for one in results),
        "flips": flips,
        "turned": {
            "fake to real": sum(flip["from"] == "fake" for flip in flips),
            "real to fake": sum(flip["from"] == "real" for flip in flips),
            "mended": int((right_now & ~right).sum()),
            "spoilt": int((right & ~right_now).sum()),
        },
    }


def _statistic(said: Sequence[str], truths: Sequence[str]) -> Callable[[np.ndarray], dict[str, float]]:
    answers, truth = np.array(said) == "fake", np.array(truths) == "fake"

    def statistic(weights: np.ndarray) -> dict[str, float]:
        options: dict[str, Any] = {"sample_weight": weights, "zero_division": 0}
        return {
            "accuracy": float(np.average(answers == truth, weights=weights)),
            "precision": float(precision_score(truth, answers, **options)),
            "recall": float(recall_score(truth, answers, **options)),
            "f1": float(f1_score(truth, answers, **options)),
        }

    return statistic


def _measure(clip: ImageTextModel, vlm_id: str, language: str) -> list[Figure]:
    calibration = find_clue_calibration(clip.status.weights_sha256)
    if calibration is None:
        raise ExhibitError(
            f"{clip.spec.id} has no calibration of the clues; run python -m benchmarks.clues --calibrate"
        )
    live = ModelLoader(load_zoo(), offline=True, device="cpu").load(vlm_id)
    if not isinstance(live, VisionLanguageModel):
        raise ExhibitError(f"{vlm_id} is no vision-language model; choose one of kind vlm")
    library = ClueLibrary(clip, calibration)
    images, truths = _pictures(GENERATORS)
    results: list[Reexamination] = []
    for start in tqdm(range(0, len(images), AT_ONCE), desc="pictures", unit="batch"):
        results += reexamine(live, library, images[start : start + AT_ONCE], language=language)
    found = figures_of(results, truths)
    shown = (
        f"{vlm_id} on {len(images)} pictures of generators it never saw, clues by {clip.spec.id} in {language}; "
        f"{found['asked_again']} were asked about again"
    )
    figures = [
        Figure(
            f"{name}_{when}",
            found[when][name]["value"],
            None,
            "higher",
            f"{shown} (95 % interval {found[when][name]['low']:.3f} to {found[when][name]['high']:.3f})",
        )
        for name in ("accuracy", "precision", "recall", "f1")
        for when in ("before", "after")
    ]
    listed = "; ".join(
        f"{flip['picture']} {flip['from']}->{flip['to']} ({'right' if flip['to'] == flip['truth'] else 'wrong'})"
        for flip in found["flips"]
    )
    turned = ", ".join(f"{name} {count}" for name, count in found["turned"].items())
    return [
        *figures,
        Figure(
            "flips",
            len(found["flips"]),
            None,
            "lower",
            f"verdicts that turned: {turned}; McNemar p {found['mcnemar']['p_value']:.3f}; by row of the set: {listed}",
        ),
    ]


def _pictures(file: Path, most: int | None = None) -> tuple[list[Image.Image], list[str]]:
    if not file.is_file():
        raise ExhibitError(f"{file}: there is no such file; labelled pictures are needed")
    rows = pq.read_table(file, columns=["image", "label"]).to_pylist()[:most]
    return [Photo(row["image"]["bytes"], ()).open() for row in rows], [LABELS[row["label"]] for row in rows]


def _calibrate(clip: ImageTextModel) -> None:
    images, _ = _pictures(ORDINARY, ORDINARY_PICTURES)
    calibration = calibrate_clues(clip, images, "Faces of deepfake_faces/validation, real and swapped.")
    CALIBRATIONS.mkdir(exist_ok=True)
    file = CALIBRATIONS / f"{clip.spec.id}.clues.json"
    file.write_text(json.dumps(calibration.model_dump(), indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"{file}: {len(calibration.usual)} clues, {calibration.pictures} pictures\n")


if __name__ == "__main__":
    sys.exit(main())
