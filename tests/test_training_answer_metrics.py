"""Scores of free answers against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.report_figures import measure_bleu
from models.reports import AnswerScores
from training.answer_metrics import is_exact, is_relaxed_match, score_answers


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("105", "100", True),  # exactly 5 %
        ("105.1", "100", False),
        ("95", "100", True),
        ("-10", "10", False),
        ("-10.4", "-10", True),
        ("38%", "38%", True),
        ("0.38", "38%", True),  # a percent sign divides by 100
        ("38", "38%", False),
        ("0", "0", True),
        ("0.001", "0", False),  # nothing is within 5 % of 0
        ("1,000", "1000", False),  # a separator makes it a text
        ("1,000", "1,000", True),
        ("12 kg", "12.1 kg", False),  # so does a unit
        ("Poland", "poland", True),
        (" Poland ", "Poland", True),
        ("Poland.", "Poland", False),
        ("2019", "2020", True),  # years are numbers too, as published
        ("", "5", False),
    ],
)
def test_relaxed_match_follows_the_published_rule(answer: str, expected: str, right: bool) -> None:
    assert is_relaxed_match(answer, expected) is right


def test_exact_match_ignores_case_and_spaces_only() -> None:
    assert is_exact(" The  North ", "the north")
    assert not is_exact("the north.", "the north")
    assert not is_exact("12.0", "12")


def measure(answers: list[str | None], expected: list[str]) -> dict[str, float]:
    scores = score_answers(answers, expected)
    means = {name: float(np.mean([getattr(one, name) for one in scores])) for name in ("rouge1", "rouge2", "rougeL")}
    return means | {"bleu": measure_bleu(np.array([one.bleu for one in scores]).sum(0).tolist())}


def test_bleu_and_rouge_equal_those_counted_by_hand() -> None:
    # Found: 5 of 6 words, 3 of 5 pairs, 1 of 4 triples, 0 of 3 fours; the last smoothed to 1/2 of 1/3 ("exp").
    scores = score_answers(["the cat sat on the mat"], ["the cat lay on the mat"])
    assert scores[0].bleu == (5, 3, 1, 0, 6, 5, 4, 3, 6, 6)
    figures = measure(["the cat sat on the mat"], ["the cat lay on the mat"])
    assert figures["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * (1 / 2) / 3) ** 0.25)
    assert figures["rouge1"] == pytest.approx(5 / 6)
    assert figures["rouge2"] == pytest.approx(3 / 5)
    assert figures["rougeL"] == pytest.approx(5 / 6)  # the cat . on the mat


def test_a_short_answer_pays_the_brevity_penalty() -> None:
    figures = measure(["a b c d"], ["a b c d e f g h"])
    assert figures["bleu"] == pytest.approx(100 * np.exp(1 - 8 / 4))
    assert figures["rouge1"] == pytest.approx(2 / 3)  # precision 1, recall 1/2


@pytest.mark.parametrize("count", [4, 3, 2, 1])
def test_bleu_of_many_equals_the_library_over_the_corpus(count: int) -> None:
    from sacrebleu.metrics.bleu import BLEU

    answers = ["more than half agree with it", "12", "the share fell to 30 % in 2010", ""][-count:]
    expected = ["more than half of them agree", "12.5", "the share fell from 40 % to 30 % in 2010", "nothing"][-count:]
    library = BLEU().corpus_score(answers, [expected]).score
    assert measure(list(answers), expected)["bleu"] == pytest.approx(library)


def test_a_missing_answer_is_wrong_even_where_nothing_was_expected() -> None:
    right = [(one.exact, one.relaxed) for one in score_answers(["yes", None, None], ["yes", "no", ""])]
    assert right == [(True, True), (False, False), (False, False)]


def test_answers_must_be_as_many_as_expected_ones() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score_answers(["a", "b"], ["a"])
    assert isinstance(score_answers(["a"], ["a"])[0], AnswerScores)
