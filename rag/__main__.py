"""``python -m rag``: index a folder, ask it, and check an answer against a picture.

python -m rag build photos/ --index photos.index
python -m rag ask "Who owns the red car?" --index photos.index --image car.jpg
python -m rag verify car.jpg "A red car stands on a street." --json
python -m rag verify car.jpg "A red car stands on a street." --vlm bundled-paligemma --index photos.index
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.console import run_command, show_progress, write_json
from models.errors import ExhibitError
from rag.schema import SOURCE_KINDS

if TYPE_CHECKING:
    from models.imaging import SourceImage
    from models.loading import ModelLoader
    from rag.building import Building
    from rag.embedding import Embedder, TextEncoder
    from rag.generator import Answerer
    from rag.retriever import Retriever
    from rag.schema import Answer, Claim, ClaimVerdict, Evidence
    from rag.verifier import Verifier

DEFAULT_MODEL = "bundled-openclip"
DOMAINS = ("photographs", "casework")
MARKS = {"supported": "+", "refuted": "-", "not_enough_evidence": "?"}
"""Of a verdict, beside its words."""
_LOCAL = "local:"
_MOST_ALIKE = 4


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
    verify.add_argument("--index", metavar="DIR", help="also search it for pictures like each claim's best region")
    for command in (ask, verify):
        command.add_argument("--domain", default=DOMAINS[0], choices=DOMAINS, help="kind of picture, for calibration")
        command.add_argument("--finer", action="store_true", help="let the endpoint split the answer into claims")
        command.add_argument("--vlm", metavar="ID", help="vision-language model to ask whether the picture shows each")
    for command in (build, ask, verify):
        command.add_argument("--model", default=DEFAULT_MODEL, metavar="ID", help="image-text model")
        command.add_argument("--zoo", type=Path, metavar="FILE", help="a zoo file of your own models")
        command.add_argument(
            "--trust", action="append", default=[], metavar="ID", help="let this model run the code of its repository"
        )
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

    def run() -> int:
        given: dict[str, Any] = {"offline": arguments.offline, "trusted": arguments.trust}
        loader = ModelLoader(load_zoo(arguments.zoo), progress=show_progress, **given)
        return {"build": _build, "ask": _ask, "verify": _verify}[arguments.command](arguments, loader)

    return run_command(run)


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
        write_json(figures | {"problems": list(state.problems)})
    else:
        sys.stdout.write(
            f"{state.chunks} chunks in {arguments.index}: {state.written} files new or changed, {state.unchanged} "
            f"unchanged, {state.removed} removed, {len(state.problems)} unreadable, {state.ignored} of other kinds\n"
        )
    return 0


def _ask(arguments: argparse.Namespace, loader: ModelLoader) -> int:
    from models.imaging import read_image
    from rag.describing import describe_evidence
    from rag.index import Filter

    source = read_image(arguments.image) if arguments.image else None
    retriever = _retriever(arguments, loader)
    # What cannot be loaded is said before anybody waits for an answer.
    verifier = _verifier(arguments, loader, retriever.embedder.sentences) if source else None
    only = Filter(tuple(arguments.kind), arguments.within)
    image = source.rgb if source else None
    evidence = retriever.find(arguments.question, image, max(1, arguments.limit), only)
    answer = _stream(_answerer(arguments, loader, retriever.embedder), arguments, evidence, source)
    verdicts = None
    if source is not None and verifier is not None:
        verdicts = verifier.verify(source.rgb, _claims(arguments, answer.text), evidence=evidence)
    note = verifier.note if verifier else ""
    if arguments.json:
        told = {"question": answer.question, "answerer": answer.answerer, "answer": answer.text}
        check = None if verdicts is None else _describe(answer.text, verdicts, note)
        write_json(told | {"evidence": describe_evidence(evidence), "check": check})
        return 0
    for number, one in enumerate(evidence, 1):
        page = f", page {one.chunk.page}" if one.chunk.page else ""
        sys.stdout.write(f"  [{number}] {one.chunk.source.id}{page}  {one.score:.4f} ({', '.join(one.found_by)})\n")
    if verdicts is not None:
        _write_verdicts(verdicts, note)
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
    from rag.describing import describe_evidence

    source = read_image(arguments.image)
    text = sys.stdin.read() if arguments.answer == "-" else arguments.answer
    claims = _claims(arguments, text)
    retriever = _retriever(arguments, loader) if arguments.index else None
    verifier = _verifier(arguments, loader)
    verdicts = verifier.verify(source.rgb, claims)
    boxes = [verdict.region_xyxy for verdict in verdicts] if retriever else []
    alike = [retriever.find_by_region(source.rgb, box, _MOST_ALIKE) if retriever and box else () for box in boxes]
    if not arguments.json:
        _write_verdicts(verdicts, verifier.note, alike)
        return 0
    told = _describe(text, verdicts, verifier.note)
    for claim, found in zip(told["claims"], alike, strict=False):
        claim["similar"] = describe_evidence(found)
    write_json({"image": str(arguments.image), "sha256": source.sha256, **told})
    return 0


def _verifier(arguments: argparse.Namespace, loader: ModelLoader, sentences: TextEncoder | None = None) -> Verifier:
    from rag.verifier import load_verifier

    domain = arguments.domain
    return load_verifier(loader, clip=arguments.model, vlm=arguments.vlm, domain=domain, sentences=sentences)


def _claims(arguments: argparse.Namespace, text: str) -> tuple[Claim, ...]:
    from rag.claims import split_claims, split_finer

    claims = split_finer(text, _endpoint().complete) if arguments.finer else split_claims(text)
    if not claims:
        raise ExhibitError("the answer makes no claim that a picture could bear out; give statements, not questions.")
    return claims


def _retriever(arguments: argparse.Namespace, loader: ModelLoader) -> Retriever:
    from rag.index import Index
    from rag.retriever import Retriever

    return Retriever(Index.open(arguments.index), _embedder(arguments, loader))


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


def _write_verdicts(verdicts: Sequence[ClaimVerdict], note: str, alike: Sequence[Sequence[Evidence]] = ()) -> None:
    from rag.schema import measure_reliability

    for number, one in enumerate(verdicts):
        box = ", ".join(f"{edge:.0f}" for edge in one.region_xyxy) if one.region_xyxy else ""
        where = f" at {box}" if box else ""
        words = one.verdict.replace("_", " ")
        sys.stdout.write(f"{MARKS[one.verdict]} {words:<19} {one.support:4.0%}  {one.claim.text}{where}\n")
        if "quotes" in one.signals:
            sys.stdout.write(f"    read in the picture: {one.read or 'nothing like the quotation'}\n")
        if "vqa" in one.signals:
            sys.stdout.write(f"    asked, whether the picture shows it: log-odds of yes {one.signals['vqa']:+.2f}\n")
        for other in alike[number] if alike else ():
            sys.stdout.write(f"    region looks like {other.chunk.source.id} (cosine {other.score:.3f})\n")
    found = measure_reliability(verdicts)
    if found.share is not None and found.weakest is not None:
        sys.stdout.write(
            f"{found.supported} of {found.claims} claims supported (95 % interval {found.low:.0%} to "
            f"{found.high:.0%}); weakest: {found.weakest.claim.text}\n"
        )
    if note:
        sys.stdout.write(f"note: {note}\n")


if __name__ == "__main__":
    sys.exit(main())
