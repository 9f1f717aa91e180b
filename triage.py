"""Many images at once, on Ray: ``python triage.py evidence/ --task deepfake --out run/``.

Every file becomes one row of parquet below ``run/rows``; one that cannot be scored has its reason in the column
``error``. A run that was stopped, by whatever, is finished by the same command with ``--resume``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from tqdm import tqdm

from bulk.parts import PLAN, Job, part_path, write_plan
from bulk.sources import list_items
from models.errors import ExhibitError
from models.registry import Zoo, load_zoo

STORE_BYTES = 128 * 1024 * 1024
"""Shared memory of a local Ray: only numbers of chunks pass through it."""


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
    arguments = parser.parse_args(argv)
    if arguments.chunk < 1 or (arguments.workers is not None and arguments.workers < 1) or arguments.gpus < 0:
        parser.error("--chunk and --workers are at least 1, --gpus at least 0")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Score everything.

    Returns:
        0 when every image was scored, 1 when some were not, 2 when the arguments cannot be used.
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
    """Plan, score what is not scored yet, and write the manifest last.

    Returns:
        Number of images, and of those that could not be scored.

    Raises:
        ExhibitError: the arguments, the folder or the models cannot be used.
    """
    zoo = load_zoo(arguments.zoo)
    job = Job(
        out=str(arguments.out.resolve()),
        task=arguments.task,
        models=_chosen(arguments, zoo),
        zoo=str(arguments.zoo.resolve()) if arguments.zoo else None,
    )
    out: Path = arguments.out
    if not arguments.resume and out.exists() and any(out.iterdir()):
        raise ExhibitError(f"{out} holds something already; give --resume, or another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            return _run(arguments, job, out)
    except Timeout as error:
        raise ExhibitError(f"{out} is being written by another run; wait for it.") from error
    except OSError as error:
        raise ExhibitError(
            f"{out}: {error.strerror or error}; with --resume the run goes on where it stopped."
        ) from error


def _chosen(arguments: argparse.Namespace, zoo: Zoo) -> tuple[str, ...]:
    known = {spec.id: spec for spec in zoo.for_task(arguments.task) if spec.kind != "detector"}
    bundled = [model_id for model_id, spec in known.items() if spec.bundled]
    chosen = tuple(dict.fromkeys(arguments.model or bundled or known))
    for model_id in chosen:
        if model_id not in known:
            zoo.get(model_id)
            raise ExhibitError(f"{model_id} gives no verdict on {arguments.task}; choose among: {', '.join(known)}.")
    return chosen


def _run(arguments: argparse.Namespace, job: Job, out: Path) -> tuple[int, int]:
    settings = {"inputs": arguments.images, "task": job.task, "models": list(job.models), "zoo": job.zoo}
    _keep_settings(out / "settings.json", settings)
    if not (out / PLAN).exists():
        pictures, _ = write_plan(list_items(arguments.images), out, arguments.chunk)
        if not pictures:
            raise ExhibitError(f"{', '.join(arguments.images)}: there is no file in it; name other images.")
    with pq.ParquetFile(out / PLAN) as plan:
        pictures, chunks = plan.metadata.num_rows, plan.num_row_groups
    left = [chunk for chunk in range(chunks) if not part_path(out, chunk).exists()]
    scored = sum(pq.ParquetFile(part_path(out, c)).metadata.num_rows for c in range(chunks) if c not in set(left))
    with tqdm(total=pictures, initial=scored, unit="image", desc="scoring", disable=None) as bar:
        if left:
            for counts in _score(left, job, arguments):
                bar.update(int(counts["rows"]))
    return _finish(out, chunks, settings)


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


def _score(chunks: list[int], job: Job, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Counts of each chunk as it is done; chunks of a worker that dies are scored again by another."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent))
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = arguments.workers or cores
    started = not ray.is_initialized()
    if started and arguments.address:
        ray.init(address=arguments.address, **quiet)
    elif started:
        local: dict[str, Any] = {
            "num_cpus": max(cores, workers),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
        ray.init(address="local", _node_ip_address="127.0.0.1", **local, **quiet)
    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        found = ray.data.from_items(chunks, override_num_blocks=len(chunks)).map_batches(
            ScoreChunks,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=1, max_size=min(workers, len(chunks))),
            num_cpus=1,
            num_gpus=arguments.gpus or None,
        )
        yield from found.iter_rows()
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, ExhibitError | OSError) else error from None
    finally:
        if started:
            ray.shutdown()


def _finish(out: Path, chunks: int, settings: dict[str, Any]) -> tuple[int, int]:
    """Count what lies on the disk, and name every part with its hash."""
    from explain.versions import versions

    rows = failed = 0
    parts: dict[str, str] = {}
    for chunk in range(chunks):
        path = part_path(out, chunk)
        column = pq.ParquetFile(path).read(columns=["error"]).column("error")
        rows, failed = rows + len(column), failed + len(column) - column.null_count
        parts[path.relative_to(out).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = {
        "schema_version": 1,
        "finished_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": settings,
        "models": json.loads((out / "models.json").read_text(encoding="utf-8")),
        "images": rows,
        "failed": failed,
        "plan_sha256": hashlib.sha256((out / PLAN).read_bytes()).hexdigest(),
        "parts": parts,
        "versions": versions(),
    }
    draft = out / ".manifest.json"
    draft.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(out / "manifest.json")
    return rows, failed


if __name__ == "__main__":
    raise SystemExit(main())
