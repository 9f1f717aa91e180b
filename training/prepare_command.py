"""``python -m training prepare | scenes``: split data sets, and make pictures of drug cases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

COPIES = 4


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse does not name the type of its sub-parsers
    """Add ``prepare`` and ``scenes`` to the commands of this room.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    _add_prepare(commands)
    _add_scenes(commands)


def _add_prepare(commands: Any) -> None:  # noqa: ANN401
    parser = commands.add_parser(
        "prepare", help="split pictures with labels or questions, no duplicate across splits, and augment rare labels"
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="parquet file, folder per class, CSV / JSON / JSONL list, folder of ChartQA or GenImage, "
        "or hub:OWNER/NAME@REVISION#SPLIT",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument(
        "--split",
        default="70/15/15",
        metavar="TRAIN,VALIDATION,TEST",
        help="per cent (70/15/15, 72.25/12.75/15), shares (0.7,0.15,0.15) or numbers of pictures (1200,150,150)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--against", action="append", metavar="SOURCE", help="held-out set; copies of its pictures are dropped"
    )
    parser.add_argument("--label-names", type=_names, metavar="A,B", help="names of numbered labels")
    parser.add_argument("--stratify", metavar="COLUMN", help="spread these values alike instead of the labels")
    parser.add_argument("--group", metavar="COLUMN", help="keep equal values together, for instance frames of a video")
    parser.add_argument(
        "--augment-rare",
        type=_label_copies,
        action="append",
        metavar="LABEL[=N]",
        help=f"add N changed copies ({COPIES} when not given) of each picture of a label, to the train split only",
    )
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=_run_prepare)


def _add_scenes(commands: Any) -> None:  # noqa: ANN401
    parser = commands.add_parser("scenes", help="generate pictures of drug cases and look-alikes, with ground truth")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--count", type=int, required=True, metavar="N", help="number of pictures")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other pictures, for a held-out set")
    parser.add_argument("--workers", type=int, default=1, metavar="W", help="processes that draw")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="side of the pictures")
    parser.add_argument("--hard", action="store_true", help="half unrelated look-alikes: to learn from, not to measure")
    parser.add_argument("--kinds", nargs="+", default=(), metavar="KIND", help="only these take turns, half unrelated")
    parser.add_argument("--json", action="store_true", help="result as JSON")
    parser.set_defaults(run=_run_scenes)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _label_copies(text: str) -> tuple[str, int]:
    label, equals, number = text.rpartition("=")
    if not equals:
        return text, COPIES
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not LABEL or LABEL=N")
    return label, int(number)


def _run_prepare(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.prepare import prepare
    from training.split_plot import describe_counts
    from training.splitting import SplitSizes

    prepared = prepare(
        options.sources,
        options.out,
        sizes=SplitSizes.parse(options.split),
        seed=options.seed,
        against=options.against or (),
        names=options.label_names,
        stratify=options.stratify,
        group=options.group,
        augment=dict(options.augment_rare or ()),
    )
    summary = prepared.summary
    sizes = ", ".join(
        f"{name} {part['pictures']} pictures" + (f" in {part['rows']} rows" if part["rows"] != part["pictures"] else "")
        for name, part in summary["splits"].items()
    )
    notes = (
        f"{summary['groups_of_duplicates']} groups of duplicates kept together",
        f"{len(summary['dropped_as_held_out'])} copies of held-out pictures dropped",
        f"{summary['unused']} left over",
        f"{len(summary['unreadable'])} unreadable",
        f"split {summary['split_sha256'][:12]} in {options.out}",
    )
    text = f"{describe_counts(summary['counts'])}\n{sizes}; {', '.join(notes)}"
    return summary, text


def _run_scenes(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    from training.scenes import write_scenes

    summary = write_scenes(
        options.out,
        options.count,
        options.seed,
        workers=options.workers,
        size=options.size,
        hard=options.hard,
        kinds=options.kinds,
    )
    return summary, f"{summary['pictures']} generated pictures {summary['labels']} in {options.out}"
