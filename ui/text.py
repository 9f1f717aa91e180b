"""Every word on the page, in English, Korean and Polish.

A key names where the words stand; placeholders are the same in every language (tests prove both). Model names, file
names and the messages of errors are data and come as they are.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from ui import text_credentials, text_doubt, text_en, text_ko, text_pl, text_triage, text_trust, text_verify

DEFAULT_LANGUAGE: Final = "en"
LANGUAGES: Final = MappingProxyType({"en": "English", "ko": "한국어", "pl": "Polski"})
TEXTS: Final = MappingProxyType(
    {
        "en": text_en.WORDS | text_trust.EN | text_triage.EN | text_doubt.EN | text_verify.EN | text_credentials.EN,
        "ko": text_ko.WORDS | text_trust.KO | text_triage.KO | text_doubt.KO | text_verify.KO | text_credentials.KO,
        "pl": text_pl.WORDS | text_trust.PL | text_triage.PL | text_doubt.PL | text_verify.PL | text_credentials.PL,
    }
)


def say(language: str, key: str, **values: object) -> str:
    """The words for a key.

    Args:
        language: one of ``LANGUAGES``; anything else speaks English.
        key: one of the keys of ``TEXTS``.
        values: what the placeholders stand for.

    Raises:
        KeyError: if the key is unknown.
    """
    return TEXTS.get(language, TEXTS[DEFAULT_LANGUAGE])[key].format(**values)


def say_or(language: str, key: str, fallback: str) -> str:
    """The words for a key that may be unknown, such as a task of a visitor's own zoo file."""
    return TEXTS.get(language, TEXTS[DEFAULT_LANGUAGE]).get(key, fallback)


def choose_language(accepted: str) -> str:
    """The first language of an ``Accept-Language`` header that the page speaks.

    Args:
        accepted: such as ``ko-KR,ko;q=0.9,en;q=0.8``; browsers list the best first.
    """
    for entry in accepted.split(","):
        code = entry.split(";")[0].strip().lower().split("-")[0]
        if code in LANGUAGES:
            return code
    return DEFAULT_LANGUAGE
