"""A finished run becomes a folder of ``assets/bundled``: half-precision weights, measured figures, a model card.

Everything on the card is measured on the very weights that are shipped, loaded as the app loads them.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from models.families import get_family
from models.loading import BASE_SUFFIX
from models.registry import load_zoo, weights_folder
from models.reports import Report, write_report
from models.vlm import VisionLanguageModel
from models.weights import ADAPTER, ADAPTER_CONFIG
from training.cards import BEFORE, CardFacts, CardTexts, write_card
from training.checkpoints import AVERAGE, find_latest_checkpoint
from training.errors import RunError
from training.evaluate import Manner, ask, describe
from training.finetune import WEIGHTS, build_learner
from training.labelled import LabelledSet
from training.language_recipe import read_language_recipe
from training.measured import read_measured
from training.opening import Opened, Wanted, open_wanted
from training.recipe import FILTERS, Recipe, read_recipe, write_recipe
from training.report import build_report
from training.summary import summarise_groups, summarise_report

logger = logging.getLogger(__name__)

MAIN_SET = "validation"
MOST_LOSSES = 200
MOST_PICTURES = 150  # small ones beside a bundled model's report: some 11 kB each
REPORTS = "reports"
COMMAND = "python -m training bundle"


@dataclass(frozen=True)
class Trained:
    """What a run has to offer.

    Attributes:
        classifier: the averaged weights, float32.
        processor: the image processor to ship.
        steps: optimiser steps behind the weights.
        history: losses on the way there.
        finished: False when the weights are a checkpoint of a run still going on.
    """

    classifier: Any
    processor: Any
    steps: int
    history: list[dict[str, float]]
    finished: bool


def bundle(
    run: Path,
    out: Path,
    *,
    card: CardTexts,
    sets: Mapping[str, Path],
    unfinished: bool = False,
    resample: str | None = None,
) -> dict[str, Any]:
    """Write a run's weights, figures and card into a folder, replacing an older bundle there.

    Args:
        run: folder written by ``finetune``.
        out: folder to write, for instance ``assets/bundled/resnet-deepfake``.
        card: the texts of the card that no measurement gives.
        sets: labelled files to measure on by name; ``validation`` must be among them.
        unfinished: take the newest checkpoint of a run that is still going on.
        resample: how pictures are resized for it, a name in ``FILTERS``; as in its training when not given.

    Returns:
        The content of ``metrics.json``.

    Raises:
        RunError: if the run is not finished, the main set is missing, or ``out`` holds something else.
    """
    recipe = read_recipe(run / "recipe.yaml")
    with _partial(out, sets) as partial:
        trained = _open_run(run, recipe, unfinished)
        if resample:
            trained.processor.resample = FILTERS[resample]
        trained.classifier.half().save_pretrained(partial)
        trained.processor.save_pretrained(partial)
        write_recipe(recipe, partial / "recipe.yaml")
        opened = replace(open_wanted(Wanted(str(partial))), history=tuple(trained.history))
        figures = {
            "schema_version": 1,
            "training": {
                "recipe": recipe.name,
                "seed": recipe.seed,
                "steps": trained.steps,
                "finished": trained.finished,
                "parameters": sum(tensor.numel() for tensor in trained.classifier.parameters()),
                "history": trained.history,
            },
        } | measure_model(opened, _find_name(out), sets, partial / REPORTS)
        facts = CardFacts(
            head={"library_name": "transformers", "pipeline_tag": "image-classification"},
            labels=recipe.labels,
            asked="",
            recipe=recipe.name,
            seed=recipe.seed,
            batch_size=recipe.train.batch_size,
            examples="pictures",
        )
        _finish(partial, facts, card, figures)
    return figures


def bundle_language(run: Path, out: Path, *, card: CardTexts, sets: Mapping[str, Path]) -> dict[str, Any]:
    """The same for a vision-language model, whole or as the adapter that the run has learnt.

    Raises:
        RunError: if the run is not finished, the main set is missing, or ``out`` holds something else.
    """
    recipe = read_language_recipe(run / "recipe.yaml")
    if not (run / "metrics.json").exists():
        raise RunError(f"{run}: the run is not finished; finish it with python -m training finetune --resume.")
    learnt = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    with _partial(out, sets) as partial:
        if recipe.adapter is None:
            network, processor, _ = get_family(recipe.family).load(run, dtype=torch.float16)
            network.save_pretrained(partial)
            processor.save_pretrained(partial)
        else:
            halved = {name: tensor.half() for name, tensor in load_file(run / ADAPTER).items()}
            partial.mkdir(parents=True)
            save_file(halved, partial / ADAPTER)
            shutil.copy(run / ADAPTER_CONFIG, partial)
        write_recipe(recipe, partial / "recipe.yaml")
        figures = {
            "schema_version": 1,
            "training": {"finished": True}
            | {key: learnt[key] for key in ("recipe", "seed", "steps", "parameters", "trained_parameters")}
            | {"history": _thin_history(learnt)},
        }
        # Its metrics.json, which tells the losses, is yet to be written.
        opened = replace(open_wanted(Wanted(str(partial))), history=tuple(_thin_history(learnt)))
        name = _find_name(out)
        figures |= measure_model(opened, name, sets, partial / REPORTS)
        if recipe.adapter is not None and isinstance(opened.live, VisionLanguageModel):
            base = replace(opened, live=opened.live.without_adapter(), base=True, history=())
            before = measure_model(base, f"{name}{BASE_SUFFIX}", sets, partial / REPORTS, suffix=f"-{BEFORE}")
            figures[BEFORE] = before
        adapter = {"library_name": "peft", "base_model": recipe.model.start}
        facts = CardFacts(
            head=(adapter if recipe.adapter else {"library_name": "transformers"})
            | {"pipeline_tag": "image-text-to-text"},
            labels=tuple(recipe.task.answers.values()),
            asked=f"Asked: {recipe.task.question!r}, answered by {', '.join(recipe.task.answers)} in that order.",
            recipe=recipe.name,
            seed=recipe.seed,
            batch_size=recipe.train.batch_size,
            examples="questions",
        )
        _finish(partial, facts, card, figures)
    return figures


@contextmanager
def _partial(out: Path, sets: Mapping[str, Path]) -> Iterator[Path]:
    """A folder to write beside ``out``; it takes its place when the block ends well.

    Raises:
        RunError: if the main set is missing, or ``out`` holds something else than a bundle.
    """
    if MAIN_SET not in sets:
        raise RunError(f"--measure {MAIN_SET}=FILE.parquet is missing; the app reads the accuracy on it.")
    if out.exists() and any(out.iterdir()) and not (out / "metrics.json").exists():
        raise RunError(f"{out}: exists and is no bundle; give another --out.")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    yield partial
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)


def _finish(folder: Path, facts: CardFacts, card: CardTexts, figures: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    write_card(folder / "README.md", facts, card, figures)


def _open_run(run: Path, recipe: Recipe, unfinished: bool) -> Trained:
    if (run / "metrics.json").exists():
        learnt = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        classifier = AutoModelForImageClassification.from_pretrained(run, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(run)
        return Trained(classifier, processor, int(learnt["steps"]), _thin_history(learnt), finished=True)
    checkpoint = find_latest_checkpoint(run, discard=False) if unfinished else None
    if checkpoint is None:
        raise RunError(f"{run}: the run is not finished; finish it with python -m training finetune --resume.")
    learner = build_learner(recipe)
    if recipe.train.ema_decay is None:
        state = load_file(checkpoint / WEIGHTS)
    else:
        averaged = load_file(checkpoint / AVERAGE)
        state = {name.removeprefix("module."): value for name, value in averaged.items() if name.startswith("module.")}
    learner.module.load_state_dict(state)
    steps = int(checkpoint.name.rsplit("-", 1)[1])
    return Trained(learner.classifier, learner.processor, steps, [], finished=False)


def _find_name(out: Path) -> str:
    """What reports call a bundled model: its id in the zoo, where it has one."""
    known = (spec.id for spec in load_zoo().specs.values() if weights_folder(spec.source) == out.resolve())
    return next(known, out.name)


def _thin_history(learnt: Mapping[str, Any]) -> list[dict[str, float]]:
    """Losses of a run's ``metrics.json``, few enough for a curve; every evaluation stays."""
    kept = [{key: one[key] for key in ("step", "loss", "eval_loss") if key in one} for one in learnt.get("history", ())]
    stride = max(len(kept) // MOST_LOSSES, 1)
    return [one for place, one in enumerate(kept) if "eval_loss" in one or ("loss" in one and place % stride == 0)]


def measure_model(
    opened: Opened, name: str, sets: Mapping[str, Path], reports: Path, *, suffix: str = ""
) -> dict[str, Any]:
    """Figures of a model on each set, in all and by each text column of the file; its reports are written too.

    Args:
        opened: the model.
        name: what the reports call it.
        sets: files to measure on, by name.
        reports: folder of the reports, one folder per set. Small pictures go there only of sets that were drawn by a
            program: photographs, and questions about them, are their owners' to publish. The pages take a picture
            from whichever report has it.
        suffix: of the folders' names; where there is one, the pictures lie beside the report without it.
    """
    figures: dict[str, Any] = {}
    for title, path in sets.items():
        measured, manner = read_measured([path]), Manner(name=name, command=COMMAND)
        answered = ask(opened, measured, manner)
        report = withhold_texts(build_report(answered, describe(Wanted(name), opened, measured, manner)))
        shown = _choose_pictures(report, answered.thumbnails) if report.generated and not suffix else {}
        write_report(report, reports / f"{title}{suffix}", shown)
        figures[title] = summarise_report(report)
        groups = summarise_groups(report, measured.asked.extras) if isinstance(measured.asked, LabelledSet) else {}
        if groups:
            figures[title]["by"] = groups
    return figures


def withhold_texts(report: Report) -> Report:
    """The report without the questions and right answers of a set that no program drew; rows stay comparable."""
    if report.generated or report.kind != "answers":
        return report
    rows = (
        row.model_copy(update={"question": f"question {number}, not published here", "truth": "not published here"})
        for number, row in enumerate(report.rows, 1)
    )
    return report.model_copy(update={"rows": tuple(rows)})


def _choose_pictures(report: Report, thumbnails: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those worth showing: first what the model got wrong, then further ones."""
    wrong_first = sorted(report.rows, key=lambda row: row.right)
    wanted = dict.fromkeys(row.sha256 for row in wrong_first if row.sha256 in thumbnails)
    return {digest: thumbnails[digest] for digest in list(wanted)[:MOST_PICTURES]}
