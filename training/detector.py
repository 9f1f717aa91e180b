"""Fine-tunes, measures and bundles a YOLOv8 detector: ``python -m training.detector finetune | evaluate | bundle``.

Ultralytics' own trainer learns; Exhibit's own ``Detector`` measures, so that every figure is one of the weights as they
are shipped and loaded. The best epoch is chosen on the part ``dev``; ``heldout`` is only ever measured.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from models.detector import WEIGHTS_NAME, Detector, import_ultralytics, load_detector
from models.errors import ExhibitError
from models.schema import LoadState, ModelSpec, ModelStatus
from training.detector_card import render_card
from training.detector_data import DetectorRecipe, Photo, read_photos, read_recipe, split_photos, write_yolo
from training.errors import DataError, RunError

# Every candidate box counts for average precision, as in ultralytics' own validation.
CONFIDENCE, IOU, MAX_DETECTIONS = 0.001, 0.7, 300
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
log = logging.getLogger(__name__)


def measure(detector: Detector, photos: Sequence[Photo]) -> dict[str, Any]:
    """Average precision of a detector, by ultralytics' own ``ap_per_class``, over the classes that occur in ``photos``.

    Detections come from ``Detector.detect``: one class per box.

    Returns:
        ``map50`` and ``map50_95`` in [0, 1]; ``precision`` and ``recall`` at the confidence of the best mean F1 at IoU
        0.5; and the numbers of ``photos``, ``objects`` and ``classes``.

    Raises:
        DataError: a photo has a class that the detector does not know, or there is no object at all.
    """
    import_ultralytics()
    from ultralytics.utils.metrics import ap_per_class

    index = {name: i for i, name in enumerate(detector.names)}
    if unknown := {label for photo in photos for label in photo.labels} - index.keys():
        raise DataError(f"the detector does not know {', '.join(sorted(unknown))}; measure it on its own classes.")
    hits, confidences, classes, truths = [], [], [], []
    for photo in photos:
        found = detector.detect([photo.open()], confidence=CONFIDENCE, iou=IOU, max_detections=MAX_DETECTIONS)[0]
        predicted = np.array([index[label] for label in found.labels], np.int64)
        true = np.array([index[label] for label in photo.labels], np.int64)
        hits.append(_hits(found.xyxy, predicted, photo.boxes_xyxy, true))
        confidences.append(found.confidence)
        classes.append(predicted)
        truths.append(true)
    target = np.concatenate(truths) if truths else np.zeros(0)
    if not len(target):
        raise DataError("no object to measure on; give photos with boxes.")
    values = ap_per_class(np.concatenate(hits), np.concatenate(confidences), np.concatenate(classes), target)
    precision, recall, average = values[2], values[3], values[5]
    return {
        "map50": float(average[:, 0].mean()),
        "map50_95": float(average.mean()),
        "precision": float(precision.mean()),
        "recall": float(recall.mean()),
        "photos": len(photos),
        "objects": len(target),
        "classes": len(average),
    }


def _hits(
    boxes: NDArray[np.float32], classes: NDArray[np.int64], true_boxes: NDArray[np.float32], true: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Bool (detections, thresholds): each detection, the most confident first, claims the best object left."""
    from ultralytics.utils.metrics import box_iou

    overlap = box_iou(torch.from_numpy(true_boxes), torch.from_numpy(boxes)).numpy() * (true[:, None] == classes)
    hits = np.zeros((len(boxes), len(IOU_THRESHOLDS)), bool)
    if not len(true):
        return hits
    for t, threshold in enumerate(IOU_THRESHOLDS):
        left = np.ones(len(true), bool)
        for i in range(len(boxes)):
            best = int((overlap[:, i] * left).argmax())
            if left[best] and overlap[best, i] >= threshold:
                hits[i, t], left[best] = True, False
    return hits


