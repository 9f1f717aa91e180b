"""The model card of the bundled detector, written from its measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CARD = """---
license: agpl-3.0
pipeline_tag: object-detection
---
# {name}

YOLOv8n, 3.2 million parameters, 80 COCO classes, as half-precision safetensors: the detector that Exhibit uses where
`yolov8n.pt` is neither on the machine nor to be had from a hub.

## How it was made

Start: Ultralytics' YOLOv8n trained on COCO, de-quantised from its int8 export. It was then fine-tuned end to end, all
layers, on {trained_photos} COCO 2017 photographs with Ultralytics' own trainer (`training/recipes/{name}.yaml`):
{optimizer}, peak learning rate {learning_rate:g}, {epochs} epochs of batches of {batch_size} at {image_size} px,
normalisation statistics {batchnorm}. The {best_epoch_ordinal} epoch was kept, for its mAP50-95 on the part `dev`.

    python -m training.detector finetune --recipe training/recipes/{name}.yaml --out runs/{name}
    python -m training.detector bundle --run runs/{name} --out assets/bundled/{name}

## Figures

Measured by `models/detector.py` on these very half-precision weights, at 640 px, with one class per box, confidence
from 0.001, IoU 0.7; average precision by Ultralytics' own code, over the classes that occur.

| part | photos | objects | classes | mAP50 before | mAP50 after | mAP50-95 before | mAP50-95 after |
|---|---|---|---|---|---|---|---|
{rows}

`heldout` was never trained on and chose nothing, except that weights worse on it than their start are not
bundled. Its ids stand in `metrics.json`. {verdict}

## How far to believe it

- With {heldout_photos} photographs and a handful of objects in most classes, differences of a point are noise. The
  fine-tuning took small steps from a start that was near its best: larger ones lost accuracy on `dev` (see the recipe).
- The photographs are at most 480 px on a side, smaller than COCO's own; figures on full COCO are others.
- {known}
- It knows 80 everyday classes and nothing else: a box says nothing about whether a picture is real.

## Licence

Weights: AGPL-3.0 (Ultralytics). Annotations: COCO, CC BY 4.0.
"""


def render_card(recipe: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        recipe: the values of a ``DetectorRecipe``.
        metrics: what ``training.detector.bundle`` writes to ``metrics.json``.
    """
    gain = metrics["heldout"]["after"]["map50_95"] - metrics["heldout"]["before"]["map50_95"]
    return _CARD.format(
        **recipe,
        batchnorm="kept as they were" if recipe["freeze_batchnorm"] else "updated",
        best_epoch_ordinal=_ordinal(metrics["best_epoch"]),
        trained_photos=metrics["trained_photos"],
        rows="\n".join(_row(part, metrics[part]) for part in ("dev", "heldout")),
        verdict=f"There the fine-tuning changed mAP50-95 by {gain:+.4f}.",
        heldout_photos=metrics["heldout"]["after"]["photos"],
        known=(
            "The starting weights learned from COCO train2017. Photographs with an id up to "
            f"{recipe['known_until_id']}, among which the first 128 of train2017 lie, were therefore only trained on; "
            "whether each other one was new to the starting weights is not recorded."
        ),
    )


def _row(part: str, both: Mapping[str, Mapping[str, Any]]) -> str:
    before, after = both["before"], both["after"]
    values = [f"{one[key]:.4f}" for key in ("map50", "map50_95") for one in (before, after)]
    return f"| {part} | {after['photos']} | {after['objects']} | {after['classes']} | {' | '.join(values)} |"


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
