"""The set ``tampered``: camera faces of which one region was re-rendered, replaced or recompressed, with its mask.

``python -m training tampered SOURCE… --out DIR --count N --seed S`` writes ``tampered.parquet`` and ``tampered.json``.
Every face comes twice, as it was and with one region changed, and both are encoded alike, so that nothing but the
region tells them apart: a detector that is right has used it, and a heatmap that shows it has shown what decides.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from models.imaging import read_image
from training.errors import DataError
from training.labelled import LabelledSet, read_labelled
from training.layouts import Source

__all__ = ["KINDS", "LABEL_NAMES", "Tampered", "read_faces", "tamper", "write_tampered"]

Pixels = NDArray[np.uint8]

LABEL_NAMES = ("tampered", "authentic")
AUTHENTIC_KIND = "authentic"
SIZE_PX = 256
ROWS_PER_GROUP = 64
_SMALLEST, _LARGEST = 0.14, 0.25
"""Half axes of a region, as parts of the side: it covers 6 to 25 % of the picture."""

CLOSE = 3 / 8
"""Side of a close-up, as part of the picture's: the region fills most of it."""

_FEATHER = 1 / 128
"""Standard deviation of a region's soft edge, as part of the side: no hard edge gives it away."""

_QUALITY = 95
"""JPEG quality at which every picture is kept, changed or not."""


@dataclass(frozen=True)
class Tampered:
    """One face with a changed region.

    Attributes:
        pixels: uint8 (size, size, 3).
        mask: bool (size, size), true where more than half of a pixel is new.
        kind: one of ``KINDS``.
    """

    pixels: Pixels
    mask: NDArray[np.bool_]
    kind: str


def _rerender(face: Pixels, _other: Pixels, random: Random) -> Pixels:
    """Detail blurred away, and grain of another strength in its place, as image generators leave it."""
    sigma, grain = random.uniform(2.0, 4.0), random.uniform(12.0, 25.0)
    noise = np.random.default_rng(random.getrandbits(32)).normal(0, grain, face.shape)
    soft = cv2.GaussianBlur(face, (0, 0), sigma).astype(np.float64)
    return (soft + noise).round().clip(0, 255).astype(np.uint8)


def _replace(_face: Pixels, other: Pixels, _random: Random) -> Pixels:
    """The same place of another face, in its own light."""
    return other


def _recompress(face: Pixels, _other: Pixels, random: Random) -> Pixels:
    """Compressed once more and harder than the rest, as where something was pasted from another file."""
    buffer = io.BytesIO()
    Image.fromarray(face).save(buffer, "JPEG", quality=random.randint(2, 6))
    return np.asarray(Image.open(buffer).convert("RGB"))


_CHANGES: dict[str, Callable[[Pixels, Pixels, Random], Pixels]] = {
    "re-rendered": _rerender,
    "replaced": _replace,
    "recompressed": _recompress,
}
KINDS = tuple(_CHANGES)


def tamper(face: Pixels, other: Pixels, random: Random, kind: str | None = None) -> Tampered:
    """Change one region of a face, an ellipse or a rectangle anywhere in the picture.

    Args:
        face: uint8 (size, size, 3).
        other: uint8 of the same shape, the face that a replaced region comes from.
        random: the only source of chance.
        kind: one of ``KINDS``; drawn when not given.

    Raises:
        DataError: the shapes differ, or there is no such kind.
    """
    if face.shape != other.shape or face.shape[0] != face.shape[1]:
        raise DataError(f"faces of {face.shape} and {other.shape}: both must be square and of one size.")
    chosen = random.choice(KINDS) if kind is None else kind
    if chosen not in _CHANGES:
        raise DataError(f"there is no kind {chosen!r}; choose one of {', '.join(KINDS)}.")
    cover = _draw_region(face.shape[0], random)
    changed = _CHANGES[chosen](face, other, random)
    mixed = face + (changed.astype(np.float64) - face) * cover[..., None]
    return Tampered(mixed.round().clip(0, 255).astype(np.uint8), cover > 0.5, chosen)


def _draw_region(size: int, random: Random) -> NDArray[np.float64]:
    """Share of each pixel, float64 (size, size) in [0, 1], that belongs to the region; it lies wholly inside."""
    half_x, half_y = (random.uniform(_SMALLEST, _LARGEST) for _ in range(2))
    x, y = (random.uniform(half, 1 - half) for half in (half_x, half_y))
    centres = (np.arange(size) + 0.5) / size
    across, down = np.abs(centres - x)[None] / half_x, np.abs(centres - y)[:, None] / half_y
    inside = across**2 + down**2 <= 1 if random.random() < 0.5 else np.maximum(across, down) <= 1
    return np.asarray(cv2.GaussianBlur(inside.astype(np.float64), (0, 0), size * _FEATHER), np.float64)


def read_faces(sources: Sequence[Source], label: str = "real") -> LabelledSet:
    """The pictures of one label.

    Args:
        sources: labelled sets; see ``training.labelled``.
        label: the label of pictures that no one has changed yet.

    Raises:
        DataError: a source cannot be read, or fewer than two pictures have the label.
    """
    everything = read_labelled(sources)
    wanted = [at for at, number in enumerate(everything.labels) if everything.names[number] == label]
    if len(wanted) < 2:
        raise DataError(f"{len(wanted)} pictures are labelled {label!r}; at least two are needed to swap regions.")
    return everything.select(wanted)


