"""Ray for ``triage.py``: a local one or a cluster, and numbers dealt to workers that may die.

Ray is imported when it is first needed: it takes seconds, and a wrong argument should be told before.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulk.parts import Job
from models.errors import ExhibitError

__all__ = ["STORE_BYTES", "Crew", "map_numbers", "open_ray"]

STORE_BYTES = 128 * 1024 * 1024
"""Shared memory of a local Ray: only numbers of chunks pass through it."""
MAX_BLOCKS = 20_000
"""Pieces of work that Ray keeps account of; beyond, a piece has several chunks."""
CONNECT_S = 10.0


@dataclass(frozen=True)
class Crew:
    """Where the work is done, and by how many.

    Attributes:
        address: of a cluster; ``None`` for a Ray of this machine alone.
        workers: at most so many; ``None`` for one per core here, or as many as a cluster has room for.
        gpus: per worker, may be a share of one.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float = 0.0


@contextmanager
def open_ray(crew: Crew) -> Iterator[None]:
    """A Ray for as long as this lasts: the cluster that was named, one that is there already, or one of our own.

    Raises:
        ExhibitError: no cluster answers at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray
    from ray.data import DataContext

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    started = not ray.is_initialized()
    if started and crew.address:
        _join(crew.address, quiet)
    elif started:
        local: dict[str, Any] = {
            "num_cpus": max(_cores(), crew.workers or 1),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
        ray.init(address="local", _node_ip_address="127.0.0.1", **local, **quiet)
    DataContext.get_current().enable_progress_bars = False
    # What a worker raised is told once, by whoever catches it; Ray would also write its traceback.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        if started:
            ray.shutdown()


def _join(address: str, quiet: dict[str, Any]) -> None:
    """Connect to a cluster.

    Raises:
        ExhibitError: nobody answers, or not to us.
    """
    import ray

    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "://" not in address:  # where nobody listens, Ray would end the whole program
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
        ray.init(address=address, **quiet)
    except OSError as error:  # Ray's ConnectionError is one, too
        raise ExhibitError(
            f"{address}: no Ray cluster answers there; check the address, and set RAY_AUTH_MODE=token where it wants a "
            "token."
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_numbers(worker: type, numbers: list[int], job: Job, crew: Crew) -> Iterator[dict[str, Any]]:
    """What workers say of each number as it is done; the numbers of one that dies are given to another.

    Args:
        worker: a class made with the job, then called with batches of one ``item``.
        numbers: the work.
        job: what every worker has to know.
        crew: as for ``open_ray``.

    Raises:
        ExhibitError: what a worker raised.
        OSError: likewise.
    """
    if not numbers:
        return
    import ray
    from ray.data import ActorPoolStrategy

    most = min(crew.workers or _cores(), len(numbers))
    least = most
    if crew.address:  # a cluster grows and shrinks
        least, most = 1, min(crew.workers or len(numbers), len(numbers))
    try:
        found = ray.data.from_items(numbers, override_num_blocks=min(len(numbers), MAX_BLOCKS)).map_batches(
            worker,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ActorPoolStrategy(min_size=least, max_size=most),
            num_cpus=1,
            num_gpus=crew.gpus or None,
        )
        yield from found.iter_rows()
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, ExhibitError | OSError) else error from None
