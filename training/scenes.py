"""The generated set ``casework``: chats, places and things of drug cases and what resembles them, with ground truth.

``python -m training scenes --out DIR --count N --seed S`` writes ``casework.parquet`` and ``scenes.json``. Every
picture depends on the seed and its own number only, so the set is the same whatever the number of workers.
"""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm.auto import tqdm

from training.errors import DataError
from training.scenes_chat import draw_album, draw_chat, draw_talk
from training.scenes_common import CHAT, LABEL_NAMES, PLACE, SUBSTANCE, UNRELATED, Pixels, Scene, find_fonts
from training.scenes_ordinary import draw_ordinary
from training.scenes_photo import take_photo
from training.scenes_places import draw_crowded, draw_place
from training.scenes_things import draw_things

logger = logging.getLogger(__name__)

ROWS_PER_GROUP = 64  # also what one worker draws at a time
SMALLEST_SIDE_PX, LARGEST_SIDE_PX = 64, 512
ORDINARY = 0.5  # of the unrelated pictures; the others look like one of the three classes
ORDINARY_HARD = 0.1  # the same in a hard set
_TURNS = (UNRELATED, CHAT, PLACE, SUBSTANCE)
_TURNS_HARD = (UNRELATED, CHAT, UNRELATED, PLACE, UNRELATED, SUBSTANCE)
_Draw = Callable[[int, Random], Scene]
_DRAW: dict[int, _Draw] = {CHAT: draw_chat, PLACE: draw_place, SUBSTANCE: draw_things}
KINDS: Mapping[str, tuple[int, _Draw]] = MappingProxyType(
    {
        "chat": (CHAT, draw_chat),
        "place": (PLACE, draw_place),
        "things": (SUBSTANCE, draw_things),
        "crowd": (PLACE, draw_crowded),
        "album": (CHAT, draw_album),
        "talk": (CHAT, draw_talk),
    }
)


@dataclass(frozen=True)
class Rendered:
    """One generated picture with everything known about it.

    Attributes:
        jpeg: encoded picture.
        label: index into ``LABEL_NAMES``.
        kind: what was drawn, for instance ``chat/ko``.
        caption: one sentence.
        claims_true: sentences that hold.
        claims_false: the same sentences with one thing changed, aligned.
        boxes_xyxy: (n, 4) in pixels, right and lower edge exclusive, of what decides the class.
        box_labels: names of the boxes, aligned.
        mask: uint8 (size, size), 1 where a pixel shows what decides the class.
        word_ids: uint8 (size, size), which of ``words`` a pixel shows, counted from 1; 0 for none.
        words: of the messages of a chat, as written.
        seed: of the set.
        number: of the picture in the set.
    """

    jpeg: bytes
    label: int
    kind: str
    caption: str
    claims_true: tuple[str, ...]
    claims_false: tuple[str, ...]
    boxes_xyxy: tuple[tuple[int, int, int, int], ...]
    box_labels: tuple[str, ...]
    mask: Pixels
    word_ids: Pixels
    words: tuple[str, ...]
    seed: int
    number: int


def render_picture(
    seed: int, number: int, size: int = 256, *, hard: bool = False, kinds: Sequence[str] = ()
) -> Rendered:
    """Draw and photograph one picture; classes take turns, so every four numbers hold one of each.

    Args:
        seed: of the set.
        number: of the picture, from 0.
        size: side in pixels.
        hard: half of the pictures are unrelated, and nearly all of these look like one of the three classes: more to
            learn from, and no set to measure on.
        kinds: of ``KINDS``, which then take turns in this order; every other picture of each is unrelated.
    """
    random = Random(f"casework {seed} {number}")  # noqa: S311 - draws pictures, guards nothing
    if kinds:
        label, draw = KINDS[kinds[number % len(kinds)]]
        label = UNRELATED if number // len(kinds) % 2 else label
    else:
        turns = _TURNS_HARD if hard else _TURNS
        label = turns[number % len(turns)]
        draw = _DRAW[random.choice(sorted(_DRAW)) if label == UNRELATED else label]
    if label == UNRELATED and random.random() < (ORDINARY_HARD if hard else ORDINARY):
        draw = draw_ordinary
    scene = draw(label, random)
    photo = take_photo(scene.sheet, size, random)
    found = [(part, box) for part in range(1, len(scene.sheet.parts) + 1) if (box := _find_box(photo.ids == part))]
    return Rendered(
        jpeg=photo.jpeg,
        label=label,
        kind=scene.kind,
        caption=scene.caption,
        claims_true=tuple(claim.true for claim in scene.claims),
        claims_false=tuple(claim.false for claim in scene.claims),
        boxes_xyxy=tuple(box for _, box in found),
        box_labels=tuple(scene.sheet.parts[part - 1] for part, _ in found),
        mask=(photo.ids > 0).astype(np.uint8),
        word_ids=photo.word_ids,
        words=tuple(scene.sheet.words),
        seed=seed,
        number=number,
    )