def make_tampered(faces: LabelledSet, seed: int, number: int, *, size: int = SIZE_PX) -> tuple[Pixels, Tampered, str]:
    """One face of a set as it is and with a region changed, and where it came from.

    Args:
        faces: pictures that no one has changed.
        seed: of the set; the change depends on it and on ``number`` alone.
        number: of the face, from 0.
        size: side to which faces are brought first.

    Raises:
        DataError: there is no such face.
        BadImageError: a picture cannot be read.
    """
    if not 0 <= number < len(faces):
        raise DataError(f"face {number} of {len(faces)}: there is no such face.")
    random = Random(f"tampered {seed} {number}")  # noqa: S311 - draws pictures, guards nothing
    lender = (number + random.randrange(1, len(faces))) % len(faces)  # any face but its own
    own, other = (_read_square(faces, at, size) for at in (number, lender))
    return own, tamper(own, other, random), faces.sources[number]


def _read_square(faces: LabelledSet, at: int, size: int) -> Pixels:
    picture = read_image(faces.pictures[at], name=faces.sources[at]).rgb
    return np.asarray(
        picture.resize((size, size), Image.Resampling.BICUBIC) if picture.size != (size, size) else picture
    )


def write_tampered(
    sources: Sequence[Source],
    out: Path,
    count: int,
    seed: int,
    *,
    label: str = "real",
    size: int = SIZE_PX,
    close: bool = False,
    name: str = "tampered",
) -> dict[str, Any]:
    """Write ``NAME.parquet`` and, last, ``NAME.json`` into a folder.

    Args:
        sources: labelled sets with faces of cameras.
        out: folder to create; it must not hold a set yet.
        count: faces, each of which gives two pictures.
        seed: the same sources, seed, count and size give the same file.
        label: what ``sources`` call a face that no one has changed.
        size: side of the pictures in pixels.
        close: cut each pair down to the surroundings of its region: what a network learns traces from in minutes,
            before it looks for them in whole pictures.
        name: of the two files; fine-tuning reads ``train``.

    Returns:
        The content of ``NAME.json``.

    Raises:
        DataError: a number is out of range, a source cannot be used, or ``out`` holds a set already.
    """
    target, described = out / f"{name}.parquet", out / f"{name}.json"
    if described.exists() or target.exists():
        raise DataError(f"{out}: holds a set already; give another --out or remove it.")
    faces = read_faces(sources, label)
    if not 1 <= count <= len(faces) or not 64 <= size <= 512:
        raise DataError(f"--count {count} must be 1 to {len(faces)}, the faces there are; --size {size}, 64 to 512.")
    out.mkdir(parents=True, exist_ok=True)
    kinds: Counter[str] = Counter()
    schema, partial = _make_schema(), out / f"{name}.parquet.partial"
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            made = _make_rows(faces, seed, count, size, close=close)
            while rows := list(islice(made, ROWS_PER_GROUP)):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                kinds.update(row["kind"] for row in rows)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    summary = {
        "schema_version": 1,
        "made_by": "training.tampered: photographs of faces with one region changed",
        "seed": seed,
        "faces": count,
        "size_px": size,
        "close": close,
        "label_names": list(LABEL_NAMES),
        "kinds": dict(sorted(kinds.items())),
    }
    described.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def _make_rows(faces: LabelledSet, seed: int, count: int, size: int, *, close: bool) -> Iterator[dict[str, Any]]:
    for number in tqdm(range(count), desc="tampering", unit="face", mininterval=1.0):
        own, changed, source = make_tampered(faces, seed, number, size=size)
        nothing, cut = np.zeros_like(changed.mask), _cut_around(changed.mask) if close else slice(None)
        for label, pixels, mask, kind in (
            ("tampered", changed.pixels[cut], changed.mask[cut], changed.kind),
            ("authentic", own[cut], nothing[cut], AUTHENTIC_KIND),
        ):
            name = f"{seed}-{number:07d}-{label}"
            yield {
                "image": {"bytes": _encode(pixels, "JPEG", quality=_QUALITY, subsampling=0), "path": f"{name}.jpg"},
                "label": LABEL_NAMES.index(label),
                "kind": kind,
                "face": source,
                "mask": {"bytes": _encode(mask.astype(np.uint8), "PNG"), "path": f"{name}.png"},
            }


def _cut_around(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of a close-up: a square around the middle of the region, moved inside the picture."""
    side = round(CLOSE * mask.shape[0])
    starts = [min(max(round(float(at.mean()) - side / 2), 0), mask.shape[0] - side) for at in np.nonzero(mask)]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def _encode(pixels: Pixels, form: str, **options: Any) -> bytes:  # noqa: ANN401 - what Pillow takes
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, form, **options)
    return buffer.getvalue()


def _make_schema() -> pa.Schema:
    """Columns and the metadata by which ``datasets`` decodes pictures and names labels."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(LABEL_NAMES), "_type": "ClassLabel"},
        "kind": text,
        "face": text,
        "mask": {"_type": "Image"},
    }
    kinds = {"image": picture, "label": pa.int64(), "kind": pa.string(), "face": pa.string(), "mask": picture}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(kinds.items()), metadata=metadata)
