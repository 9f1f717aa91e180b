"""Text in pictures: what a claim asks to be read, how a quotation is found, and Tesseract itself where it is there."""

import math
import stat
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from models.errors import ExhibitError
from rag.looks import look_at
from rag.reading import (
    Reading,
    ReadLine,
    TextReader,
    asks_to_read,
    find_reader,
    named_language,
    quotes_of,
)
from rag.schema import Claim
from rag.signals import claim_texts, measure_signals
from rag.verifier import Verifier
from tests.colour_clip import ColourClip, halves
from training.scenes_common import find_fonts, load_font

UPPER, LOWER = (10.0, 0.0, 60.0, 20.0), (20.0, 30.0, 90.0, 50.0)


def written(*texts: str, confidence: float = 0.9) -> Reading:
    return Reading((tuple(ReadLine(text, (UPPER, LOWER)[at], confidence) for at, text in enumerate(texts)),))


def draw_text(*lines: str, ink: str, paper: str, code: str) -> Image.Image:
    image = Image.new("RGB", (420, 60 + 40 * len(lines)), paper)
    for at, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 30 + 40 * at), line, fill=ink, font=load_font(find_fonts(code)[0], 18))
    return image


@pytest.fixture(scope="module")
def reader() -> TextReader:
    found, missing = find_reader()
    if found is None:
        pytest.skip(missing)
    return found


def test_a_claim_tells_whether_reading_helps() -> None:
    assert quotes_of('One message says “see you at 9” and another "ok".') == ("see you at 9", "ok")
    assert quotes_of("It says “” and „ ”.") == ()
    assert named_language("The messages are written in Polish.") == "Polish"
    assert named_language("Korean text on a wall") == "Korean"
    assert named_language("The English flag hangs in the window.") is None
    assert named_language("The messages are in English or in Polish.") is None
    assert named_language("One message says “written in Polish”.") is None
    assert asks_to_read(["A red thing.", "It says “stop”."])
    assert not asks_to_read(["A red thing.", "Three dogs."])


def test_a_quotation_is_found_with_the_lines_that_it_stands_on() -> None:
    reading = written("Call me", "tomorrow then")
    assert reading.find("call ME") == (1.0, "Call me", UPPER)
    assert reading.find("me tomorrow") == (1.0, "Call me tomorrow then", (10.0, 0.0, 90.0, 50.0))
    # "abcd" against "abxd": of 8 letters 6 stand in both in this order.
    assert written("abxd").find("abcd").share == pytest.approx(2 * 3 / 8)


def test_nothing_read_finds_nothing_and_a_snippet_is_not_a_long_quotation() -> None:
    assert Reading(()).find("anything") == (0.0, "", None)
    assert written("ab").find("abcdefgh").share == pytest.approx(2 / 8)
    assert written("ab").find(" ") == (0.0, "", None)


def test_what_one_pass_misses_the_other_has() -> None:
    both = Reading((*written("Cal1 mo", "???").passes, *written("Call me").passes))
    assert both.find("call me") == (1.0, "Call me", UPPER)
    assert both.find("???") == (1.0, "???", LOWER)


def test_languages_are_told_apart_and_grain_is_not_a_language() -> None:
    korean, polish = written("오늘 저녁에 만날까 친구야"), written("spotkajmy się jutro wieczorem przy dworcu")
    for reading, right, wrong in ((korean, "Korean", "Polish"), (polish, "Polish", "English")):
        own, other = reading.language_odds(right), reading.language_odds(wrong)
        assert own is not None
        assert other is not None
        assert own > 0 > other
    assert written("a b").language_odds("English") is None
    assert written("spotkajmy się jutro", confidence=0.2).language_odds("Polish") is None


@pytest.mark.parametrize(
    ("code", "text", "ink", "paper"),
    [
        ("en", "meet me at the station at nine", "black", "white"),
        ("pl", "spotkajmy się jutro wieczorem", "#eeeeee", "#15202b"),
        ("ko", "오늘 저녁에 사진 보내 줄게", "#222222", "#ffe45c"),
    ],
)
def test_tesseract_reads_what_was_drawn_where_it_was_drawn(
    reader: TextReader, code: str, text: str, ink: str, paper: str
) -> None:
    share, said, box = reader.read(draw_text(text, ink=ink, paper=paper, code=code)).find(text)
    assert share > 0.9
    assert said
    assert box is not None
    assert 20 < box[0] < 45
    assert 20 < box[1] < box[3] < 65


def test_an_empty_picture_holds_no_text(reader: TextReader) -> None:
    assert reader.read(Image.new("RGB", (200, 100), "white")).passes == ((), ())
    assert reader.read(Image.new("L", (1, 1))).passes == ((), ())


def test_a_program_that_fails_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "tesseract"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    for program in (broken, tmp_path / "none"):
        with pytest.raises(ExhibitError, match="could not read the picture"):
            TextReader(str(program), ["eng"]).read(Image.new("RGB", (20, 20)))


def test_what_is_missing_is_said_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_reader()[0] is None
    assert "install tesseract-ocr tesseract-ocr-kor tesseract-ocr-eng tesseract-ocr-pol" in find_reader()[1]
    program = tmp_path / "tesseract"
    program.write_text("#!/bin/sh\necho eng\n")
    program.chmod(0o755)
    assert find_reader()[0] is None
    assert "lacks languages" in find_reader()[1]
    program.write_text("#!/bin/sh\necho eng; echo kor; echo pol\n")
    assert find_reader()[1] == ""


class Remembering:
    """Reads the same in every picture, and counts."""

    def __init__(self, reading: Reading) -> None:
        self.reading, self.asked = reading, 0

    def read(self, _image: Image.Image) -> Reading:
        self.asked += 1
        return self.reading


def test_a_picture_is_read_only_for_claims_about_its_text() -> None:
    reader: Any = Remembering(written("Call me", "tomorrow then"))
    clip: Any = ColourClip()
    verifier = Verifier(clip, reader=reader)
    image = halves("red", "blue")
    assert "quotes" not in verifier.verify(image, [Claim("A red thing.", 0, 12)])[0].signals
    assert reader.asked == 0
    texts = ("One message says “tomorrow then”.", "It is written in English.", "A red thing.")
    quoted, language, red = verifier.verify(image, [Claim(text, 0, len(text)) for text in texts])
    assert reader.asked == 1
    assert quoted.signals["quotes"] == 1.0
    assert quoted.region_xyxy == LOWER
    assert quoted.read == "tomorrow then"
    assert language.signals["language"] > 0
    assert not {"quotes", "language"} & set(red.signals)


def test_several_quotations_are_as_true_as_the_worst_of_them() -> None:
    clip: Any = ColourClip()
    look = look_at(halves("red", "blue"), clip)
    object.__setattr__(look, "reading", written("abcd", "efgh"))
    texts = claim_texts("It says “efgh” and “abxd”.")
    signals = measure_signals(look, texts, clip.embed_texts(texts.all))
    assert math.isclose(signals.values["quotes"], 0.75)
    assert signals.region_xyxy == UPPER
