"""Many images at once, on Ray: ``python triage.py evidence/ --task deepfake --out run/``.

Every file becomes one row of parquet below ``run/rows``; one that cannot be scored has its reason in the column
``error``. A run that was stopped, by whatever, is finished by the same command with ``--resume``. With ``--explain`` a
short list is then examined wholly, each picture into an evidence bundle below ``run/evidence``; see ``summary.html``.

python triage.py seized.zip --task deepfake --explain --top 50 --sign key.pem --out run/
python triage.py s3://bucket/day --task deepfake --address auto --gpus 0.25 --out /shared/run/
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm import tqdm

from bulk.claims import Statement, read_statements
from bulk.cluster import Crew, map_numbers, open_ray
from bulk.parts import PLAN, Job, part_path, write_plan
from bulk.results import MODELS, Run
from bulk.shortlist import SHORTLIST, By, Choice, Listed, make_shortlist, write_shortlist
from bulk.sources import Item, list_items
from explain.signing import EVIDENCE, MANIFEST, SIGNATURE, load_key, sign_bundles
from explain.versions import versions
from models.errors import ExhibitError
from models.registry import Zoo, load_zoo

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class ExplainPictures:
    """The worker of the second pass: examines pictures of the short list."""

    def __init__(self, job: Job) -> None:
        from bulk.evidence import EvidenceMaker

        self.maker = EvidenceMaker(job)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One row for every picture: why it has no bundle, if so."""
        for number in batch["item"]:
            yield {"number": [int(number)], "problem": [self.maker.explain(int(number))]}


class ScoreChunks:
    """The worker of Ray Data: one scorer, made once, for all chunks that come."""

    def __init__(self, job: Job) -> None:
        from bulk.scoring import ChunkScorer

        self.scorer = ChunkScorer(job)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One row of counts for every chunk."""
        for chunk in batch["item"]:
            rows, failed = self.scorer.score(int(chunk))
            yield {"chunk": [int(chunk)], "rows": [rows], "failed": [failed]}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` describes it."""
    parser = argparse.ArgumentParser(prog="triage.py", description="Score many images; a row of parquet for each.")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="folders, files, patterns, zip, tar, parquet, s3://"
    )
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", nargs="+", metavar="ID", help="zoo ids; the task's bundled models if not given")
    parser.add_argument("--zoo", type=Path, metavar="FILE", help="a zoo file of your own models")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="on a cluster, a folder all machines see"
    )
    parser.add_argument("--resume", action="store_true", help="finish a run that was stopped")
    parser.add_argument("--address", help="a Ray cluster; a Ray of this machine alone if not given")
    parser.add_argument("--workers", type=int, metavar="N", help="most workers; one per core, or per GPU, if not given")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="SHARE", help="GPUs per worker, such as 0.25")
    parser.add_argument("--chunk", type=int, default=256, metavar="N", help="images per part of the result")
    _add_second_pass(parser)
    arguments = parser.parse_args(argv)
    if arguments.chunk < 1 or (arguments.workers is not None and arguments.workers < 1) or arguments.gpus < 0:
        parser.error("--chunk and --workers are at least 1, --gpus at least 0")
    if (arguments.top is not None and arguments.top < 1) or not 0 <= (arguments.threshold or 0) <= 1:
        parser.error("--top is at least 1, --threshold in [0, 1]")
    return arguments


