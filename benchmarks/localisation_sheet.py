"""The sheet: maps of pictures that may be shown, what decides outlined. Generated pictures, and such of packages.

No photograph of ``../shared/data`` is ever drawn here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from random import Random

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.localisation_measure import METHODS, find_model, shrink
from benchmarks.localisation_sets import SETS, Case, as_text, boxed
from explain.cam import explain_batch
from explain.catalog import CATALOG
from explain.localisation import localise
from explain.render import draw_heatmap
from explain.similarity import similarity_target
from explain.targets import default_target
from models.clip import ImageTextModel
from models.errors import ExhibitError
from models.loading import ModelLoader
from models.schema import LiveModel

__all__ = ["draw_sheet", "package_cases", "tampered_package_cases"]

CELL_PX, GAP_PX, TEXT_PX = 160, 8, 34
PAPER, INK, FAINT, OUTLINE = "#ffffff", "#1b1b1b", "#666666", "#00e5ff"

THINGS = (
    ("chelsea.png", "cat", (45, 0, 370, 300)),
    ("coffee.png", "cup", (80, 15, 480, 390)),
    ("astronaut.png", "person", (40, 15, 360, 512)),
)
"""Pictures of scikit-image (public domain and CC0), what they show, and its box by hand."""

HEAD_XYXY = (110, 10, 366, 266)
"""The astronaut's head."""

SEED = 4


def package_cases(live: LiveModel) -> Iterator[Case]:
    """Pictures of installed packages and the box of what they are called, for its name against the others'."""
    if not isinstance(live, ImageTextModel):
        raise TypeError(f"{live.spec.id} compares no texts with pictures")
    for number, (file, name, box) in enumerate(THINGS):
        image = _read(file)
        foils = [as_text(other) for _, other, _ in THINGS if other != name] + [as_text("car"), as_text("house")]
        target = similarity_target(live, as_text(name), foils)
        yield Case(image, boxed(image.size, [box]), live, target, None, number, name)


def tampered_package_cases(live: LiveModel) -> Iterator[Case]:
    """The astronaut's head with each kind of change, as the set ``tampered`` has them."""
    from training.tampered import KINDS, tamper

    face = np.asarray(_read("astronaut.png").crop(HEAD_XYXY))
    other = np.asarray(_read("chelsea.png").crop((100, 20, 356, 276)))
    for number, kind in enumerate(KINDS):
        made = tamper(face, other, Random(SEED + number), kind)
        target = default_target(live, "tampered")
        yield Case(Image.fromarray(made.pixels), made.mask, live, target, "tampered", number, kind)


SHOWN: dict[str, tuple[Callable[[LiveModel], Iterator[Case]], int]] = {
    "tampered": (tampered_package_cases, 3),
    "photographs": (package_cases, 3),
}
"""What stands for a set whose own pictures may not be shown, and how many pictures of it."""

DRAWN = 2
"""Pictures of a generated set."""


def draw_sheet(loader: ModelLoader, path: Path) -> None:
    """Draw one row per picture for every set and model that is here, and save the sheet.

    Args:
        loader: of models.
        path: PNG to write.
    """
    rows: list[Image.Image] = []
    for truth in SETS:
        if truth.needs and truth.name not in SHOWN:
            continue
        cases, count = SHOWN.get(truth.name, (truth.cases, DRAWN))
        for model_id in truth.models:
            try:
                live = find_model(loader, model_id)
                rows += [_draw_row(case) for case in islice(cases(live), count)]
            except ExhibitError:  # what is not here is told by the table
                continue
    width = (len(METHODS) + 1) * (CELL_PX + GAP_PX) + GAP_PX
    sheet = Image.new("RGB", (width, TEXT_PX + sum(row.height for row in rows)), PAPER)
    titles = ["what decides, outlined", *(CATALOG[method].title for method in METHODS)]
    _write(sheet, [(title, INK) for title in titles], GAP_PX)
    top = TEXT_PX
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(192).save(path, optimize=True)


def _draw_row(case: Case) -> Image.Image:
    """The picture with its region, then every method's map with the figures it reached."""
    explained = explain_batch(case.live, [case.image], methods=METHODS, targets=[case.target])[0]
    region, tolerance_px = shrink(case)
    found = {one.method: one for one in explained.heatmaps}
    title = case.note if case.label is None else f"{case.note}: {explained.prediction.label}"
    pictures, captions = [_outlined(case.image, case)], [(title, INK)]
    for method in METHODS:
        if method not in found:
            pictures.append(Image.new("RGB", pictures[0].size, "#eeeeee"))
            captions.append(("no map", FAINT))
            continue
        reached = localise(found[method].at(region.shape[::-1]), region, tolerance_px)
        hit = "hit" if reached.pointing else "miss"
        pictures.append(_outlined(draw_heatmap(case.image, found[method]), case))
        captions.append(
            (f"{hit}, energy {reached.energy:.0%}, rank {reached.rank:.0%}", INK if reached.pointing else FAINT)
        )
    row = Image.new("RGB", ((len(pictures)) * (CELL_PX + GAP_PX) + GAP_PX, CELL_PX + TEXT_PX), PAPER)
    for place, picture in enumerate(pictures):
        left = GAP_PX + place * (CELL_PX + GAP_PX)
        row.paste(picture, (left + (CELL_PX - picture.width) // 2, (CELL_PX - picture.height) // 2))
    _write(row, captions, CELL_PX + 2)
    return row


def _outlined(image: Image.Image, case: Case) -> Image.Image:
    """The picture in a cell, the region's border drawn on it."""
    scale = CELL_PX / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    small = np.array(image.resize(size, Image.Resampling.LANCZOS))
    region = cv2.resize(case.truth.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    borders, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    rgb = tuple(int(OUTLINE[at : at + 2], 16) for at in (1, 3, 5))
    return Image.fromarray(cv2.drawContours(small, borders, -1, rgb, 1))


def _write(picture: Image.Image, captions: Sequence[tuple[str, str]], top: int) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for place, (caption, colour) in enumerate(captions):
        while caption and font.getlength(caption) > CELL_PX:
            caption = caption[:-2] + "…"  # noqa: PLW2901
        draw.text((GAP_PX + place * (CELL_PX + GAP_PX), top), caption, fill=colour, font=font)


def _read(name: str) -> Image.Image:
    with as_file(files("skimage") / "data" / name) as file:
        return Image.open(file).convert("RGB")
