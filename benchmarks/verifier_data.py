"""What claims are calibrated and measured on: captions of photographs, questions about objects, generated scenes.

Every claim carries its signals and its picture's number; no picture is both learned from and measured.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm.auto import tqdm

from models.schema import Box
from rag.foils import load_words
from rag.looks import Look, look_at
from rag.probe import Sample, place_features
from rag.signals import Signals
from rag.verifier import Verifier

__all__ = [
    "Asked",
    "Photo",
    "SceneLook",
    "ask_captions",
    "find_fillers",
    "look_at_scenes",
    "read_photos",
    "replace_word",
    "to_sample",
]

CAPTIONS = 5
ASKED_CAPTIONS = 3  # of each photograph that are checked as claims
FURTHER_FALSE = 2  # false claims made up for each true one of a scene that is learned from
NEIGHBOURS = 4  # photographs whose captions stand for what retrieval finds


@dataclass(frozen=True)
class Photo:
    """A photograph with its captions and, from COCO, the names of the objects in it."""

    jpeg: bytes
    captions: tuple[str, ...]
    labels: tuple[str, ...] = ()

    def open(self) -> Image.Image:
        """The photograph in RGB."""
        return Image.open(io.BytesIO(self.jpeg)).convert("RGB")


@dataclass(frozen=True)
class Asked:
    """One claim about one picture.

    Attributes:
        picture: its number.
        text: the claim.
        truth: whether it holds.
        kind: ``true``, ``foreign`` (a caption of another photograph) or ``replaced`` (one word swapped).
        signals: what was measured.
    """

    picture: int
    text: str
    truth: bool
    kind: str
    signals: Signals


@dataclass(frozen=True)
class SceneLook:
    """A generated scene as the verifier sees it, with its claims and the boxes of what decides its class."""

    kind: str
    look: Look
    true: tuple[str, ...]
    false: tuple[str, ...]
    boxes_xyxy: tuple[Box, ...]
    box_labels: tuple[str, ...]


def read_photos(file: Path) -> list[Photo]:
    """The rows of a parquet file with ``image``, and ``captions`` or ``labels`` where it has them."""
    rows = pq.read_table(file).to_pylist()
    return [
        Photo(row["image"]["bytes"], tuple((row.get("captions") or ())[:CAPTIONS]), tuple(row.get("labels") or ()))
        for row in rows
    ]


def replace_word(caption: str, random: Random) -> str | None:
    """The caption with one word replaced by another of its group; None if it has no word of the lists.

    Which word and by which is drawn here and not by ``make_foils``: the verifier's own foils need not contain the
    caption that a false claim was made from.
    """
    lists = load_words()
    places = list(lists.pattern.finditer(caption))
    if not places:
        return None
    place = random.choice(places)
    other = random.choice(lists.swaps[place[0].lower()][1])
    return caption[: place.start()] + other + caption[place.end() :]


def ask_captions(verifier: Verifier, photos: Sequence[Photo], corpus: Sequence[Photo], seed: int = 0) -> list[Asked]:
    """True, foreign and replaced captions about every photograph, as many false as true ones of each kind.

    Args:
        verifier: its fusion is not used.
        photos: with captions.
        corpus: other photographs, whose captions stand for what retrieval finds.
        seed: of the words and of who is foreign to whom.
    """
    random = Random(seed)
    stored = verifier.clip.embed_images([photo.open() for photo in corpus])
    asked: list[Asked] = []
    for number, photo in enumerate(tqdm(photos, desc="captions", unit="photo")):
        image = photo.open()
        look = look_at(image, verifier.clip, verifier.detector)
        nearest = np.argsort(-(stored @ look.whole))[:NEIGHBOURS]
        retrieved = [caption for at in nearest for caption in corpus[at].captions]
        own = photo.captions[:ASKED_CAPTIONS]
        others = random.sample([at for at in range(len(photos)) if at != number], len(own))
        foreign = [random.choice(photos[at].captions) for at in others]
        replaced = [text for caption in own if (text := replace_word(caption, random)) is not None]
        rows = [(text, "true") for text in own]
        rows += [(text, "foreign") for text in foreign] + [(text, "replaced") for text in replaced]
        found = verifier.measure(look, [text for text, _ in rows], captions=retrieved)
        asked += [
            Asked(number, text, kind == "true", kind, signals)
            for (text, kind), signals in zip(rows, found, strict=True)
        ]
    return asked


def look_at_scenes(verifier: Verifier, seed: int, numbers: Sequence[int]) -> Iterator[SceneLook]:
    """Generated scenes of one seed, drawn and embedded, and read where a claim is about their text."""
    from training.scenes import render_picture

    for number in tqdm(numbers, desc=f"scenes of seed {seed}", unit="scene"):
        scene = render_picture(seed, number)
        image = Image.open(io.BytesIO(scene.jpeg)).convert("RGB")
        yield SceneLook(
            scene.kind,
            verifier.look(image, (*scene.claims_true, *scene.claims_false)),
            scene.claims_true,
            scene.claims_false,
            scene.boxes_xyxy,
            scene.box_labels,
        )


Template = tuple[str, str]
"""What stands before and after the one thing that a claim and its false twin differ in."""


def find_fillers(scenes: Sequence[SceneLook]) -> dict[Template, tuple[str, ...]]:
    """For every template that the scenes' claims fill, all that it was filled with.

    Left out are claims that something is there ("There is a ...") and quotations: several of these can hold at once,
    so what is true of one scene need not be false of another.
    """
    found: dict[Template, dict[str, None]] = {}
    for scene in scenes:
        for true, false in zip(scene.true, scene.false, strict=True):
            template, fillers = _part(true, false)
            if not template[0].startswith("There is") and not set("“”") & set("".join((*template, *fillers))):
                found.setdefault(template, {}).update(dict.fromkeys(fillers))
    return {template: tuple(fillers) for template, fillers in found.items()}


def to_sample(
    scene: SceneLook, verifier: Verifier, fillers: Mapping[Template, tuple[str, ...]], seed: int = 0
) -> Sample:
    """A scene to train the probe on: its true and false claims, and the regions that those naming a box are about.

    Args:
        scene: with its claims.
        verifier: its image-text model embeds the claims.
        fillers: from ``find_fillers``; each true claim is joined by further false ones, its place filled differently.
        seed: of which these are.
    """
    random = Random(seed)
    false = list(scene.false)
    for true, twin in zip(scene.true, scene.false, strict=True):
        (before, after), known = _part(true, twin)
        others = [one for one in fillers.get((before, after), ()) if one not in known]
        false += [before + one + after for one in random.sample(others, min(FURTHER_FALSE, len(others)))]
    claims = (*scene.true, *false)
    centred = centres_inside(scene.look.boxes, scene.boxes_xyxy)
    about = np.stack([centred & names_box(claim, scene.box_labels) for claim in claims])
    return Sample(
        scene.look.whole,
        scene.look.regions,
        place_features(scene.look.boxes, scene.look.size_wh),
        verifier.clip.embed_texts(claims),
        np.repeat([True, False], [len(scene.true), len(false)]),
        about,
    )


def _part(one: str, other: str) -> tuple[Template, tuple[str, str]]:
    """Two claims as what they share, and what each has in its place; parted between words."""
    first, second = re.split(r"(?<=\s)", one), re.split(r"(?<=\s)", other)
    start = 0
    while start < min(len(first), len(second)) and first[start] == second[start]:
        start += 1
    before = "".join(first[:start])
    rest, other_rest = one[len(before) :], other[len(before) :]
    after = ""
    while rest and other_rest and rest[-1] == other_rest[-1] and not rest[-1].isalnum():
        after, rest, other_rest = rest[-1] + after, rest[:-1], other_rest[:-1]
    return (before, after), (rest, other_rest)


def centres_inside(regions: Sequence[Box], boxes: Sequence[Box], tolerance_px: float = 15.0) -> np.ndarray:
    """Bool (k,): whether each region's centre lies in a box, or within 15 px (pointing game, arXiv:1608.00507)."""
    table = np.asarray(regions, dtype=np.float64).reshape(-1, 4)
    x, y = (table[:, 0] + table[:, 2]) / 2, (table[:, 1] + table[:, 3]) / 2
    inside = np.zeros(len(table), dtype=bool)
    for x0, y0, x1, y1 in boxes:
        inside |= np.hypot(x - x.clip(x0, x1), y - y.clip(y0, y1)) <= tolerance_px
    return inside


def names_box(claim: str, labels: Sequence[str]) -> bool:
    """Whether a claim names what one of the boxes holds: they share a word other than a colour."""
    said = {_stem(word) for word in claim.lower().replace(".", " ").split()}
    named = {_stem(word) for label in labels for word in label.lower().split()}
    return bool(said & named - {_stem(word) for word in ("of", "a", "with", *_COLOURS)})


_COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey")


def _stem(word: str) -> str:
    return word.removesuffix("s")