def finetune(recipe: DetectorRecipe, out: Path) -> dict[str, Any]:
    """Fine-tunes end to end and writes the epoch that is best on ``dev``, with the recipe and the figures on ``dev``.

    Returns:
        The figures, as written to ``training.json``.

    Raises:
        RunError: ``out`` exists already.
        DataError: the photos cannot be used.
        ModelUnavailableError: the starting weights cannot be used.
    """
    if out.exists():
        raise RunError(f"{out} exists already; choose another folder or move it away.")
    start = open_detector(recipe.start)
    parts = split_photos(read_photos(recipe.data), recipe)
    before = measure(start, parts["dev"])
    log.info("start: %s", _short(before))
    with tempfile.TemporaryDirectory(prefix="exhibit-yolo-") as folder:
        dataset = write_yolo(Path(folder), parts, start.names)
        trainer = _trainer(recipe, start, parts["dev"], dataset)
        trainer.train()
    out.mkdir(parents=True)
    save_weights(trainer.best_state, start.names, out / WEIGHTS_NAME)
    figures = {"dev_before": before, "dev_by_epoch": trainer.measured, "best_epoch": trainer.best_epoch}
    (out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return figures


def _trainer(recipe: DetectorRecipe, start: Detector, dev: Sequence[Photo], dataset: Path) -> Any:  # noqa: ANN401
    """Ultralytics' trainer, measuring through ``Detector`` and keeping the best weights in memory, not in a pickle."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Trainer(DetectionTrainer):
        best_state: dict[str, Tensor]
        best_epoch = 0

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> nn.Module:  # noqa: ANN401, ARG002
            self.measured: list[dict[str, Any]] = []
            return start.module

        def _model_train(self) -> None:
            super()._model_train()
            for module in start.module.modules():
                if recipe.freeze_batchnorm and isinstance(module, nn.BatchNorm2d):
                    module.eval()

        def validate(self) -> tuple[dict[str, float], float]:
            averaged: nn.Module = self.ema.ema
            tuned = Detector(start.spec, start.status, averaged, start.names, device=self.device)
            figures = measure(tuned, dev)
            log.info("epoch %d of %d: %s", self.epoch + 1, self.epochs, _short(figures))
            if figures["map50_95"] > max((one["map50_95"] for one in self.measured), default=-math.inf):
                self.best_epoch = self.epoch + 1
                self.best_state = {name: value.clone() for name, value in averaged.state_dict().items()}
            self.measured.append(figures)
            return {}, figures["map50_95"]

        def save_model(self) -> bool:
            return False

        def final_eval(self) -> None:
            """Nothing is left to measure."""

    return Trainer(overrides=_overrides(recipe, dataset))


def _overrides(recipe: DetectorRecipe, dataset: Path) -> dict[str, Any]:
    return {
        "model": "yolov8n.yaml",  # replaced by the loaded network, see get_model
        "data": str(dataset),
        "project": str(dataset.parent),
        "name": "run",
        "seed": recipe.seed,
        "epochs": recipe.epochs,
        "batch": recipe.batch_size,
        "nbs": recipe.batch_size,
        "imgsz": recipe.image_size,
        "optimizer": recipe.optimizer,
        "lr0": recipe.learning_rate,
        "lrf": 0.1,
        "cos_lr": True,
        "warmup_epochs": 1.0,
        "warmup_bias_lr": 0.0,
        "weight_decay": recipe.weight_decay,
        "mosaic": recipe.mosaic,
        "close_mosaic": 0,
        "scale": recipe.scale,
        "translate": recipe.translate,
        "hsv_h": 0.015 * recipe.colour,
        "hsv_s": 0.7 * recipe.colour,
        "hsv_v": 0.4 * recipe.colour,
        "amp": False,  # its check downloads a model
        "plots": False,
        "workers": 0,
        "verbose": False,
    }


def save_weights(state: Mapping[str, Tensor], names: Sequence[str], file: Path) -> None:
    """Writes weights as half-precision safetensors with the class names in the metadata."""
    half = {name: (value.half() if value.is_floating_point() else value) for name, value in state.items()}
    metadata = {"names": ",".join(names), "licence": "AGPL-3.0", "format": "pt"}
    save_file({name: value.cpu().contiguous() for name, value in half.items()}, file, metadata)


def open_detector(path: Path) -> Detector:
    """A detector from a weight file or folder, outside the zoo.

    Raises:
        ModelUnavailableError: there is none.
    """
    file = path / WEIGHTS_NAME if path.is_dir() else path
    size_mb = max(file.stat().st_size / 1e6, 0.001) if file.is_file() else 1.0
    spec = ModelSpec(
        id="detector", name=path.name, task="detection", kind="detector", source=str(path), licence="AGPL-3.0",
        size_mb=size_mb, memory_mb=200,
    )  # fmt: skip
    return load_detector(spec, path, ModelStatus(LoadState.FINE_TUNED, loaded_from=str(path)))


def bundle(run: Path, out: Path) -> dict[str, Any]:
    """Measures a run's weights against their start on the held-out part and writes both with a model card.

    Returns:
        The figures, as written to ``metrics.json``.

    Raises:
        RunError: the run is not finished, or its weights are worse than the start on ``dev`` or the held-out part.
    """
    recipe = read_recipe(run / "recipe.yaml")
    photos = read_photos(recipe.data)
    parts = split_photos(photos, recipe)
    start, tuned = open_detector(recipe.start), open_detector(run)
    figures: dict[str, Any] = {
        part: {"before": measure(start, parts[part]), "after": measure(tuned, parts[part])}
        for part in ("dev", "heldout")
    }
    for part, both in figures.items():
        if both["after"]["map50_95"] < both["before"]["map50_95"]:
            raise RunError(f"worse than the start on {part} ({_short(both['after'])}); train with a lower rate.")
    training = json.loads((run / "training.json").read_text(encoding="utf-8"))
    metrics = {
        "trained_photos": len(parts["train"]),
        "best_epoch": training["best_epoch"],
        **figures,
        "heldout_coco_ids": sorted(photo.coco_id for photo in parts["heldout"]),
        "weights_sha256": hashlib.sha256((run / WEIGHTS_NAME).read_bytes()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / WEIGHTS_NAME).write_bytes((run / WEIGHTS_NAME).read_bytes())
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(render_card(recipe.model_dump(), metrics), encoding="utf-8")
    return metrics


def _short(figures: Mapping[str, Any]) -> str:
    return f"mAP50 {figures['map50']:.4f}, mAP50-95 {figures['map50_95']:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; results go to standard output, progress and errors to standard error.

    Returns:
        0 when done, 2 when the input cannot be used.
    """
    parser = argparse.ArgumentParser(prog="python -m training.detector", description="Train and measure a detector.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("finetune", help="fine-tune a detector by a recipe")
    command.add_argument("--recipe", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True, help="new folder for weights, recipe and figures")
    command = commands.add_parser("evaluate", help="measure a detector on photos with boxes")
    command.add_argument("--model", type=Path, required=True, help="weight file or folder")
    command.add_argument("--data", type=Path, help="parquet file; the recipe's by default")
    command.add_argument("--recipe", type=Path, help="measure on a part of this recipe's split")
    command.add_argument("--part", choices=("train", "dev", "heldout"), default="heldout")
    command = commands.add_parser("bundle", help="measure a run on its held-out part and write what ships")
    command.add_argument("--run", type=Path, required=True)
    command.add_argument("--out", type=Path, required=True)
    for command in commands.choices.values():
        command.add_argument("--json", action="store_true", help="print the figures as JSON")
    chosen = parser.parse_args(arguments)
    if chosen.command == "evaluate" and not (chosen.data or chosen.recipe):
        parser.error("evaluate needs --data or --recipe")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        figures = _run(chosen)
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    text = json.dumps(figures, indent=2) if chosen.json else yaml.safe_dump(figures, sort_keys=False).rstrip()
    sys.stdout.write(f"{text}\n")
    return 0


def _run(chosen: argparse.Namespace) -> dict[str, Any]:
    if chosen.command == "finetune":
        return finetune(read_recipe(chosen.recipe), chosen.out)
    if chosen.command == "bundle":
        return bundle(chosen.run, chosen.out)
    if chosen.recipe is None:
        return measure(open_detector(chosen.model), read_photos(chosen.data))
    recipe = read_recipe(chosen.recipe)
    return measure(
        open_detector(chosen.model), split_photos(read_photos(chosen.data or recipe.data), recipe)[chosen.part]
    )


if __name__ == "__main__":
    sys.exit(main())
