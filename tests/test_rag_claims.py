from __future__ import annotations

import json
from itertools import pairwise

import pytest

from models.errors import ExhibitError
from rag.claims import SPLIT_PROMPT, split_claims, split_finer
from rag.clauses import detect_language


def texts(answer: str) -> list[str]:
    return [claim.text for claim in split_claims(answer)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        # English: joined statements, shared subjects, lists in a sentence.
        ("A man rides a horse, and a dog runs behind it.", ["A man rides a horse", "a dog runs behind it."]),
        ("A man wears a hat and holds a phone.", ["A man wears a hat", "A man holds a phone."]),
        ("He is tall but the dog, a brown one, is small.", ["He is tall", "the dog, a brown one, is small."]),
        ("The picture shows a red car, two men and a dog.",
         ["The picture shows a red car", "The picture shows two men", "The picture shows a dog"]),
        # What belongs together stays together.
        ("A black and white cat sits on a mat.", ["A black and white cat sits on a mat."]),
        ("Bread and butter lie on a table.", ["Bread and butter lie on a table."]),
        ("a man and a bus", ["a man and a bus"]),
        ("There is no cat and no dog.", ["There is no cat and no dog."]),
        # Polish.
        ("Mężczyzna trzyma telefon i nosi czapkę.", ["Mężczyzna trzyma telefon", "Mężczyzna nosi czapkę."]),
        ("Samochód stoi na ul. Długiej, a pies leży na 2. piętrze.",
         ["Samochód stoi na ul. Długiej", "pies leży na 2. piętrze."]),
        ("Na zdjęciu widać samochód, mężczyznę i psa.",
         ["Na zdjęciu widać samochód", "Na zdjęciu widać mężczyznę", "Na zdjęciu widać psa"]),
        # Korean: the joining ending becomes a plain one; "입고 있다" is one verb.
        ("빨간 차가 있고 남자가 서 있다.", ["빨간 차가 있다", "남자가 서 있다."]),
        ("남자는 모자를 입고 있으며, 개는 뛰고 있다. 온도는 3.5도이다.",
         ["남자는 모자를 입고 있다", "개는 뛰고 있다.", "온도는 3.5도이다."]),
        # Lists, decimals, abbreviations, citations, quotes, emphasis.
        ("The picture shows:\n1. a red car\n2. **a man** with 3.5 kg, e.g. of sugar [1]",
         ["a red car", "a man with 3.5 kg, e.g. of sugar"]),
        ("“A red car.” [1] “Two dogs.” [2][3]", ["A red car.", "Two dogs."]),
        # No claims at all.
        ("Sure! Is it real? I cannot say. Let me know.", []),
        ("", []),
    ],
)  # fmt: skip
def test_an_answer_is_split_into_atomic_claims(answer: str, expected: list[str]) -> None:
    assert texts(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "It shows a car, a man and a dog. He is tall; she is not.",
        "Na zdjęciu widać psa i kota. Pies śpi, a kot je.",
        "빨간 차가 있고 남자가 서 있다.",
        "* one thing\n* **another** is 2.5 m [1]",
    ],
)
def test_spans_are_in_order_apart_and_say_the_claim(answer: str) -> None:
    claims = split_claims(answer)
    assert [(one.start, one.end) for one in claims] == sorted((one.start, one.end) for one in claims)
    assert all(one.end <= two.start for one, two in pairwise(claims))
    for claim in claims:
        # The span ends as the claim does, whatever was put before it or its ending made plain.
        assert claim.text.split()[-1][0] == answer[claim.start : claim.end].rsplit(maxsplit=1)[-1][0]


@pytest.mark.parametrize(("text", "language"), [("A red car.", "en"), ("Widok", "en"), ("To jest auto", "pl"),
                                                ("Mężczyzna", "pl"), ("차가 있다", "ko")])  # fmt: skip
def test_the_language_is_told_by_script_and_small_words(text: str, language: str) -> None:
    assert detect_language(text) == language


def test_a_language_model_may_split_finer() -> None:
    answer = "The tall man holds a phone."
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        entries = [
            {"claim": "The man holds a phone.", "quote": "man holds a phone"},
            {"claim": "The man is tall.", "quote": "The tall man"},
        ]
        return f"Here:\n```json\n{json.dumps(entries)}\n```"

    claims = split_finer(answer, ask)
    assert asked == [f"{SPLIT_PROMPT}\n\n{answer}"]
    assert [(one.text, answer[one.start : one.end]) for one in claims] == [
        ("The man is tall.", "The tall man"),
        ("The man holds a phone.", "man holds a phone"),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "no list here",
        "[1, 2]",
        "[]",
        "[{",
        '[{"claim": "A cat flies.", "quote": "a cat flies"}]',
        '[{"claim": "A cat flies.", "quote": ""}]',
        '[{"claim": 3, "quote": "red"}]',
        '[{"claim": " ", "quote": "red"}]',
    ],
)
def test_a_bad_reply_falls_back_on_the_rules(reply: str) -> None:
    answer = "The car is red and the dog is small."
    assert split_finer(answer, lambda _: reply) == split_claims(answer)


def test_a_server_that_fails_falls_back_on_the_rules() -> None:
    def ask(_: str) -> str:
        raise ExhibitError("no answer")

    assert [claim.text for claim in split_finer("The car is red.", ask)] == ["The car is red."]
