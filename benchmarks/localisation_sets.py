"""Pictures of which it is known what decides: where they come from, what is asked, and which models are asked.

Generated pictures are drawn anew from seeds that nothing was trained on. Photographs are read from ``../shared/data``
where it is there; they are measured on and never shown.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from explain.similarity import similarity_target
from explain.targets import Target, default_target
from models.clip import ImageTextModel
from models.schema import LiveModel
from models.vlm import VisionLanguageModel

__all__ = ["DATA", "SETS", "Case", "GroundTruth", "as_text", "boxed", "chart_cases", "scene_cases"]

Mask = NDArray[np.bool_]

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SCENES_SEED, CHARTS_SEED, TAMPERED_SEED = 990_001, 990_002, 990_003

LARGEST_SHARE = 0.5
"""Of the picture: a region that covers more is hit wherever a map points."""

SMALLEST_SHARE = 0.01
"""Of a photograph: a smaller thing is below the cells of every map here."""


@dataclass(frozen=True)
class Case:
    """One question to one picture of which it is known what decides.

    Attributes:
        image: RGB.
        truth: bool (H, W), true where the picture shows what decides.
        live: the model, asked the question.
        target: what is explained.
        label: the right answer; ``None`` where a similarity has none.
        picture: number of the picture: several cases of one picture are drawn together for intervals.
        note: what this is, for a caption.
    """

    image: Image.Image
    truth: Mask
    live: LiveModel
    target: Target
    label: str | None
    picture: int
    note: str = ""


Cases = Callable[[LiveModel], Iterator[Case]]


@dataclass(frozen=True)
class GroundTruth:
    """A set of cases.

    Attributes:
        name: as results call it.
        shows: what decides, in one sentence.
        models: zoo ids of the models that are asked.
        cases: the cases for one of them.
        needs: file below ``../shared/data``; ``None`` where pictures are drawn.
        taught: whether the models know such pictures. Then a map is held to the region where the model is right: only
            the region can have told it. Where they do not, all maps are measured, and nothing follows for methods.
    """

    name: str
    shows: str
    models: tuple[str, ...]
    cases: Cases
    needs: Path | None = None
    taught: bool = True


def scene_cases(live: LiveModel, seed: int = SCENES_SEED) -> Iterator[Case]:
    """Generated casework scenes: the pixels of what makes it a chat, a place or a substance of a drug case."""
    from training.scenes import render_picture
    from training.scenes_common import LABEL_NAMES, UNRELATED

    for number in range(10**6):
        if number % len(LABEL_NAMES) == UNRELATED:
            continue
        drawn = render_picture(seed, number)
        label = _label_like(LABEL_NAMES[drawn.label], live.labels)
        image = Image.open(io.BytesIO(drawn.jpeg)).convert("RGB")
        yield Case(image, drawn.mask > 0, live, default_target(live, label), label, number, label)


def chart_cases(live: LiveModel, seed: int = CHARTS_SEED) -> Iterator[Case]:
    """Generated charts: the box of the marks that answer, for the right answer against a wrong one of its kind."""
    from training.charts import make_chart, picture_seed

    if not isinstance(live, VisionLanguageModel):
        raise TypeError(f"{live.spec.id} answers no questions")
    for number in range(10**6):
        chart = make_chart(picture_seed(seed, number))
        image = Image.open(io.BytesIO(chart.drawing.png)).convert("RGB")
        for question in chart.questions:
            wrong = _wrong_answer(question.answer, [other.answer for other in chart.questions], chart.data.names)
            truth = boxed(image.size, [chart.answer_box(question)])
            if wrong is not None and 0 < truth.mean() <= LARGEST_SHARE:
                asked = live.asking(question=question.text, answers={question.answer: "right", wrong: "wrong"})
                yield Case(image, truth, asked, default_target(asked, "right"), "right", number, question.text)


def photograph_cases(live: LiveModel) -> Iterator[Case]:
    """Photographs: the pixels of one class, for its name against the names of classes that are not there."""
    if not isinstance(live, ImageTextModel):
        raise TypeError(f"{live.spec.id} compares no texts with pictures")
    rows = [row for row in _rows(DATA / PHOTOGRAPHS) if row["mask"] and row["mask_classes"]]
    everything = sorted({name for row in rows for name in row["mask_classes"]})
    for number, row in enumerate(rows):
        image, drawn = _picture(row["image"]), np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
        foils = [as_text(name) for name in everything if name not in {*row["labels"], *row["mask_classes"]}]
        for place, name in enumerate(row["mask_classes"]):
            truth = drawn == place + 1
            if SMALLEST_SHARE <= truth.mean() <= LARGEST_SHARE:
                target = similarity_target(live, as_text(name), foils)
                yield Case(image, truth, live, target, None, number, name)


def inpainted_cases(live: LiveModel) -> Iterator[Case]:
    """Photographs in which a face was repainted: the box of the face."""
    for number, row in enumerate(_rows(DATA / INPAINTED)):
        image, mask = _picture(row["image"]), np.asarray(_picture(row["mask"]).convert("L"))
        truth = mask > 0
        if 0 < truth.mean() <= LARGEST_SHARE:
            yield Case(image, truth, live, default_target(live, "fake"), "fake", number)


def tampered_cases(live: LiveModel) -> Iterator[Case]:
    """Camera faces with one region re-rendered, replaced or recompressed: that region."""
    from training.tampered import make_tampered, read_faces

    faces = read_faces([DATA / FACES])
    for number in range(len(faces)):
        _, made, _ = make_tampered(faces, TAMPERED_SEED, number)
        yield Case(
            Image.fromarray(made.pixels),
            made.mask,
            live,
            default_target(live, "tampered"),
            "tampered",
            number,
            made.kind,
        )


PHOTOGRAPHS = Path("coco_photos/photos.parquet")
INPAINTED = Path("deepfake_masks/pairs.parquet")
FACES = Path("deepfake_faces/validation.parquet")

SETS: Sequence[GroundTruth] = (
    GroundTruth(
        "inpainted",
        "the box of a face repainted by a diffusion model",
        ("bundled-resnet", "bundled-vit", "bundled-paligemma-deepfake"),
        inpainted_cases,
        INPAINTED,
        taught=False,
    ),
    GroundTruth(
        "photographs",
        "the pixels of the class whose name is compared with the photograph",
        ("bundled-openclip",),
        photograph_cases,
        PHOTOGRAPHS,
    ),
    GroundTruth(
        "scenes",
        "the pixels of what makes a generated picture one of a drug case",
        ("bundled-paligemma-casework",),
        scene_cases,
    ),
    GroundTruth("charts", "the marks of a generated chart that answer", ("bundled-paligemma-charts",), chart_cases),
    GroundTruth(
        "tampered",
        "the region of a camera face that was re-rendered, replaced or recompressed",
        ("tampered-resnet",),
        tampered_cases,
        FACES,
    ),
)


def _label_like(name: str, labels: Sequence[str]) -> str:
    """The model's label of that name, however it writes spaces."""
    alike = {label.casefold().replace("_", " "): label for label in labels}
    return alike.get(name.casefold().replace("_", " "), name)


