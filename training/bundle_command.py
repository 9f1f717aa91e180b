"""``python -m training bundle | rebundle``: make a run a bundled model; make all bundled models anew."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``bundle`` and ``rebundle`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    pack = commands.add_parser("bundle", help="make a run a bundled model with card and figures")
    pack.add_argument("folder", type=Path, help="folder of the run")
    pack.add_argument("--out", type=Path, required=True, help="for instance assets/bundled/NAME")
    pack.add_argument("--card", type=Path, required=True, help="YAML with the card's texts")
    pack.add_argument("--measure", type=_named_file, action="append", required=True, metavar="NAME=FILE")
    pack.add_argument("--unfinished", action="store_true", help="take the newest checkpoint of a run still going on")
    pack.add_argument("--resample", choices=["bilinear", "bicubic"], help="resize pictures otherwise than in training")
    pack.set_defaults(run=_run_bundle)
    again = commands.add_parser("rebundle", help="make all bundled models anew by the steps of a plan")
    again.add_argument("--plan", type=Path, default=Path("training/recipes/bundled.yaml"), help="YAML with the steps")
    again.add_argument("--only", action="append", metavar="STEP", help="this step and all it needs; may be repeated")
    again.add_argument("--from", dest="start", metavar="STEP", help="do this step and what comes of it again")
    again.add_argument(
        "--given", action="append", default=[], metavar="STEP", help="take the folder of this step as it is; repeatable"
    )
    again.add_argument("--dry-run", action="store_true", help="print the commands that are still to be run")
    again.set_defaults(run=_run_rebundle)
    for command in (pack, again):
        command.add_argument("--json", action="store_true", help="result as JSON")


def _run_bundle(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.bundle import bundle, bundle_language
    from training.cards import read_card_texts
    from training.errors import RecipeError
    from training.recipe import read_yaml

    card, sets = read_card_texts(options.card), dict(options.measure)
    if read_yaml(options.folder / "recipe.yaml").get("kind") == "vlm":
        if options.resample:
            raise RecipeError("--resample: is for classifiers; a vision-language recipe has model.build.resample.")
        figures = bundle_language(options.folder, options.out, card=card, sets=sets)
    else:
        figures = bundle(
            options.folder, options.out, card=card, sets=sets, unfinished=options.unfinished, resample=options.resample
        )
    accuracies = ", ".join(f"{name} {figures[name]['accuracy']:.4f}" for name, _ in options.measure)
    return figures, f"{options.out}: accuracy {accuracies}"


def _run_rebundle(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.rebundle import list_commands, read_plan, rebundle

    plan = read_plan(options.plan)
    if options.dry_run:
        commands = list_commands(plan, only=options.only or (), start=options.start, given=options.given)
        return {"commands": commands}, "\n".join(commands) or "nothing is left to do"
    done = rebundle(plan, only=options.only or (), start=options.start, given=options.given)
    return {"done": done}, f"done: {', '.join(done) or 'nothing was left to do'}"


def _named_file(text: str) -> tuple[str, Path]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE")
    return name, Path(value)
