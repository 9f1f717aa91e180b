"""``python -m training finetune``: train an image classifier or a vision-language model by a recipe."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``finetune`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    parser = commands.add_parser("finetune", help="train an image classifier or a vision-language model by a recipe")
    parser.add_argument("--recipe", type=Path, required=True, help="YAML file, for instance one of training/recipes")
    parser.add_argument("--data", type=Path, required=True, help="folder written by prepare")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="continue from the newest complete checkpoint")
    parser.add_argument("--set", type=_setting, action="append", metavar="ENTRY=VALUE", help="replace a recipe's entry")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--stop-after", type=int, metavar="STEPS", help="end early, for trying out")
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    import torch

    from training.recipe import read_recipe, read_yaml

    if options.threads:
        torch.set_num_threads(options.threads)
    changes = dict(options.set or ())
    if read_yaml(options.recipe).get("kind") == "vlm":
        from training.language import finetune_language
        from training.language_recipe import read_language_recipe

        asked = read_language_recipe(options.recipe, changes)
        name = asked.name
        metrics = finetune_language(
            asked, options.data, options.out, resume=options.resume, stop_after=options.stop_after or 0
        )
    else:
        from training.finetune import finetune

        recipe = read_recipe(options.recipe, changes)
        name = recipe.name
        metrics = finetune(recipe, options.data, options.out, resume=options.resume, stop_after=options.stop_after)
    speed = f", {metrics['images_per_second']:.4g} images/s" if "images_per_second" in metrics else ""
    measured = {key: metrics["validation"][key] for key in ("loss", "accuracy") if key in metrics["validation"]}
    shown = ", ".join(f"validation {key} {value:.4f}" for key, value in measured.items()) or "nothing held out"
    return metrics, f"{name}: {metrics['steps']} steps{speed}; {shown}; saved in {options.out}"


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not ENTRY=VALUE")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no value of YAML") from error
