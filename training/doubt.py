"""Measure how far a model is to be doubted: its temperature, what it has seen, and how often it was right.

Three sets are kept apart: statistics come from training pictures, temperature and threshold from held-out ones like
them, and what is stated of both from a third that neither knew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from sklearn.metrics import roc_auc_score

from models.calibration import HeldOut, fit_temperature, miscalibration, soften
from models.doubt import Doubt, DoubtFacts, hash_processor, write_doubt
from models.imaging import read_image
from models.novelty import DIRECTIONS, Familiar, describe_pictures, fit_familiar, read_features
from models.registry import load_zoo, weights_folder
from models.schema import LiveModel
from models.vlm import VisionLanguageModel
from training.errors import DataError, RunError
from training.files import write_whole
from training.labelled import read_labelled
from training.layouts import read_table
from training.measured import describe_source
from training.opening import Wanted, open_wanted
from training.recipe import Strict, read_strict

logger = logging.getLogger(__name__)

BATCH = 16
SECTION = "## Doubt"


class DoubtRecipe(Strict):
    """Which sets are used for what; paths are relative to the folder from which the command is run."""

    train: str
    """Labelled pictures that the model learned from."""
    held: str
    """Labelled pictures like them, held out: temperature and threshold."""
    measured: str
    """Further ones, held out: what is stated."""
    outside: dict[str, str] = Field(default_factory=dict)
    """By name, pictures of another kind, which the model should find unlike its own."""
    column: str = "label"
    """Column of the three sets that tells what a picture shows, such as the answers of a table of questions."""
    names: dict[str, str] = Field(default_factory=dict)
    """The model's label for a text of that column; texts that are not here are labels themselves."""
    pictures: int = Field(default=1500, ge=2 * DIRECTIONS)
    """Training pictures taken, at most."""
    false_alarm: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of ``held`` that may be called unlike the training pictures."""
    seed: int = 0


@dataclass(frozen=True)
class _Set:
    """Pictures with or without labels, decoded when they are needed, and where they come from."""

    name: str
    pictures: Sequence[bytes | Path]
    truth: NDArray[np.intp]
    about: dict[str, Any]

    def batches(self) -> Iterator[list[Image.Image]]:
        """RGB pictures, some at a time."""
        for start in range(0, len(self.pictures), BATCH):
            part = self.pictures[start : start + BATCH]
            yield [read_image(picture, f"{self.name} {start + place}").rgb for place, picture in enumerate(part)]


def measure_doubt(
    model: str, recipe: Path, command: str = "", zoo: Path | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Measure a model and write ``doubt.json``, ``doubt.safetensors`` and the card's section beside its weights.

    Args:
        model: id in the zoo; its weights must lie in a folder of this machine.
        recipe: YAML file of the form ``DoubtRecipe``.
        command: the command line, for the file.
        zoo: a zoo file of further models.
        out: folder to write to; that of the weights when not given.

    Returns:
        The content of ``doubt.json``.

    Raises:
        RunError: the model comes from a hub, and no folder is given.
        ExhibitError: the model or a set cannot be used.
    """
    plan = read_strict(DoubtRecipe, recipe)
    folder = out or weights_folder(load_zoo(zoo).get(model).source)
    if folder is None:
        raise RunError(f"{model}: comes from a hub; statistics lie beside weights, so give their folder as --out.")
    live = open_wanted(Wanted(model, zoo=zoo)).live
    train = _take(_read(live, plan, "train", plan.train), plan.pictures, plan.seed)
    held, measured = _read(live, plan, "held", plan.held), _read(live, plan, "measured", plan.measured)
    familiar = fit_familiar(_features(live, train))
    doubt = _measure(live, familiar, (train, held, measured), plan, command)
    write_doubt(doubt, folder)
    _write_card(folder / "README.md", doubt.facts)
    return doubt.facts.model_dump(mode="json")


def describe_doubt(facts: dict[str, Any]) -> str:
    """What was measured, in lines for people."""
    figures = facts["figures"]
    lines = [
        f"temperature {facts['temperature']:.3f}: ECE {figures['ece_raw']:.4f} before, {figures['ece']:.4f} after",
        f"unlike the training pictures above {facts['threshold']:.3f}: {facts['false_alarm']:.1%} of held-out "
        f"pictures, {figures['false_alarm_measured']:.1%} of the measured ones",
    ]
    lines += [
        f"{name}: {one['pictures']} pictures, AUROC {one['auroc']:.4f}, {one['flagged']:.1%} called unlike"
        for name, one in figures["outside"].items()
    ]
    return "\n".join(lines)


