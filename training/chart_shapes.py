"""Charts labelled by what shows of them without reading, with a mask of their marks, to teach a tower to see by.

A decoder's answers tell a vision tower that starts from little next to nothing: it learns to answer the question and
not the picture. A label and a mask for each patch do (``training.masks``), so the tower learns from these first.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from training.chart_data import ChartData
from training.charts import ROWS_AT_ONCE, Chart, draw_all, make_chart, picture_seed
from training.errors import DataError

LINE_PX = 7  # of the masks of lines, wide enough to matter to a patch
SHAPES = (
    *(f"bar {names}" for names in range(3, 9)),
    *(f"grouped bar {names} x {series}" for names in range(2, 6) for series in (2, 3)),
    *(f"line {series} {way}" for series in range(1, 5) for way in ("falling", "mixed", "rising")),
    *(f"pie {names}" for names in range(3, 8)),
)
"""Kind of chart, with how many bars, groups and bars in each, lines and where they go, or slices it has."""


def shape_of(data: ChartData) -> str:
    """The shape of a chart, of ``SHAPES``.

    A line chart is rising where all lines end higher than they begin, falling where all end lower, else mixed.
    """
    if data.kind == "grouped bar":
        return f"grouped bar {len(data.names)} x {len(data.series)}"
    if data.kind != "line":
        return f"{data.kind} {len(data.names)}"
    gains = [row[-1] - row[0] for row in data.values]
    way = "rising" if min(gains) > 0 else "falling" if max(gains) < 0 else "mixed"
    return f"line {len(data.series)} {way}"


def draw_mask(chart: Chart) -> Image.Image:
    """Where a chart's marks stand: mode L, of the picture's size, 255 on bars, on lines and on the pie, else 0."""
    mask = Image.new("L", chart.drawing.size_px, 0)
    pen = ImageDraw.Draw(mask)
    boxes = chart.drawing.boxes_xyxy
    if chart.data.kind == "line":
        for series in range(len(chart.data.series)):
            points = [boxes[series, name] for name in range(len(chart.data.names))]
            pen.line([((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in points], fill=255, width=LINE_PX)
    elif chart.data.kind == "pie":
        lefts, tops, rights, bottoms = zip(*boxes.values(), strict=True)
        pen.ellipse((min(lefts), min(tops), max(rights), max(bottoms)), fill=255)
    else:
        for box in boxes.values():
            pen.rectangle(box, fill=255)
    return mask


def write_shapes(out: Path, count: int, seed: int, *, workers: int = 1) -> dict[str, Any]:
    """Write ``shapes.parquet`` into a folder: pictures with ``label`` and ``mask``, as ``finetune`` reads them.

    Args:
        out: folder to create; it must not hold shapes yet.
        count: how many pictures.
        seed: the same seed and count give the same file, whatever the number of workers.
        workers: processes.

    Returns:
        How many pictures there are of each shape.

    Raises:
        DataError: if a number is not positive, or ``out`` holds shapes already.
    """
    file = out / "shapes.parquet"
    if min(count, workers) < 1:
        raise DataError("--count and --workers must be at least 1.")
    if file.exists():
        raise DataError(f"{out}: holds shapes already; give another --out or remove it.")
    out.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".parquet.partial")
    shapes = Counter[int]()
    rows = draw_all(partial(make_row, seed), count, workers)
    with pq.ParquetWriter(unfinished, _schema()) as writer:
        while group := list(islice(rows, ROWS_AT_ONCE)):
            shapes.update(row["label"] for row in group)
            writer.write_table(pa.Table.from_pylist(group, schema=_schema()))
    unfinished.rename(file)
    return {"seed": seed, "pictures": count, "shapes": {name: shapes[at] for at, name in enumerate(SHAPES)}}


def make_row(seed: int, index: int) -> dict[str, Any]:
    """One picture of a set as the parquet file holds it."""
    chart = make_chart(picture_seed(seed, index))
    mask = io.BytesIO()
    draw_mask(chart).save(mask, "PNG")
    return {
        "image": {"bytes": chart.drawing.png, "path": f"{index:07d}.png"},
        "label": SHAPES.index(shape_of(chart.data)),
        "mask": {"bytes": mask.getvalue(), "path": f"{index:07d}-mask.png"},
        "seed": chart.seed,
    }


def _schema() -> pa.Schema:
    """Columns, and the metadata by which ``datasets`` decodes pictures and names labels."""
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(SHAPES), "_type": "ClassLabel"},
        "mask": {"_type": "Image"},
        "seed": {"dtype": "int64", "_type": "Value"},
    }
    return pa.schema(
        {"image": picture, "label": pa.int64(), "mask": picture, "seed": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
