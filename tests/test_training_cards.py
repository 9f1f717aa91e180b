"""Model cards: figures with their intervals where they are known, before fine-tuning beside after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.cards import CardFacts, CardTexts, write_card

TEXTS = CardTexts(
    title="A tiny model",
    summary="Knows nothing.",
    licence="MIT",
    data=["noise"],
    commands=["python -m training finetune"],
    sets={"validation": "held out", "real": "never measured", "charts": "of people"},
    limits=["It is at chance."],
)
FACTS = CardFacts(
    head={}, labels=("a", "b"), asked="Asked: 'Which?'.", recipe="tiny", seed=0, batch_size=4, examples="questions"
)
TRAINING = {"finished": True, "steps": 7, "parameters": 2_000_000}


def write(figures: dict[str, Any], path: Path) -> str:
    write_card(path, FACTS, TEXTS, {"training": TRAINING} | figures)
    return path.read_text(encoding="utf-8")


@pytest.fixture
def labels() -> dict[str, Any]:
    return {"pictures": 1200, "accuracy": 0.5, "roc_auc": None, "ece": 0.125}


def test_figures_measured_before_there_were_intervals_stay_readable(labels: dict[str, Any], tmp_path: Path) -> None:
    card = write({"validation": labels}, tmp_path / "README.md")
    assert "| validation | 1,200 | 0.5000 | not defined | 0.1250 | held out |" in card
    assert "In brackets" not in card
    assert "never measured" not in card


def test_intervals_and_the_base_stand_beside_the_figures(labels: dict[str, Any], tmp_path: Path) -> None:
    after = labels | {"accuracy": 0.96875, "intervals": {"accuracy": [0.95, 0.98], "ece": [0.0, 0.2]}}
    card = write({"validation": after, "before": {"validation": labels}}, tmp_path / "README.md")
    first, second = (line for line in card.splitlines() if line.startswith("| validation"))
    assert first.startswith("| validation, before fine-tuning | 1,200 | 0.5000 |")
    assert second.startswith("| validation | 1,200 | 0.9688 (0.9500 to 0.9800) | not defined | 0.1250 |")
    assert "In brackets the 95 % interval" in card


def test_free_answers_have_a_table_of_their_own(labels: dict[str, Any], tmp_path: Path) -> None:
    names = ("relaxed_accuracy", "exact_match", "rouge1", "rouge2", "rougeL")
    answers = {"pictures": 50, "questions": 250, "accuracy": 0.5, "bleu": 12.34} | dict.fromkeys(names, 0.25)
    answers["intervals"] = {"bleu": [10.06, 14.04]}
    card = write({"charts": answers, "validation": labels}, tmp_path / "README.md")
    head = "| set | questions | relaxed accuracy | exact match | BLEU | ROUGE-1 | ROUGE-2 | ROUGE-L | what it is |"
    assert head in card
    assert "| charts | 250 | 0.250 | 0.250 | 12.3 (10.1 to 14.0) | 0.250 | 0.250 | 0.250 | of people |" in card
    lines = card.splitlines()
    assert lines[lines.index(head) + 1].count("---") == head.count("|") - 1