def _measure(
    live: LiveModel, familiar: Familiar, sets: tuple[_Set, _Set, _Set], plan: DoubtRecipe, command: str
) -> Doubt:
    _, held, measured = sets
    (near, known), (usual, logits) = (
        (familiar.distances(features), scores) for features, scores in (_look(live, one) for one in (held, measured))
    )
    temperature = fit_temperature(known, held.truth)
    threshold = float(np.quantile(near, 1 - plan.false_alarm))
    figures: dict[str, Any] = {
        "ece_raw": miscalibration(soften(logits, 1.0), measured.truth),
        "ece": miscalibration(soften(logits, temperature), measured.truth),
        "false_alarm_measured": float((usual > threshold).mean()),
        "outside": {},
    }
    files = {one.name: one.about for one in sets}
    for name, path in plan.outside.items():
        other = _read_unlabelled(name, path)
        far = familiar.distances(_features(live, other))
        figures["outside"][name] = {
            "pictures": len(far),
            "auroc": float(roc_auc_score([0] * len(usual) + [1] * len(far), np.concatenate([usual, far]))),
            "flagged": float((far > threshold).mean()),
        }
        files[name] = other.about
    asked = live if isinstance(live, VisionLanguageModel) else None
    facts = DoubtFacts(
        weights_sha256=live.status.weights_sha256,
        processor_sha256=hash_processor(asked.core.processor if asked else getattr(live, "processor", None)),
        labels=live.labels,
        question=asked.question if asked else "",
        style=asked.style if asked else "",
        temperature=temperature,
        threshold=threshold,
        false_alarm=float((near > threshold).mean()),
        measured_sha256=measured.about["sha256"],
        sets=files,
        figures=figures,
        command=command,
    )
    return Doubt(facts, familiar, HeldOut(logits, measured.truth, live.labels, measured.about["sha256"]))


def _read(live: LiveModel, plan: DoubtRecipe, name: str, source: str) -> _Set:
    """A labelled set of the recipe; its labels are matched to the model's by name."""
    table = read_table(source)
    about = describe_source(source, table).model_dump(mode="json")
    if plan.column == "label":
        found = read_labelled(source).originals()
        pictures, texts = found.pictures, [found.names[label] for label in found.labels]
    else:
        pictures = tuple(table.pictures[place] for place in table.places)
        texts = [str(text) for text in table.get_list(plan.column)]
    labels = [plan.names.get(text, text) for text in texts]
    unknown = sorted(set(labels) - set(live.labels))
    if unknown:
        raise DataError(f"{source}: has the labels {', '.join(unknown)}, the model {', '.join(live.labels)}.")
    return _Set(name, pictures, np.array([live.labels.index(label) for label in labels], np.intp), about)


def _read_unlabelled(name: str, source: str) -> _Set:
    table = read_table(source)
    return _Set(name, table.pictures, np.zeros(0, np.intp), describe_source(source, table).model_dump(mode="json"))


def _take(given: _Set, count: int, seed: int) -> _Set:
    chosen = np.random.default_rng(seed).permutation(len(given.pictures))[:count]
    pictures = [given.pictures[place] for place in chosen]
    return _Set(given.name, pictures, given.truth[chosen], given.about | {"taken": len(pictures)})


def _features(live: LiveModel, given: _Set) -> NDArray[np.float32]:
    logger.info("features of %d pictures (%s)", len(given.pictures), given.name)
    return np.concatenate([describe_pictures(live, images) for images in given.batches()])


def _look(live: LiveModel, given: _Set) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Features and raw scores of every picture, from one pass where the model has both from it."""
    logger.info("features and answers of %d pictures (%s)", len(given.pictures), given.name)
    rows, scores = [], []
    for images in given.batches():
        inputs = live.prepare(images)
        features, outputs = read_features(live, inputs, [image.size for image in images])
        said = live.predict(images) if outputs is None else live.read(outputs, 0.0)
        rows.append(features)
        scores += [list(one.logits.values()) for one in said]
    return np.concatenate(rows), np.array(scores)


def _write_card(card: Path, facts: DoubtFacts) -> None:
    """Put the section into the model's card, in place of an older one; a folder without a card gets none."""
    if not card.is_file():
        return
    before, _, after = card.read_text(encoding="utf-8").partition(f"{SECTION}\n")
    rest = after.partition("\n## ")
    kept = f"{before.rstrip()}\n" if not rest[1] else f"{before.rstrip()}\n\n## {rest[2].rstrip()}\n"
    write_whole(card, f"{kept}\n{_describe_card(facts)}\n")


def _describe_card(facts: DoubtFacts) -> str:
    figures, sets = facts.figures, facts.sets
    rows = [
        f"| {name} | {one['pictures']:,} | {one['auroc']:.3f} | {one['flagged']:.1%} |"
        for name, one in figures["outside"].items()
    ]
    table = "\n".join(
        ["| pictures | number | AUROC against its own kind | called unlike |", "|---|---|---|---|", *rows]
    )
    return "\n\n".join(
        (
            SECTION,
            f"Probabilities are shown after division of the raw scores by {facts.temperature:.3f}, fitted on "
            f"{sets['held']['rows']:,} held-out pictures. On {sets['measured']['rows']:,} others the calibration error "
            f"(ECE) is {figures['ece']:.4f} with it and {figures['ece_raw']:.4f} without.",
            f"A picture counts as unlike the training pictures where its features lie farther from theirs than those "
            f"of all but {facts.false_alarm:.1%} of the held-out pictures. Of the {sets['measured']['rows']:,} others "
            f"{figures['false_alarm_measured']:.1%} do, of pictures of other kinds:",
            table,
            "The kind of distance was chosen with these pictures in sight, so their AUROC is a little too good. A "
            "picture that is not called unlike may still be of a kind the model never saw.",
            f"```\n{facts.command}\n```",
        )
    )
