"""The model card of a bundled model: texts from a YAML file, figures from the measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from training.recipe import Strict, read_strict

BEFORE = "before"
"""Where the figures of an adapter's base stand in ``metrics.json``."""
ANSWER_FIGURES = {
    "relaxed_accuracy": "relaxed accuracy",
    "exact_match": "exact match",
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
}


class CardTexts(Strict):
    """What a card says that no measurement gives."""

    title: str
    summary: str
    licence: str
    """SPDX id."""
    data: list[str] = Field(min_length=1)
    """Where the training pictures are published, and what was taken of them."""
    commands: list[str] = Field(min_length=1)
    """The command lines that made the model, in order."""
    sets: dict[str, str]
    """One line on each measured set, by its name."""
    limits: list[str] = Field(min_length=1)


def read_card_texts(path: Path) -> CardTexts:
    """Read and check the texts of a card.

    Raises:
        RecipeError: if the file cannot be read or an entry is missing or unknown.
    """
    return read_strict(CardTexts, path)


@dataclass(frozen=True)
class CardFacts:
    """What a card says of the run itself.

    Attributes:
        head: further entries of the card's front matter, for the model hub.
        labels: the labels in order.
        asked: how the model is asked, one sentence; empty for a classifier.
        recipe: name of the recipe.
        seed: of the run.
        batch_size: examples per optimiser step.
        examples: what they are (``pictures``, ``questions``).
    """

    head: Mapping[str, Any]
    labels: Sequence[str]
    asked: str
    recipe: str
    seed: int
    batch_size: int
    examples: str


def write_card(path: Path, facts: CardFacts, texts: CardTexts, figures: dict[str, Any]) -> None:
    """Write the card.

    Args:
        path: Markdown file to write.
        facts: of the run.
        texts: the texts of the card.
        figures: content of the bundle's ``metrics.json``.
    """
    training = figures["training"]
    head = yaml.safe_dump({"license": texts.licence, **facts.head}, sort_keys=False)
    parts = [f"---\n{head}---\n# {texts.title}\n\n{texts.summary.strip()}"]
    if not training["finished"]:
        parts.append(f"**Preliminary:** step {training['steps']} of a training run that is still going on.")
    parts.append(
        f"{training['parameters'] / 1e6:.1f} million parameters, weights in float16; computed in float32 on a CPU. "
        f"Labels {', '.join(facts.labels)}. {facts.asked}".rstrip()
    )
    parts.append("## Measured\n\n" + _describe_sets(texts, figures))
    for name in texts.sets:
        for column, groups in figures.get(name, {}).get("by", {}).items():
            parts.append(f"{name} by {column}:\n\n" + _describe_groups(column, groups))
    parts.append("## Limits\n\n" + _list(texts.limits))
    parts.append("## Training\n\n" + _list(texts.data))
    commands = "\n".join(texts.commands)
    parts.append(
        f"Recipe `{facts.recipe}` (beside this card as `recipe.yaml`), seed {facts.seed}, {training['steps']} steps of "
        f"{facts.batch_size} {facts.examples}:\n\n```\n{commands}\n```"
    )
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _describe_sets(texts: CardTexts, figures: dict[str, Any]) -> str:
    """A table of the sets with labels and one of those with answers; before and after fine-tuning where both are known.

    Accuracy, and everything of free answers, with its 95 % interval where the measurement has one.
    """
    measured = [
        (f"{name}, {BEFORE} fine-tuning" if before else name, found, text)
        for name, text in texts.sets.items()
        for before, found in ((True, figures.get(BEFORE, {}).get(name)), (False, figures.get(name)))
        if found is not None
    ]
    labels, answers = ([one for one in measured if ("questions" in one[1]) is asks] for asks in (False, True))
    tables = []
    if labels:
        rows = ["| set | pictures | accuracy | ROC AUC | ECE | what it is |", "|---|---|---|---|---|---|"]
        rows += [
            f"| {name} | {found['pictures']:,} | {_estimate(found, 'accuracy')} | {_number(found['roc_auc'])} "
            f"| {_number(found['ece'])} | {text} |"
            for name, found, text in labels
        ]
        tables.append("\n".join(rows))
    if answers:
        rows = [f"| set | questions | {' | '.join(ANSWER_FIGURES.values())} | what it is |"]
        rows.append("|---" * (len(ANSWER_FIGURES) + 3) + "|")
        for name, found, text in answers:
            cells = " | ".join(_estimate(found, key, 1 if key == "bleu" else 3) for key in ANSWER_FIGURES)
            rows.append(f"| {name} | {found['questions']:,} | {cells} | {text} |")
        tables.append("\n".join(rows))
    if any("intervals" in found for _, found, _ in measured):
        tables.append("In brackets the 95 % interval of a bootstrap over the pictures.")
    return "\n\n".join(tables)


def _estimate(found: dict[str, Any], key: str, digits: int = 4) -> str:
    value = "not defined" if found[key] is None else f"{found[key]:.{digits}f}"
    interval = found.get("intervals", {}).get(key)
    return f"{value} ({interval[0]:.{digits}f} to {interval[1]:.{digits}f})" if interval else value


def _describe_groups(column: str, groups: dict[str, dict[str, Any]]) -> str:
    rows = [f"| {column} | label | pictures | accuracy | ROC AUC against the other label |", "|---|---|---|---|---|"]
    for value, found in groups.items():
        labels = ", ".join(found["labels"])
        rows.append(
            f"| {value} | {labels} | {found['pictures']} | {found['accuracy']:.4f} | {_number(found['roc_auc'])} |"
        )
    return "\n".join(rows)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
