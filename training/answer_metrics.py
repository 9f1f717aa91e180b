"""Scores of free answers against the ones expected: exact match, relaxed accuracy, and what BLEU and ROUGE are made of.

No answer at all (a picture that cannot be read) is ``None`` and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from models.reports import AnswerScores

RELAXED_TOLERANCE = 0.05
ROUGES = ("rouge1", "rouge2", "rougeL")


def is_exact(answer: str, expected: str) -> bool:
    """Whether both are the same text, regardless of case and of spaces around and between words."""
    return " ".join(answer.casefold().split()) == " ".join(expected.casefold().split())


def is_relaxed_match(answer: str, expected: str, tolerance: float = RELAXED_TOLERANCE) -> bool:
    """Whether an answer about a chart is right within 5 % (Masry et al. 2022, section 5.1).

    As published: two numbers may differ by ``tolerance`` of the expected one, anything else must be the same text
    regardless of case. A number is what Python's ``float`` reads, with a percent sign divided by 100. So ``38%`` is not
    38, a number with a thousands separator or a unit is a text, and an expected 0 must be met exactly.
    """
    answer, expected = answer.strip(), expected.strip()
    number, target = _to_number(answer), _to_number(expected)
    if number is not None and target:
        return abs(number - target) / abs(target) <= tolerance
    return answer.casefold() == expected.casefold()


def _to_number(text: str) -> float | None:
    try:
        return float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def score_answers(answers: Sequence[str | None], expected: Sequence[str]) -> list[AnswerScores]:
    """Score each answer by itself.

    Args:
        answers: what was written; None where nothing was.
        expected: what should have been, aligned.

    Raises:
        ValueError: if the two are not of the same length.
    """
    # The words of rouge-score are runs of a-z and 0-9: it sees no Hangul and splits Polish words.
    scorer = RougeScorer(list(ROUGES))
    # Effective order changes only the score of single sentences, which is not used, and silences the advice to set it.
    counter = BLEU(effective_order=True)
    scores = []
    for answer, target in zip(answers, expected, strict=True):
        text = answer or ""
        found = scorer.score(target, text)
        one = counter.sentence_score(text, [target])
        scores.append(
            AnswerScores(
                exact=answer is not None and is_exact(answer, target),
                relaxed=answer is not None and is_relaxed_match(answer, target),
                bleu=(*one.counts, *one.totals, one.sys_len, one.ref_len),
                **{name: float(found[name].fmeasure) for name in ROUGES},
            )
        )
    return scores