def _wrong_answer(answer: str, others: Sequence[str], names: Sequence[str]) -> str | None:
    """Another answer of the same kind: the opposite, another name, or another number of the same chart."""
    opposite = {"yes": "no", "no": "yes", "rose": "fell", "fell": "rose"}
    if answer in opposite:
        return opposite[answer]
    random = Random(f"{answer} {others}")
    if answer in names:
        return random.choice([name for name in names if name != answer])
    numbers = sorted({other for other in others if other != answer and _is_number(other)})
    return random.choice(numbers) if numbers and _is_number(answer) else None


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def as_text(name: str) -> str:
    """What a picture of a thing is compared with."""
    return f"a photo of a {name}"


def boxed(size_wh: tuple[int, int], boxes_xyxy: Sequence[Sequence[float]]) -> Mask:
    """Bool (H, W), true inside any box."""
    drawn = Image.new("1", size_wh)
    for x0, y0, x1, y1 in boxes_xyxy:
        ImageDraw.Draw(drawn).rectangle((round(x0), round(y0), max(round(x1) - 1, x0), max(round(y1) - 1, y0)), fill=1)
    return np.asarray(drawn, bool)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(path).iter_batches(16):
        yield from batch.to_pylist()


def _picture(stored: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(stored["bytes"])).convert("RGB")
