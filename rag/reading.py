"""What is written in a picture, read by Tesseract, and how well a claim about it fits.

An image-text model sees that there is text and not what it says, so a claim that quotes a message, or names the
language it is written in, is compared with what optical character recognition reads (Smith 2007, Tesseract). The
program is a package of the system (``tesseract-ocr`` and its languages); without it these two signals are missing.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from PIL import Image
from rapidfuzz import fuzz

from models.errors import ExhibitError
from models.schema import Box
from rag.foils import QUOTED

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

__all__ = [
    "LANGUAGES",
    "NOT_FOUND",
    "Found",
    "ReadLine",
    "Reading",
    "TextReader",
    "asks_to_read",
    "find_reader",
    "named_language",
    "quotes_of",
]

LANGUAGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"Korean": ("kor", "ko"), "English": ("eng", "en"), "Polish": ("pol", "pl")}
)
"""What can be read: name to Tesseract's code, and to that of ISO 639-1; the first is what Tesseract tries first."""

_WRITTEN = re.compile(
    rf"\bin ({'|'.join(LANGUAGES)})\b|\b({'|'.join(LANGUAGES)}) (?:text|writing|words?|letters|messages?|chat)\b"
)
_PASSES = ((2.5, 51), (3.0, 101))
"""How much larger, since Tesseract wants letters of 20 px and more, and how wide a median in px leaves no letters.

Whether it finds the blocks of a page hangs on its size; what one pass misses the other mostly has. Of quotations on
generated chats (60, seed 101) AUROC of true against false ones is 0.890 and 0.915 by one, 0.955 by both.
"""
_LONGEST_PX = 3200
_LEAST_CONTRAST = 20.0
_CONFIDENT = 0.4  # below which a line is mostly grain
_FEWEST_LETTERS = 8  # that tell a language
_LEAST_SHARE = 1e-5
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class ReadLine:
    """A line of text in a picture.

    Attributes:
        text: as read, words parted by single spaces.
        box_xyxy: in the picture's pixels.
        confidence: mean of its words', in [0, 1].
    """

    text: str
    box_xyxy: Box
    confidence: float


class Found(NamedTuple):
    """Where a quotation would stand in a picture.

    Attributes:
        share: similarity in [0, 1] with the stretch of text most like it: normalised insertions and deletions, white
            space and case ignored.
        text: the lines of that stretch as they were read; empty where nothing was.
        box_xyxy: around these lines, in the picture's pixels.
    """

    share: float
    text: str
    box_xyxy: Box | None


NOT_FOUND = Found(0.0, "", None)
"""Of a picture without text."""


@dataclass(frozen=True)
class Reading:
    """All that was read in a picture.

    Attributes:
        passes: the lines of each pass over it, in the program's order, mostly from top to bottom.
    """

    passes: tuple[tuple[ReadLine, ...], ...]

    def find(self, quote: str) -> Found:
        """How well a quotation is found, and where.

        Args:
            quote: words that the picture is said to contain.

        Returns:
            The stretch of text most like the quotation; of several passes the best.
        """
        found = [_find(_condense(quote), lines) for lines in self.passes]
        return max(found, key=lambda one: one.share, default=NOT_FOUND)

    def language_odds(self, language: str) -> float | None:
        """Log-odds that the text is in one of ``LANGUAGES`` and not in another of them; None where nothing was read."""
        lines = (line for one in self.passes for line in one)
        text = " ".join(line.text for line in lines if line.confidence >= _CONFIDENT)
        if sum(letter.isalpha() for letter in text) < _FEWEST_LETTERS:
            return None
        ranked = dict(_identifier().rank(text.lower()))
        share = min(max(float(ranked[LANGUAGES[language][1]]), _LEAST_SHARE), 1 - _LEAST_SHARE)
        return math.log(share / (1 - share))


