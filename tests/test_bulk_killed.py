"""Workers killed at any moment: no row is lost, none is there twice, and a deadly picture ends only its own row."""

import os
import random
import signal
import time
import traceback

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bulk.parts import Job, part_path, write_plan
from bulk.scoring import ChunkScorer
from bulk.sources import list_items

COUNT, CHUNK = 64, 4
CHUNKS = COUNT // CHUNK


@pytest.fixture
def job(tmp_path, tiny_zoo_file):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.png")
    assert write_plan(list_items([str(folder)]), out, CHUNK) == (COUNT, CHUNKS)
    return Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file))


@pytest.fixture
def scorer(job):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    yield ChunkScorer(job)
    torch.set_num_threads(threads)


def _fork(work) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - a child must never go on as a second pytest
            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def _rows(job) -> list[dict]:
    return [row for chunk in range(CHUNKS) for row in pq.read_table(part_path(job.folder, chunk)).to_pylist()]


def test_two_workers_killed_again_and_again_lose_no_row_and_write_none_twice(job, scorer):
    chance, longest = random.Random(7), 0.05

    def work():
        for chunk in sorted(range(CHUNKS), key=lambda _: os.urandom(1)):
            scorer.score(chunk)

    kills = done = 0
    deadline = time.monotonic() + 60
    while not all(part_path(job.folder, chunk).exists() for chunk in range(CHUNKS)):
        assert time.monotonic() < deadline
        children = [_fork(work), _fork(work)]
        time.sleep(chance.uniform(0, longest))
        for child in children:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            kills += os.WIFSIGNALED(status)
        # What exists is whole, at any moment.
        whole = [pq.read_table(path).num_rows == CHUNK for path in job.folder.glob("rows/*/part-*.parquet")]
        assert all(whole)
        longest *= 1.5 if len(whole) == done else 1.0  # a busy machine needs longer for anything at all
        done = len(whole)
    assert kills >= 4  # how many depends on the machine
    rows = _rows(job)
    assert [row["path"].rpartition("/")[2] for row in rows] == [f"{number:03d}.png" for number in range(COUNT)]
    assert {row["error"] for row in rows} == {None}
    assert {path.name for path in job.folder.glob("rows/*/part*")} == {f"part-{c:07d}.parquet" for c in range(CHUNKS)}


def test_picture_that_ends_its_reader_becomes_a_row_with_an_error(job, scorer, monkeypatch):
    read = scorer.reader.read
    monkeypatch.setattr(
        scorer.reader, "read", lambda item: os._exit(1) if item.path.endswith("002.png") else read(item)
    )
    attempts = 0
    while not part_path(job.folder, 0).exists():
        attempts += 1
        assert attempts < 10
        os.waitpid(_fork(lambda: scorer.score(0)), 0)
    errors = pq.read_table(part_path(job.folder, 0), columns=["error"]).column("error").to_pylist()
    assert [error is None for error in errors] == [True, True, False, True]
    assert "ended the program" in errors[2]
    assert list((job.folder / "attempts").iterdir()) == []