def _find_box(inside: Any) -> tuple[int, int, int, int] | None:  # noqa: ANN401 - a boolean array
    columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_scenes(
    out: Path,
    count: int,
    seed: int,
    *,
    workers: int = 1,
    size: int = 256,
    hard: bool = False,
    kinds: Sequence[str] = (),
) -> dict[str, Any]:
    """Write ``casework.parquet`` and, last, ``scenes.json`` into a folder.

    Args:
        out: folder to create; it must not hold a set yet.
        count: number of pictures.
        seed: the same seed, count and size give the same file.
        workers: processes that draw.
        size: side of the pictures in pixels, from 64 to 512.
        hard: as for ``render_picture``.
        kinds: as for ``render_picture``.

    Returns:
        The content of ``scenes.json``.

    Raises:
        DataError: if a number is out of its range, a font is missing, or ``out`` holds a set already.
    """
    if count < 1 or workers < 1:
        raise DataError(f"--count {count} and --workers {workers} must be at least 1.")
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise DataError(f"--kinds {' '.join(unknown)}: choose among {', '.join(KINDS)}.")
    if not SMALLEST_SIDE_PX <= size <= LARGEST_SIDE_PX:
        raise DataError(f"--size {size} is not between {SMALLEST_SIDE_PX} and {LARGEST_SIDE_PX} px.")
    target = out / "casework.parquet"
    if target.exists() or (out / "scenes.json").exists():
        raise DataError(f"{out}: holds a set already; give another --out or remove it.")
    for language in ("en", "ko", "pl"):
        find_fonts(language)  # a missing font is said here, not by a worker
    out.mkdir(parents=True, exist_ok=True)
    labels: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    schema, partial = _make_schema(), out / "casework.parquet.partial"
    try:
        with pq.ParquetWriter(partial, schema) as writer, tqdm(total=count, desc="scenes", unit="img") as bar:
            for rows in _render_groups(seed, count, size, hard, tuple(kinds), workers):
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                labels.update(LABEL_NAMES[row["label"]] for row in rows)
                drawn.update(row["kind"] for row in rows)
                bar.update(len(rows))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    summary = {
        "schema_version": 1,
        "made_by": "training.scenes: generated pictures, no photographs",
        "seed": seed,
        "pictures": count,
        "size_px": size,
        "hard": hard,
        "turns": list(kinds),
        "label_names": list(LABEL_NAMES),
        "labels": dict(sorted(labels.items())),
        "kinds": dict(sorted(drawn.items())),
    }
    (out / "scenes.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return summary


def _render_groups(
    seed: int, count: int, size: int, hard: bool, kinds: tuple[str, ...], workers: int
) -> Iterator[list[dict[str, Any]]]:
    starts = range(0, count, ROWS_PER_GROUP)
    tasks = [(seed, start, min(start + ROWS_PER_GROUP, count), size, hard, kinds) for start in starts]
    if workers == 1:
        yield from map(_render_rows, tasks)
        return
    # Forking a process that has threads (a notebook, a running page) can hang; a fresh one cannot.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        yield from pool.map(_render_rows, tasks)


def _render_rows(task: tuple[int, int, int, int, bool, tuple[str, ...]]) -> list[dict[str, Any]]:
    seed, start, stop, size, hard, kinds = task
    return [_to_row(render_picture(seed, number, size, hard=hard, kinds=kinds)) for number in range(start, stop)]


def _to_row(picture: Rendered) -> dict[str, Any]:
    name = f"{picture.seed}-{picture.number:07d}"
    return {
        "image": {"bytes": picture.jpeg, "path": f"{name}.jpg"},
        "label": picture.label,
        "kind": picture.kind,
        "caption": picture.caption,
        "claims_true": list(picture.claims_true),
        "claims_false": list(picture.claims_false),
        "boxes_xyxy": [list(map(float, box)) for box in picture.boxes_xyxy],
        "box_labels": list(picture.box_labels),
        "mask": {"bytes": _encode(picture.mask), "path": f"{name}.png"},
        "word_ids": {"bytes": _encode(picture.word_ids), "path": f"{name}-words.png"},
        "words": list(picture.words),
        "seed": picture.seed,
        "number": picture.number,
    }


def _encode(numbers: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(numbers).save(buffer, "PNG")
    return buffer.getvalue()


def _make_schema() -> pa.Schema:
    """Columns and the metadata by which ``datasets`` decodes pictures and names labels."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    text, number = {"dtype": "string", "_type": "Value"}, {"dtype": "int64", "_type": "Value"}
    box = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    columns: Iterable[tuple[str, pa.DataType, dict[str, Any]]] = (
        ("image", picture, {"_type": "Image"}),
        ("label", pa.int64(), {"names": list(LABEL_NAMES), "_type": "ClassLabel"}),
        ("kind", pa.string(), text),
        ("caption", pa.string(), text),
        ("claims_true", pa.list_(pa.string()), {"feature": text, "_type": "List"}),
        ("claims_false", pa.list_(pa.string()), {"feature": text, "_type": "List"}),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32())), {"feature": box, "_type": "List"}),
        ("box_labels", pa.list_(pa.string()), {"feature": text, "_type": "List"}),
        ("mask", picture, {"_type": "Image"}),
        ("word_ids", picture, {"_type": "Image"}),
        ("words", pa.list_(pa.string()), {"feature": text, "_type": "List"}),
        ("seed", pa.int64(), number),
        ("number", pa.int64(), number),
    )
    features = {name: feature for name, _, feature in columns}
    return pa.schema(
        [(name, kind) for name, kind, _ in columns],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