class TextReader:
    """Tesseract, run as a program of its own, so that a picture that breaks it breaks nothing else.

    Args:
        program: path of ``tesseract``.
        languages: its codes, such as ``eng``.
    """

    def __init__(self, program: str, languages: Sequence[str]) -> None:
        self.program, self.languages = program, tuple(languages)

    def read(self, image: Image.Image) -> Reading:
        """Read a picture.

        Args:
            image: any mode; it is taken as RGB.

        Raises:
            ExhibitError: the program fails or takes longer than a minute.
        """
        grey = image.convert("RGB").convert("L")
        with ThreadPoolExecutor(len(_PASSES)) as pool:  # each waits for a program of its own
            return Reading(tuple(pool.map(lambda how: self._pass(grey, *how), _PASSES)))

    def _pass(self, grey: Image.Image, larger: float, background: int) -> tuple[ReadLine, ...]:
        scale = min(larger, _LONGEST_PX / max(grey.size))
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        page = io.BytesIO()
        _flatten(grey.resize(size, Image.Resampling.LANCZOS), background).save(page, "PNG")
        command = [self.program, "-", "-", "-l", "+".join(self.languages), "--psm", "11", "tsv"]
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and the picture comes by standard input
                command,
                input=page.getvalue(),
                capture_output=True,
                check=True,
                timeout=_TIMEOUT_S,
                # Its threads wait for each other more than they gain on pictures of this size.
                env={**os.environ, "OMP_THREAD_LIMIT": "1"},
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ExhibitError(f"{self.program} could not read the picture ({type(error).__name__})") from error
        return _to_lines(done.stdout.decode("utf-8", "replace"), scale)


def find_reader() -> tuple[TextReader | None, str]:
    """The reader of this machine, and a line that says what is missing, empty where nothing is."""
    wanted = [codes[0] for codes in LANGUAGES.values()]
    packages = " ".join(["tesseract-ocr", *(f"tesseract-ocr-{code}" for code in wanted)])
    program = shutil.which("tesseract")
    if program is None:
        return None, f"text in pictures is not read; install {packages}"
    command = [program, "--list-langs"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)  # noqa: S603
    there = [code for code in wanted if code in listed.stdout.split()]
    if len(there) == len(wanted):
        return TextReader(program, there), ""
    return None, f"text in pictures is not read, Tesseract lacks languages; install {packages}"


def quotes_of(claim: str) -> tuple[str, ...]:
    """What a claim quotes."""
    return tuple(text for found in QUOTED.finditer(claim) if (text := found[0][1:-1].strip()))


def named_language(claim: str) -> str | None:
    """The language of ``LANGUAGES`` that a claim says something is written in; None where it names none, or several."""
    found = {next(filter(None, one.groups())) for one in _WRITTEN.finditer(QUOTED.sub(" ", claim))}
    return found.pop() if len(found) == 1 else None


def asks_to_read(claims: Sequence[str]) -> bool:
    """Whether any claim is one that reading helps to judge; reading costs about a second."""
    return any(quotes_of(claim) or named_language(claim) for claim in claims)


@lru_cache(maxsize=1)
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([codes[1] for codes in LANGUAGES.values()])
    return identifier


def _find(wanted: str, lines: Sequence[ReadLine]) -> Found:
    """``Reading.find`` in one pass, of a quotation without white space."""
    parts = [_condense(line.text) for line in lines]
    text = "".join(parts)
    found = fuzz.partial_ratio_alignment(wanted, text) if wanted and text else None
    if found is None:
        return NOT_FOUND
    owners = sorted({*[at for at, part in enumerate(parts) for _ in part][found.dest_start : found.dest_end]})
    # The shorter is sought in the longer: a snippet of the quotation would be found in it whole.
    share = min(1.0, len(text) / len(wanted))
    chosen = [lines[at] for at in owners]
    return Found(
        found.score / 100 * share, " ".join(one.text for one in chosen), _around([one.box_xyxy for one in chosen])
    )


def _condense(text: str) -> str:
    return "".join(text.casefold().split())


def _around(boxes: Sequence[Box]) -> Box | None:
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _flatten(page: Image.Image, background: int) -> Image.Image:
    """Dark letters on white, whatever stood on what: how far each pixel is from the median around it."""
    grey = np.asarray(page)
    distance = cv2.absdiff(grey, cv2.medianBlur(grey, background)).astype(np.float32)
    most = max(float(np.percentile(distance, 99.5)), _LEAST_CONTRAST)
    return Image.fromarray(255 - (distance * (255 / most)).clip(0, 255).astype(np.uint8))


def _to_lines(table: str, scale: float) -> tuple[ReadLine, ...]:
    """Lines from Tesseract's table of words."""
    words: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        if row["level"] == "5" and (row["text"] or "").strip():
            words.setdefault((row["block_num"], row["par_num"], row["line_num"]), []).append(row)
    lines = []
    for line in words.values():
        around = _around([_box_of(word, scale) for word in line])
        assert around is not None  # noqa: S101 - a line has words
        confidence = sum(float(word["conf"]) for word in line) / (100 * len(line))
        lines.append(ReadLine(" ".join(word["text"].strip() for word in line), around, confidence))
    return tuple(lines)


def _box_of(word: Mapping[str, str], scale: float) -> Box:
    left, top, width, height = (int(word[key]) / scale for key in ("left", "top", "width", "height"))
    return left, top, left + width, top + height
