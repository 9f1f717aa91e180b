"""``python -m explain``: examine one image into an evidence bundle, recompute a bundle, or verify its signature."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import ExhibitError

if TYPE_CHECKING:
    from explain.examination import Examination
    from models.loading import ModelLoader
    from models.schema import Verdict


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of ``python -m explain``."""
    parser = argparse.ArgumentParser(prog="python -m explain", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    examine = commands.add_parser("examine", help="predict, explain and detect; write an evidence bundle")
    examine.add_argument("image", type=Path)
    examine.add_argument("--task", required=True)
    examine.add_argument("--model", nargs="+", metavar="ID", help="zoo ids; the task's bundled models if not given")
    examine.add_argument(
        "--method", nargs="+", metavar="M", help="heatmap methods; those of a single pass if not given"
    )
    examine.add_argument("--target", metavar="LABEL", help="label to explain; each model's own answer if not given")
    examine.add_argument(
        "--question", metavar="TEXT", help="what vision-language models are asked; their own if not given"
    )
    examine.add_argument("--style", metavar="NAME", help="prompt style: plain, informed or captioned")
    examine.add_argument(
        "--precision", metavar="NAME", help="weights of vision-language models: auto, fp32, bf16, int8, nf4"
    )
    examine.add_argument(
        "--layer", metavar="PART", help="where to look into them: tower (default), projector or language"
    )
    examine.add_argument("--compare-base", action="store_true", help="examine also the base models and the difference")
    examine.add_argument("--faithfulness", action="store_true", help="also measure how far to believe each heatmap")
    examine.add_argument(
        "--stability", action="store_true", help="also ask again about the picture compressed, shrunk, blurred, cropped"
    )
    examine.add_argument(
        "--randomisation", action="store_true", help="also hold each heatmap against the model with random weights"
    )
    examine.add_argument("--detector", metavar="ID", default=None, help="zoo id of the object detector, or 'none'")
    examine.add_argument("--out", type=Path, required=True, metavar="DIR")
    examine.add_argument("--no-original", action="store_true", help="keep only the hash of the picture")
    examine.add_argument(
        "--sign", type=Path, metavar="KEY", help="sign the bundle with this Ed25519 key, after those beside it"
    )
    replay = commands.add_parser("replay", help="recompute a bundle and report any difference")
    replay.add_argument("folder", type=Path)
    replay.add_argument("--image", type=Path, help="the original file, when the bundle does not hold it")
    verify = commands.add_parser("verify-signature", help="see whether signed evidence is as it was signed")
    verify.add_argument("folder", type=Path, help="a bundle, a folder of bundles, or a run of triage.py")
    verify.add_argument("--key", type=Path, metavar="FILE", help="public key of whoever should have signed")
    for command in (examine, replay):
        command.add_argument("--zoo", type=Path, help="a zoo file of your own models")
    for command in (examine, replay, verify):
        command.add_argument("--json", action="store_true", help="machine-readable result")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 2 when the input or arguments cannot be used, 1 when a replay or what was signed differs.
    """
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        run = {"examine": _examine, "replay": _replay, "verify-signature": _verify}[arguments.command]
        return run(arguments)
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _examine(arguments: argparse.Namespace) -> int:
    from explain.bundle import describe
    from explain.catalog import DEFAULT_METHODS
    from explain.examination import DEFAULT_DETECTOR, Settings, examine_steps
    from explain.signing import load_key, sign_folder
    from models.imaging import read_image
    from models.loading import ModelLoader
    from models.registry import load_zoo

    key = load_key(arguments.sign) if arguments.sign else None
    zoo = load_zoo(arguments.zoo)
    bundled = tuple(spec.id for spec in zoo.for_task(arguments.task) if spec.bundled)
    detector = arguments.detector or DEFAULT_DETECTOR
    settings = Settings(
        task=arguments.task,
        models=tuple(arguments.model or bundled),
        methods=tuple(arguments.method or DEFAULT_METHODS),
        target=arguments.target,
        detector=None if detector == "none" else detector,
        question=arguments.question,
        style=arguments.style,
        precision=arguments.precision,
        layer=arguments.layer,
        compare_base=arguments.compare_base,
    )
    source = read_image(arguments.image)
    loader = ModelLoader(zoo)
    for state in examine_steps(source, settings, loader):
        sys.stderr.write(f"[{state.done:4.0%}] {state.stage}\n")
    state = _measure(state, loader, arguments)
    folder = state.save(arguments.out, include_original=not arguments.no_original)
    if key is not None:
        sign_folder(folder, key)
    if arguments.json:
        sys.stdout.write(json.dumps({**describe(state), "bundle": str(folder)}, ensure_ascii=False) + "\n")
        return 0
    _write_findings(state)
    sys.stdout.write(f"bundle: {folder}\n")
    return 0


def _measure(state: Examination, loader: ModelLoader, arguments: argparse.Namespace) -> Examination:
    """The examination with what else was asked for of how far to believe it."""
    from explain.examination import measure_faithfulness
    from explain.faithfulness import FaithfulnessMeter
    from explain.sanity_asking import check_maps
    from explain.stability_asking import measure_stability

    if arguments.faithfulness:
        state = measure_faithfulness(state, loader, FaithfulnessMeter())
    if arguments.stability:
        state = measure_stability(state, loader)
    if arguments.randomisation:
        state = check_maps(state, loader, [(one.model_id, one.method) for one in state.heatmaps])
    return state


def _write_findings(state: Examination) -> None:
    """One line for everything that was found out, and for what could not be."""
    for prediction in (*state.predictions, *state.base_predictions):
        shares = ", ".join(f"{label} {share:.1%}" for label, share in prediction.probabilities.items())
        raw = "" if prediction.raw else ", not calibrated"
        sys.stdout.write(f"{prediction.model_id}: {prediction.label} ({shares}; {prediction.status.state}{raw})\n")
        if prediction.novelty is not None and prediction.novelty.unfamiliar:
            sys.stdout.write(f"{prediction.model_id}: this model has not seen such pictures\n")
    for words in state.words:
        ranked = sorted(zip(words.scores.tolist(), words.words, strict=True), key=lambda one: -abs(one[0]))[:5]
        shown = ", ".join(f"{word} {score:+.2g}" for score, word in ranked)
        sys.stdout.write(f"words of {words.model_id}, {words.target}: {shown}\n")
    for one in state.faithfulness:
        said = one.badge.text if one.badge else ""
        sys.stdout.write(f"{one.method} of {one.model_id}: {said}\n")
    for check in state.checks:
        sys.stdout.write(f"{check.method} of {check.model_id} {check.text}\n")
    for held in state.stability:
        turned = f"changes its answer under {', '.join(held.flips)}" if held.flips else "keeps its answer"
        sys.stdout.write(f"stability of {held.model_id}: {turned}; probability moves by up to {held.spread:.1%}\n")
    if state.verdict:
        sys.stdout.write(_describe_verdict(state.verdict))
    for problem in state.problems:
        sys.stdout.write(f"not done: {problem.subject}: {problem.message}\n")


def _describe_verdict(verdict: Verdict) -> str:
    """The verdict in one line; none where the models have not seen such pictures."""
    if not verdict.confident:
        strange = ", ".join(verdict.unfamiliar)
        return f"verdict: none that could be relied on, since {strange} has not seen such pictures\n"
    found = verdict.expected
    right = f"; right on {found.accuracy:.1%} of {found.pictures} held-out pictures as sure as this" if found else ""
    return f"verdict: {verdict.label}, agreement {verdict.agreement:.0%}{right}\n"


def _replay(arguments: argparse.Namespace) -> int:
    from explain.replay import replay
    from models.loading import ModelLoader
    from models.registry import load_zoo

    compared = replay(arguments.folder, ModelLoader(load_zoo(arguments.zoo)), arguments.image)
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in compared]) + "\n")
    else:
        for row in compared:
            sys.stdout.write(f"{row.outcome}: {row.item}" + (f" ({row.detail})" if row.detail else "") + "\n")
    return 1 if any(row.outcome == "different" for row in compared) else 0


def _verify(arguments: argparse.Namespace) -> int:
    from explain.signing import verify_folder

    checks = verify_folder(arguments.folder, arguments.key)
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(check) for check in checks]) + "\n")
    else:
        for check in checks:
            said = f" ({check.detail})" if check.detail else ""
            sys.stdout.write(f"{'holds' if check.holds else 'FAILS'}: {check.item}{said}\n")
        if arguments.key is None:
            sys.stderr.write("Without --key nothing says whose key this is; compare it with the signer's own.\n")
    return 0 if all(check.holds for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
