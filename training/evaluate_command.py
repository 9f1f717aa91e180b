"""``python -m training evaluate | zeroshot | compare``: measure models, and set them against each other."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.prompts import STYLES

if TYPE_CHECKING:
    from training.opening import Wanted

PRECISIONS = ("auto", "fp32", "bf16", "int8", "nf4")


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``evaluate``, ``zeroshot`` and ``compare`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    measure = commands.add_parser("evaluate", help="measure a model on pictures with labels or questions with answers")
    measure.set_defaults(run=_run_evaluate)
    measure.add_argument("--model", required=True, help="id in the zoo, ID@base, or folder of a model or an adapter")
    zeroshot = commands.add_parser("zeroshot", help="measure what a model can do before it is taught the task")
    zeroshot.set_defaults(run=_run_zeroshot)
    zeroshot.add_argument("--model", required=True, help="id of a vision-language model, or folder; its base is asked")
    for command in (measure, zeroshot):
        _add_asking(command)
    compare = commands.add_parser("compare", help="set reports against each other: paired bootstrap, McNemar, pictures")
    compare.add_argument("reports", type=Path, nargs="+", metavar="REPORT", help="folders of two or more reports")
    compare.add_argument("--out", type=Path, required=True, help="folder to write")
    compare.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    compare.set_defaults(run=_run_compare)
    for command in (measure, zeroshot, compare):
        command.add_argument("--json", action="store_true", help="result as JSON")


def _add_asking(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--data", required=True, action="append", metavar="SET", help="file, folder or hub:OWNER/NAME#SPLIT; repeatable"
    )
    add("--out", type=Path, help="folder of the report; nothing is written without")
    add("--question", help="asked instead of the model's own; for sets of questions how each is put, with {question}")
    add("--labels", type=_answers, metavar="TEXT=LABEL,...", help="what the model may write, and what it means")
    add("--style", choices=tuple(STYLES), help="prompt style")
    add("--write", action="store_true", help="let it write its answer and read the label in it, instead of scoring")
    add("--tokens", type=int, default=64, metavar="N", help="most tokens of a written answer")
    add("--kind", choices=("labels", "answers"), help="what the set holds, where its columns do not tell")
    add("--label-names", type=_names, metavar="A,B", help="names of numbered labels")
    add("--generated", action="store_true", help="the pictures are drawn by a program, and the set does not tell")
    add("--name", help="short, for tables")
    add("--family", help="family of a vision-language model in a folder that does not tell it")
    add("--zoo", type=Path, metavar="FILE", help="a zoo file of your own models")
    add("--precision", choices=PRECISIONS, help="how a vision-language model's weights are kept")
    add("--trust", action="append", default=[], metavar="ID", help="let this model run the code of its repository")


def _run_evaluate(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    return _measure(options, _want(options), zero_shot=False)


def _run_zeroshot(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.opening import find_base

    return _measure(options, find_base(_want(options)), zero_shot=True)


def _run_compare(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.compare import compare, describe_comparison

    comparison = compare(options.reports, options.out, seed=options.seed)
    return comparison.model_dump(mode="json"), describe_comparison(comparison)


def _want(options: argparse.Namespace) -> Wanted:
    from training.opening import Wanted

    asks_sets = options.question is not None and "{question}" in options.question
    return Wanted(
        model=options.model,
        question=None if asks_sets else options.question,
        style=options.style,
        answers=options.labels,
        family=options.family,
        zoo=options.zoo,
        precision=options.precision,
        trusted=tuple(options.trust),
    )


def _measure(options: argparse.Namespace, wanted: Wanted, *, zero_shot: bool) -> tuple[dict[str, Any], str]:
    from training.evaluate import Manner, describe_report, evaluate

    manner = Manner(
        names=options.label_names,
        kind=options.kind,
        write=options.write,
        new_tokens=options.tokens,
        put=options.question,
        generated=options.generated,
        zero_shot=zero_shot,
        name=options.name,
        command=describe_command(options.arguments),
    )
    report = evaluate(wanted, options.data, options.out, manner)
    return report.model_dump(mode="json", exclude={"rows"}), describe_report(report)


def describe_command(arguments: list[str]) -> str:
    """A command line of this room for a report; of a path that only this machine has, its name alone."""
    named = [Path(one).name if Path(one).is_absolute() else one for one in arguments]
    return f"python -m training {shlex.join(named)}"


def _answers(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(written.strip() and equals and label.strip() for written, equals, label in pairs) or len(pairs) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as yes=fake,no=real")
    return {written.strip(): label.strip() for written, _, label in pairs}


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