def _add_second_pass(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("second pass", "which pictures make the short list, and what becomes of them")
    group.add_argument("--explain", action="store_true", help="examine the short list wholly, into evidence bundles")
    group.add_argument("--label", metavar="L", help="what is looked for; the models' first label if not given")
    group.add_argument("--disagreement", action="store_true", help="look for what models disagree on, not for a label")
    group.add_argument("--threshold", type=float, metavar="P", help="only pictures at least this probable")
    group.add_argument("--top", type=int, metavar="K", help="at most this many; 20 if there is no threshold")
    group.add_argument(
        "--claims",
        type=Path,
        metavar="FILE",
        help="check these against the short list: a claim, or NAME<tab>claim, a line",
    )
    group.add_argument("--claim-domain", default="photographs", metavar="KIND", help="photographs or casework")
    group.add_argument("--no-original", action="store_true", help="bundles keep only the hashes of the pictures")
    group.add_argument("--sign", type=Path, metavar="KEY", help="sign bundles and manifest with this Ed25519 key")


def main(argv: Sequence[str] | None = None) -> int:
    """Score everything.

    Returns:
        0 when everything was done for every image, 1 when some failed, 2 when the arguments cannot be used.
    """
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        rows, failed = triage(arguments)
    except ExhibitError as error:
        sys.stderr.write(f"triage.py: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"triage.py: stopped; the same command with --resume finishes {arguments.out}\n")
        return 1
    sys.stdout.write(f"{rows} images, {failed} failed: {arguments.out}\n")
    return 1 if failed else 0


def triage(arguments: argparse.Namespace) -> tuple[int, int]:
    """Plan, score what is not scored yet, explain the short list if asked for, and write the manifest last.

    Returns:
        Number of images, and of those that could not be scored, or be explained.

    Raises:
        ExhibitError: the arguments, the folder or the models cannot be used.
    """
    zoo = load_zoo(arguments.zoo)
    by: By = "disagreement" if arguments.disagreement else "label"
    job = Job(
        out=str(arguments.out.resolve()),
        task=arguments.task,
        models=_chosen(arguments, zoo),
        zoo=str(arguments.zoo.resolve()) if arguments.zoo else None,
        choice=Choice(by, arguments.label, arguments.top, arguments.threshold),
        keep_originals=not arguments.no_original,
        claims=_claims(arguments),
        domain=arguments.claim_domain,
    )
    key = load_key(arguments.sign) if arguments.sign else None
    out: Path = arguments.out
    if not arguments.resume and out.exists() and any(out.iterdir()):
        raise ExhibitError(f"{out} holds something already; give --resume, or another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            return _run(arguments, job, key)
    except Timeout as error:
        raise ExhibitError(f"{out} is being written by another run; wait for it.") from error
    except OSError as error:
        raise ExhibitError(
            f"{out}: {error.strerror or error}; with --resume the run goes on where it stopped."
        ) from error


def _claims(arguments: argparse.Namespace) -> tuple[Statement, ...]:
    """The claims to check, refused before anything is scored where they cannot be."""
    if arguments.claims is None:
        return ()
    if not arguments.explain:
        raise ExhibitError("--claims are checked in the second pass; give --explain as well.")
    from rag.verifier import DOMAINS

    if arguments.claim_domain not in DOMAINS:
        raise ExhibitError(
            f"claims are not calibrated for {arguments.claim_domain!r}; give --claim-domain {' or '.join(DOMAINS)}."
        )
    return read_statements(arguments.claims)


def _chosen(arguments: argparse.Namespace, zoo: Zoo) -> tuple[str, ...]:
    known = {spec.id: spec for spec in zoo.for_task(arguments.task) if spec.kind != "detector"}
    bundled = [model_id for model_id, spec in known.items() if spec.bundled]
    chosen = tuple(dict.fromkeys(arguments.model or bundled or known))
    for model_id in chosen:
        if model_id not in known:
            zoo.get(model_id)
            raise ExhibitError(f"{model_id} gives no verdict on {arguments.task}; choose among: {', '.join(known)}.")
    return chosen


def _run(arguments: argparse.Namespace, job: Job, key: Ed25519PrivateKey | None) -> tuple[int, int]:
    out: Path = arguments.out
    crew = Crew(arguments.address, arguments.workers, arguments.gpus)
    settings = {"inputs": arguments.images, "task": job.task, "models": list(job.models), "zoo": job.zoo}
    _keep_settings(out / "settings.json", settings)
    with ExitStack() as stack:
        if not (out / PLAN).exists():
            _plan_beside_ray(arguments, crew, stack)
        run = Run(out)
        chunks = run.chunks
        left = [chunk for chunk in range(chunks) if not part_path(out, chunk).exists()]
        scored = sum(pq.ParquetFile(part_path(out, c)).metadata.num_rows for c in range(chunks) if c not in set(left))
        if left or arguments.explain:
            stack.enter_context(open_ray(crew))
        with tqdm(total=run.pictures, initial=scored, unit="image", desc="scoring", disable=None) as bar:
            for counts in map_numbers(ScoreChunks, left, job, crew):
                bar.update(int(counts["rows"]))
        listed = make_shortlist(run, job.choice or Choice())
        problems: dict[int, str] = {}
        if arguments.explain:
            with tqdm(total=len(listed), unit="image", desc="explaining", disable=None) as bar:
                for found in map_numbers(ExplainPictures, list(range(len(listed))), job, crew):
                    problems |= {int(found["number"]): str(found["problem"])} if found["problem"] else {}
                    bar.update()
    if arguments.explain:
        write_shortlist(run, listed, problems)
    return _finish(run, listed, settings, problems, key)


def _plan_beside_ray(arguments: argparse.Namespace, crew: Crew, stack: ExitStack) -> None:
    """List the pictures while Ray starts, which takes seconds and mostly waits.

    Ray has to start in the main thread: its processes end when the thread that started them does.
    """
    items = list_items(arguments.images)
    first = next(items, None)  # what is named wrongly is refused before Ray starts
    if first is None:
        raise ExhibitError(f"{', '.join(arguments.images)}: there is no file in it; name other images.")
    stopped = Event()
    with ThreadPoolExecutor(1) as pool:
        wanted = _until(stopped, chain([first], items))
        planned = pool.submit(write_plan, wanted, arguments.out, arguments.chunk)
        try:
            stack.enter_context(open_ray(crew))
            planned.result()
        except BaseException:
            stopped.set()
            raise


def _until(stopped: Event, items: Iterable[Item]) -> Iterator[Item]:
    """The items, ended by an error, not by an end: a plan of some pictures only must not be taken for all."""
    for item in items:
        if stopped.is_set():
            raise ExhibitError("stopped while the pictures were listed; start anew.")
        yield item


def _keep_settings(file: Path, settings: dict[str, Any]) -> None:
    if not file.exists():
        draft = file.with_name(".settings.json")
        draft.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        draft.replace(file)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = [name for name in settings if before.get(name) != settings[name]]
    if changed:
        raise ExhibitError(f"{file.parent} was begun with other {', '.join(changed)}; give the same, or another --out.")


def _finish(
    run: Run,
    listed: list[Listed],
    settings: dict[str, Any],
    problems: dict[int, str],
    key: Ed25519PrivateKey | None,
) -> tuple[int, int]:
    """Count what lies on the disk, show it on one page, name every file with its hash, and sign that."""
    from bulk.summary import write_summary

    out = run.folder
    counts = write_summary(run, listed, settings["task"])
    bundles = [one.name for one in listed if (out / EVIDENCE / one.name / MANIFEST).exists()]
    single = [name for name in (PLAN, "settings.json", MODELS, "summary.html", SHORTLIST) if (out / name).exists()]
    parts = [part_path(out, chunk).relative_to(out).as_posix() for chunk in range(run.chunks)]
    manifest = {
        "schema_version": 2,
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": settings,
        "models": run.models,
        "images": counts.images,
        "failed": counts.failed,
        "not_explained": len(problems),
        "evidence": {f"{EVIDENCE}/{name}": _hash(out / EVIDENCE / name / MANIFEST) for name in bundles},
        "files": {name: _hash(out / name) for name in (*single, *parts)},
        "versions": versions(),
    }
    draft = out / ".manifest.json"
    draft.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / SIGNATURE).unlink(missing_ok=True)  # of a manifest that is replaced now
    draft.replace(out / MANIFEST)
    if key is not None:
        sign_bundles(out, bundles, key)
    return counts.images, counts.failed + len(problems)


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
