"""``python -m rag``: index a folder, ask it, and check an answer against a picture.

python -m rag build photos/ --index photos.index
python -m rag ask "Who owns the red car?" --index photos.index --image car.jpg
python -m rag verify car.jpg "A red car stands on a street." --json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import ExhibitError
from rag.schema import SOURCE_KINDS

if TYPE_CHECKING:
    from models.imaging import SourceImage
    from models.loading import ModelLoader
    from rag.building import Building
    from rag.embedding import Embedder
    from rag.generator import Answerer
    from rag.schema import Answer, Claim, ClaimVerdict, Evidence
    from rag.verifier import Verifier

DEFAULT_MODEL = "bundled-openclip"
DOMAINS = ("photographs", "casework")
MARKS = {"supported": "+", "refuted": "-", "not_enough_evidence": "?"}
"""Of a verdict, beside its words."""
_LOCAL = "local:"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of ``python -m rag``."""
    parser = argparse.ArgumentParser(
        prog="python -m rag", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="index a folder of pictures and documents, or bring its index up to date")
    build.add_argument("corpus", type=Path, metavar="CORPUS")
    build.add_argument("--index", required=True, metavar="DIR", help="folder, or an s3:// or gs:// address")
    ask = commands.add_parser("ask", help="answer a question from an index")
    ask.add_argument("question")
    ask.add_argument("--index", required=True, metavar="DIR")
    ask.add_argument("--image", type=Path, metavar="F", help="a picture that the question is about; claims are checked")
    ask.add_argument(
        "--answerer", default="extractive", help="extractive (quotations), endpoint, or local:ID of a model"
    )
    ask.add_argument("--kind", action="append", default=[], choices=SOURCE_KINDS, help="only sources of this kind")
    ask.add_argument("--within", default="", metavar="PATH", help="only sources whose path begins so")
    ask.add_argument("--limit", type=int, default=6, metavar="N", help="most evidence")
    verify = commands.add_parser("verify", help="check the claims of an answer against a picture")
    verify.add_argument("image", type=Path, metavar="IMAGE")
    verify.add_argument("answer", help="the answer; - reads it from standard input")
    for command in (ask, verify):
        command.add_argument("--domain", default=DOMAINS[0], choices=DOMAINS, help="kind of picture, for calibration")
        command.add_argument("--finer", action="store_true", help="let the endpoint split the answer into claims")
    for command in (build, ask, verify):
        command.add_argument("--model", default=DEFAULT_MODEL, metavar="ID", help="image-text model")
        command.add_argument("--zoo", type=Path, metavar="FILE", help="a zoo file of your own models")
        command.add_argument("--offline", action="store_true", help="never use the network for models")
        command.add_argument("--json", action="store_true", help="machine-readable result")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done, 2 when a file, a model or an argument cannot be used.
    """
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(message)s")
    from models.loading import ModelLoader
    from models.registry import load_zoo

    run = {"build": _build, "ask": _ask, "verify": _verify}[arguments.command]
    try:
        return run(arguments, ModelLoader(load_zoo(arguments.zoo), offline=arguments.offline, progress=_show_progress))
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2


def _build(arguments: argparse.Namespace, loader: ModelLoader) -> int:
    from rag.building import build_index

    state: Building | None = None
    told = 0
    for state in build_index(arguments.corpus, arguments.index, _embedder(arguments, loader)):
        for problem in state.problems[told:]:
            sys.stderr.write(f"{problem}\n")
        told = len(state.problems)
        sys.stderr.write(f"{state.seen} of {state.files} files\n")
    assert state is not None  # noqa: S101 - a build always tells its end
    figures = {name: value for name, value in vars(state).items() if name not in ("seen", "done")}
    if arguments.json:
        _write_json(figures | {"problems": list(state.problems)})
    else:
        sys.stdout.write(
            f"{state.chunks} chunks in {arguments.index}: {state.written} files new or changed, {state.unchanged} "
            f"unchanged, {state.removed} removed, {len(state.problems)} unreadable, {state.ignored} of other kinds\n"
        )
    return 0


def _ask(arguments: argparse.Namespace, loader: ModelLoader) -> int:
    from models.imaging import read_image
    from rag.describing import describe_evidence
    from rag.index import Filter, Index
    from rag.retriever import Retriever

    source = read_image(arguments.image) if arguments.image else None
    index = Index.open(arguments.index)
    embedder = _embedder(arguments, loader)
    only = Filter(tuple(arguments.kind), arguments.within)
    image = source.rgb if source else None
    evidence = Retriever(index, embedder).find(arguments.question, image, max(1, arguments.limit), only)
    answer = _stream(_answerer(arguments, loader, embedder), arguments, evidence, source)
    checked = None if source is None else _check(arguments, loader, source, answer.text, evidence)
    if arguments.json:
        told = {"question": answer.question, "answerer": answer.answerer, "answer": answer.text}
        _write_json(told | {"evidence": describe_evidence(evidence), "check": checked and _describe(*checked)})
        return 0
    for number, one in enumerate(evidence, 1):
        page = f", page {one.chunk.page}" if one.chunk.page else ""
        sys.stdout.write(f"  [{number}] {one.chunk.source.id}{page}  {one.score:.4f} ({', '.join(one.found_by)})\n")
    if checked is not None:
        _write_verdicts(*checked)
    return 0


def _stream(
    answerer: Answerer, arguments: argparse.Namespace, evidence: Sequence[Evidence], source: SourceImage | None
) -> Answer:
    """The whole answer, written as it comes unless it is for a machine."""
    shown = ""
    answer = None
    for answer in answerer.answer(arguments.question, evidence, image=source.rgb if source else None):
        if not arguments.json and answer.text.startswith(shown):
            sys.stdout.write(answer.text[len(shown) :])
            sys.stdout.flush()
            shown = answer.text
    if not arguments.json:
        sys.stdout.write("\n")
    assert answer is not None  # noqa: S101 - every answerer ends with an answer
    return answer


def _verify(arguments: argparse.Namespace, loader: ModelLoader) -> int:
    from models.imaging import read_image

    source = read_image(arguments.image)
    text = sys.stdin.read() if arguments.answer == "-" else arguments.answer
    checked = _check(arguments, loader, source, text, ())
    if arguments.json:
        _write_json({"image": str(arguments.image), "sha256": source.sha256, **_describe(*checked)})
    else:
        _write_verdicts(*checked)
    return 0


_Checked = tuple[str, list["ClaimVerdict"], str]


def _check(
    arguments: argparse.Namespace, loader: ModelLoader, source: SourceImage, text: str, evidence: Sequence[Evidence]
) -> _Checked:
    from rag.verifier import load_verifier

    claims = _claims(arguments, text)
    if not claims:
        raise ExhibitError("the answer makes no claim that a picture could bear out; give statements, not questions.")
    sentences = None
    if evidence:
        from models.clip_sentence import SentenceEncoder

        sentences = SentenceEncoder()
    verifier: Verifier = load_verifier(loader, clip=arguments.model, domain=arguments.domain, sentences=sentences)
    return text, verifier.verify(source.rgb, claims, evidence=evidence), verifier.note


def _claims(arguments: argparse.Namespace, text: str) -> tuple[Claim, ...]:
    from rag.claims import split_claims, split_finer

    return split_finer(text, _endpoint().complete) if arguments.finer else split_claims(text)


def _embedder(arguments: argparse.Namespace, loader: ModelLoader) -> Embedder:
    from rag.embedding import load_embedder

    return load_embedder(loader, arguments.model)


def _answerer(arguments: argparse.Namespace, loader: ModelLoader, embedder: Embedder) -> Answerer:
    from models.vlm import VisionLanguageModel
    from rag.generator import ExtractiveAnswerer, LocalAnswerer

    if arguments.answerer == "extractive":
        return ExtractiveAnswerer(embedder.sentences)
    if arguments.answerer == "endpoint":
        return _endpoint()
    live: Any = loader.load(arguments.answerer.removeprefix(_LOCAL)) if arguments.answerer.startswith(_LOCAL) else None
    if not isinstance(live, VisionLanguageModel):
        raise ExhibitError(
            f"{arguments.answerer!r} answers no questions; choose extractive, endpoint, or local:ID of a "
            "vision-language model."
        )
    return LocalAnswerer(live)


def _endpoint() -> Any:  # noqa: ANN401 - its client is imported late
    from rag.endpoint import MODEL, URL, EndpointAnswerer, read_endpoint

    settings = read_endpoint(os.environ)
    if settings is None:
        raise ExhibitError(f"no endpoint is named; set {URL} and {MODEL}.")
    return EndpointAnswerer(settings)


def _describe(text: str, verdicts: Sequence[ClaimVerdict], note: str) -> dict[str, Any]:
    from rag.describing import describe_check
    from rag.schema import measure_reliability

    return describe_check(text, verdicts, measure_reliability(verdicts), note)


def _write_verdicts(_text: str, verdicts: Sequence[ClaimVerdict], note: str) -> None:
    from rag.schema import measure_reliability

    for one in verdicts:
        box = ", ".join(f"{edge:.0f}" for edge in one.region_xyxy) if one.region_xyxy else ""
        where = f" at {box}" if box else ""
        words = one.verdict.replace("_", " ")
        sys.stdout.write(f"{MARKS[one.verdict]} {words:<19} {one.support:4.0%}  {one.claim.text}{where}\n")
    found = measure_reliability(verdicts)
    if found.share is not None and found.weakest is not None:
        sys.stdout.write(
            f"{found.supported} of {found.claims} claims supported (95 % interval {found.low:.0%} to "
            f"{found.high:.0%}); weakest: {found.weakest.claim.text}\n"
        )
    if note:
        sys.stdout.write(f"note: {note}\n")


def _write_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _show_progress(model_id: str, share: float | None, text: str) -> None:
    done = "" if share is None else f" {share:4.0%}"
    sys.stderr.write(f"[{model_id}]{done} {text}\n")


if __name__ == "__main__":
    sys.exit(main())
