import re
import string
from pathlib import Path

import pytest

from ui.text import LANGUAGES, TEXTS, choose_language, say, say_or

ROOT = Path(__file__).resolve().parent.parent


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_has_every_key(language):
    assert set(TEXTS[language]) == set(TEXTS["en"])


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_language_has_the_same_placeholders(language):
    differing = [key for key in TEXTS["en"] if placeholders(TEXTS[language][key]) != placeholders(TEXTS["en"][key])]
    assert differing == []


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_no_text_is_empty_or_padded(language):
    assert [key for key, text in TEXTS[language].items() if not text or text != text.strip()] == []


def test_translations_are_translations():
    # Names of formats and symbols alike in every language may stay.
    alike = {key for key, text in TEXTS["en"].items() if TEXTS["ko"][key] == text}
    assert alike <= {"facts.exif", "grid.cell", "words.of"}


def test_every_key_that_the_page_asks_for_exists():
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "ui").glob("*.py")))
    asked = set(re.findall(r'say\(\s*\w+,\s*"([a-z_.-]+)"', source))
    assert len(asked) > 30
    assert asked <= set(TEXTS["en"])


def test_say_fills_placeholders_and_unknown_languages_speak_english():
    assert say("ko", "status.done", seconds="1.2") == "1.2초 만에 끝났습니다."
    assert say("xx", "stop") == "Stop"
    with pytest.raises(KeyError):
        say("en", "no.such.key")
    assert say_or("pl", "task.of-my-own", "of my own") == "of my own"


@pytest.mark.parametrize(
    ("header", "language"),
    [("ko-KR,ko;q=0.9,en;q=0.8", "ko"), ("de-DE, pl;q=0.7", "pl"), ("fr", "en"), ("", "en"), ("EN-gb", "en")],
)
def test_first_language_that_the_page_speaks_is_chosen(header, language):
    assert choose_language(header) == language
