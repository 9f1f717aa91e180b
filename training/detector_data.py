"""Photographs with boxes for a detector: recipe, reading, dealing into parts, ultralytics' file format."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from training.errors import DataError
from training.recipe import Strict, read_strict


class DetectorRecipe(Strict):
    """A fine-tuning run of a detector; files are relative to the working folder."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    start: Path
    """Safetensors file, or its folder, to start from."""
    data: Path
    """Parquet file with the columns ``image``, ``boxes_xyxy``, ``labels`` and ``coco_id``."""
    seed: int = 0
    known_until_id: int = 0
    """Photos with a ``coco_id`` up to this one are only trained on: the starting weights may have seen them."""
    dev: int = Field(gt=0)
    """Photos that choose the best epoch."""
    heldout: int = Field(gt=0)
    """Photos that are only measured."""
    epochs: int = Field(gt=0)
    batch_size: int = Field(16, ge=2)
    image_size: int = Field(640, ge=32, multiple_of=32)
    """Longer side of the training pictures in pixels."""
    optimizer: str = "AdamW"
    learning_rate: float = Field(gt=0)
    """Peak, after one epoch of warm-up; cosine to a tenth."""
    weight_decay: float = Field(0.0005, ge=0)
    freeze_batchnorm: bool = True
    """Keep the running statistics of the normalisations as they are."""
    mosaic: float = Field(0.0, ge=0, le=1)
    """Probability that four photos are trained on as one."""
    scale: float = Field(0.2, ge=0, lt=1)
    """Largest relative zoom in or out."""
    translate: float = Field(0.1, ge=0, lt=1)
    """Largest shift, as a share of the picture."""
    colour: float = Field(1.0, ge=0, le=1)
    """Strength of the changes of hue, saturation and brightness; 1 is as strong as ultralytics' own."""


@dataclass(frozen=True)
class Photo:
    """A photograph and the objects in it.

    Attributes:
        coco_id: id in COCO.
        encoded: bytes of the picture file.
        boxes_xyxy: float32 (n, 4), pixels.
        labels: n class names.
    """

    coco_id: int
    encoded: bytes = field(repr=False)
    boxes_xyxy: NDArray[np.float32] = field(repr=False)
    labels: tuple[str, ...]

    def open(self) -> Image.Image:
        """The decoded RGB picture."""
        with Image.open(io.BytesIO(self.encoded)) as picture:
            return picture.convert("RGB")


def read_recipe(path: Path) -> DetectorRecipe:
    """Reads and checks a recipe.

    Raises:
        RecipeError: the file is missing, is not YAML, or an entry is unknown, missing or out of range.
    """
    return read_strict(DetectorRecipe, path)


def read_photos(path: Path) -> tuple[Photo, ...]:
    """Reads photographs with boxes from a parquet file.

    Raises:
        DataError: the file is missing, is not parquet, or lacks a column.
    """
    columns = ["image", "boxes_xyxy", "labels", "coco_id"]
    try:
        rows = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} is no parquet file with the columns {', '.join(columns)}; give one.") from error
    return tuple(
        Photo(
            coco_id=row["coco_id"],
            encoded=row["image"]["bytes"],
            boxes_xyxy=np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4),
            labels=tuple(row["labels"]),
        )
        for row in rows
    )


def split_photos(photos: Sequence[Photo], recipe: DetectorRecipe) -> dict[str, tuple[Photo, ...]]:
    """Deals whole photographs into train, dev and held-out parts, the same for the same ids and recipe.

    Stratified by each photo's rarest class: the open photos, ordered by that class, are dealt evenly along the order.

    Raises:
        DataError: there are too few photos, or one occurs twice.
    """
    if len({photo.coco_id for photo in photos}) != len(photos):
        raise DataError("a photo occurs twice, and could fall into two parts; keep each coco_id once.")
    frequency = Counter(label for photo in photos for label in set(photo.labels))

    def order(photo: Photo) -> tuple[int, str, str]:
        rarest = min(photo.labels, key=lambda label: (frequency[label], label), default="")
        shuffled = hashlib.sha256(f"{recipe.seed}:{photo.coco_id}".encode()).hexdigest()
        return frequency[rarest], rarest, shuffled

    candidates = sorted((photo for photo in photos if photo.coco_id > recipe.known_until_id), key=order)
    if len(candidates) <= recipe.dev + recipe.heldout:
        raise DataError(f"{len(candidates)} photos to choose from; fewer than dev and heldout need, lower those.")
    # Larger shares first: with an even step no two parts compete for one photo, since each takes from what is left.
    parts: dict[str, tuple[Photo, ...]] = {}
    for part, count in (("heldout", recipe.heldout), ("dev", recipe.dev)):
        chosen = {int((i + 0.5) * len(candidates) / count) for i in range(count)}
        parts[part] = tuple(candidates[i] for i in sorted(chosen))
        candidates = [photo for i, photo in enumerate(candidates) if i not in chosen]
    kept_back = {photo.coco_id for part in parts.values() for photo in part}
    return {"train": tuple(photo for photo in photos if photo.coco_id not in kept_back), **parts}


def write_yolo(folder: Path, parts: Mapping[str, Iterable[Photo]], names: Sequence[str]) -> Path:
    """Writes the parts ``train`` and ``dev`` as ultralytics reads them; returns the file that describes them."""
    for part in ("train", "dev"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for photo in parts[part]:
            (folder / "images" / part / f"{photo.coco_id}.jpg").write_bytes(photo.encoded)
            lines = (f"{names.index(label)} {box}" for label, box in zip(photo.labels, _relative(photo), strict=True))
            (folder / "labels" / part / f"{photo.coco_id}.txt").write_text("\n".join(lines), encoding="utf-8")
    dataset = folder / "dataset.yaml"
    content = {"path": str(folder), "train": "images/train", "val": "images/dev", "names": dict(enumerate(names))}
    dataset.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return dataset


def _relative(photo: Photo) -> list[str]:
    """Centre, width and height of each box as shares of the picture."""
    size = np.array(photo.open().size, np.float32)
    low, high = (np.clip(photo.boxes_xyxy[:, corner] / size, 0, 1) for corner in (slice(0, 2), slice(2, 4)))
    return [" ".join(f"{value:.6f}" for value in row) for row in np.concatenate([(low + high) / 2, high - low], 1)]
