from __future__ import annotations

import pytest

from rag.ranking import fuse_rankings, normalise_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is the Colour of THE car?", "colour car"),
        ("Gdzie jest Łódź, Zażółć?", "lodz zazolc"),
        ("자동차가", "자 동 차 가 자동 동차 차가"),
        ("3.5 kg", "3 5 kg"),
        ("what is the", ""),
        ("\"quoted\" (x) OR 'y*'", "quoted x y"),
    ],
)
def test_words_are_compared_without_case_accents_and_endings(text: str, words: str) -> None:
    assert normalise_words(text) == words


def test_a_korean_noun_is_found_with_another_particle() -> None:
    assert set(normalise_words("자동차").split()) <= set(normalise_words("빨간 자동차를 본다").split())


def test_rankings_are_joined_by_their_reciprocal_ranks() -> None:
    fused = fuse_rankings({"picture": ["a", "b"], "words": ["c", "a"]})
    assert list(fused) == ["a", "c", "b"]
    assert fused["a"] == (pytest.approx(1 / 61 + 1 / 62), ("picture", "words"))
    assert fused["c"] == (pytest.approx(1 / 61), ("words",))
    assert fused["b"] == (pytest.approx(1 / 62), ("picture",))
