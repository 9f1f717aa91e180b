from __future__ import annotations

import pytest

from rag.sentences import split_sentences


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith holds approx. 3.5 kg of e.g. sugar. It is 5 p.m. The car is red! Is it?",
         ["Dr. Smith holds approx. 3.5 kg of e.g. sugar.", "It is 5 p.m.", "The car is red!", "Is it?"]),
        ("He waits... and waits. He left. See fig. 3 and No. 5. U.S. troops. v1.2 is out.",
         ["He waits... and waits.", "He left.", "See fig. 3 and No. 5.", "U.S. troops.", "v1.2 is out."]),
        ("The answer is no. The light is red. Go.", ["The answer is no.", "The light is red.", "Go."]),
        ("Np. 2,5 kg. Stoi na 5. piętrze przy ul. Długiej. J. Kowalski ma 1.200,50 zł. Widać m.in. auto itp. Nic.",
         ["Np. 2,5 kg.", "Stoi na 5. piętrze przy ul. Długiej.", "J. Kowalski ma 1.200,50 zł.", "Widać m.in. auto itp.",
          "Nic."]),
        ("빨간 차가 있다.그리고 남자가 서 있습니다. 온도는 3.5도이다.",
         ["빨간 차가 있다.", "그리고 남자가 서 있습니다.", "온도는 3.5도이다."]),
        ("“It is red.” [1] He left. [2][3] Then (it is so.) More.",
         ["“It is red.” [1]", "He left. [2][3]", "Then (it is so.)", "More."]),
        ("It shows:\n- a red car\n- a man\n  in a coat\n\n# Heading\nText goes\non here.\n1. First. Second.\n2) other",
         ["It shows:", "- a red car", "- a man\n  in a coat", "# Heading", "Text goes\non here.", "1. First.",
          "Second.", "2) other"]),
        ("a cat. a dog.", ["a cat.", "a dog."]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_sentences_end_where_they_do(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


def test_nothing_but_white_space_is_lost() -> None:
    text = "One. Two…  Three!\n\n* four\n* five (e.g. 5.5)\n\nSześć. 일곱이다."
    assert "".join("".join(cut(text)).split()) == "".join(text.split())
