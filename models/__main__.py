"""``python -m models``: list what is known, or say what models make of images."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.console import run_command, show_progress, write_json
from models.errors import ExhibitError, ModelUnavailableError

if TYPE_CHECKING:
    from models.imaging import SourceImage
    from models.loading import ModelLoader
    from models.registry import Zoo

PRECISIONS = ("auto", "fp32", "bf16", "int8", "nf4")
"""``models.schema.Precision``, which would bring torch along before a word of help is shown."""


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of ``python -m models``."""
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="all known models and what would answer for each")
    predict = commands.add_parser("predict", help="what models say of images")
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    predict.add_argument("--task", required=True)
    predict.add_argument(
        "--model", nargs="+", metavar="ID", help="zoo ids, or ID@base; the task's bundled models if not given"
    )
    predict.add_argument("--question", help="what vision-language models are asked instead of their own question")
    predict.add_argument("--style", default="plain", help="how they are asked: plain, informed or captioned")
    predict.add_argument("--precision", choices=PRECISIONS, help="how their weights are kept")
    for command in (listing, predict):
        command.add_argument("--zoo", type=Path, metavar="FILE", help="a zoo file of your own models")
        command.add_argument(
            "--trust", action="append", default=[], metavar="ID", help="let this model run the code of its repository"
        )
        command.add_argument("--offline", action="store_true", help="never use the network")
        command.add_argument("--json", action="store_true", help="machine-readable result")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 2 when an image, a model or an argument cannot be used.
    """
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(message)s")
    from models.loading import ModelLoader
    from models.registry import load_zoo

    def run() -> int:
        zoo = load_zoo(arguments.zoo)
        loader = ModelLoader(zoo, offline=arguments.offline, progress=show_progress, trusted=arguments.trust)
        return _list(arguments, loader) if arguments.command == "list" else _predict(arguments, zoo, loader)

    return run_command(run)


def _list(arguments: argparse.Namespace, loader: ModelLoader) -> int:
    rows = [spec.model_dump() | {"status": asdict(loader.status(spec.id))} for spec in loader.zoo.specs.values()]
    if arguments.json:
        write_json(rows)
        return 0
    wide = max(len(row["id"]) for row in rows)
    for row in rows:
        status = row["status"]
        note = f": {status['reason']}" if status["reason"] else ""
        sys.stdout.write(f"{row['id']:<{wide}}  {row['task']:<10}  {status['state']}{note}\n")
        if status["remedy"]:
            sys.stdout.write(f"{'':<{wide}}  {'':<10}  -> {status['remedy']}\n")
    return 0


def _predict(arguments: argparse.Namespace, zoo: Zoo, loader: ModelLoader) -> int:
    from models.imaging import read_image

    model_ids = _chosen(arguments, zoo)
    results: list[dict[str, Any]] = []
    faults = 0
    for path in arguments.images:
        try:
            result = _say(read_image(path), model_ids, loader, arguments)
        except ExhibitError as error:
            sys.stderr.write(f"{error}\n")
            faults += 1
            continue
        results.append({"image": str(path), **result})
        if not arguments.json:
            _write_text(results[-1])
    if arguments.json:
        write_json(results)
    return 2 if faults else 0


def _chosen(arguments: argparse.Namespace, zoo: Zoo) -> tuple[str, ...]:
    """The models to ask; a download happens only for a model named, or where the task has no bundled one."""
    known = zoo.for_task(arguments.task)
    for model_id in arguments.model or ():
        spec = zoo.get(model_id.removesuffix("@base"))
        if spec not in known:
            raise ExhibitError(
                f"{model_id} answers {spec.task}, not {arguments.task}; choose among: "
                f"{', '.join(spec.id for spec in known)}"
            )
    bundled = tuple(spec.id for spec in known if spec.bundled)
    return tuple(dict.fromkeys(arguments.model or bundled or (spec.id for spec in known)))


def _say(
    source: SourceImage, model_ids: Sequence[str], loader: ModelLoader, arguments: argparse.Namespace
) -> dict[str, Any]:
    """What the models say of one picture, as plain values.

    Raises:
        ModelUnavailableError: no model answered.
    """
    from models.detector import Detector
    from models.doubt import predict_assessed
    from models.ensemble import combine
    from models.vlm import VisionLanguageModel

    predictions, detections, problems = [], [], []
    for model_id in model_ids:
        try:
            live = loader.load(model_id, precision=arguments.precision)
            if isinstance(live, Detector):
                detections += live.detect([source.rgb])
                continue
            if isinstance(live, VisionLanguageModel):
                live = live.asking(question=arguments.question, style=arguments.style)
            predictions += predict_assessed(live, [source.rgb])
        except ModelUnavailableError as error:
            problems.append(error)
    if not predictions and not detections:
        raise problems[0]
    accuracies = {spec.id: spec.accuracy for spec in loader.zoo.specs.values()}
    return {
        "sha256": source.sha256,
        "predictions": [asdict(prediction) for prediction in predictions],
        "verdict": asdict(combine(predictions, accuracies)) if predictions else None,
        "detections": [
            asdict(found) | {"xyxy": found.xyxy.tolist(), "confidence": found.confidence.tolist()}
            for found in detections
        ],
        "problems": [str(problem) for problem in problems],
    }


def _write_text(result: dict[str, Any]) -> None:
    sys.stdout.write(f"{result['image']}\n")
    for one in result["predictions"]:
        shares = ", ".join(f"{label} {share:.1%}" for label, share in one["probabilities"].items())
        state, reason = one["status"]["state"], one["status"]["reason"]
        sys.stdout.write(f"  {one['model_id']}: {one['label']} ({shares}; {state}{'; ' + reason if reason else ''})\n")
        if one["novelty"] and one["novelty"]["unfamiliar"]:
            sys.stdout.write("    this model has not seen such pictures\n")
        if one["question"]:
            sys.stdout.write(f"    asked ({one['style']}): {one['question']}\n")
    for found in result["detections"]:
        for label, confidence, box in zip(found["labels"], found["confidence"], found["xyxy"], strict=True):
            place = ", ".join(f"{side:.0f}" for side in box)
            sys.stdout.write(f"  {found['model_id']}: {label} {confidence:.1%} at {place}\n")
        if not found["labels"]:
            sys.stdout.write(f"  {found['model_id']}: nothing found\n")
    verdict = result["verdict"]
    if verdict:
        against = f", against {', '.join(verdict['dissenters'])}" if verdict["dissenters"] else ""
        share, agreement = verdict["probabilities"][verdict["label"]], verdict["agreement"]
        doubt = "" if verdict["confident"] else ", not to be relied on: the models have not seen such pictures"
        sys.stdout.write(f"  verdict: {verdict['label']} {share:.1%}, agreement {agreement:.0%}{against}{doubt}\n")
    for problem in result["problems"]:
        sys.stdout.write(f"  not asked: {problem}\n")


if __name__ == "__main__":
    sys.exit(main())
