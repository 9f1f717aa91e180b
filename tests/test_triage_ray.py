"""A real local Ray: workers, the command itself and the disk fail at random moments; ``--resume`` finishes the rest."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset
import pytest
from PIL import Image

import triage
from bulk.cluster import STORE_BYTES
from bulk.parts import part_path
from explain.signing import verify_folder
from tests.signing_keys import write_key

ROOT = Path(__file__).resolve().parent.parent
COUNT = 90
PATIENCE_S = 240


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with pictures, a broken one, and a zip of which one member leads out."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    with zipfile.ZipFile(folder / "seized.zip", "w") as archive:
        archive.write(folder / "000.png", "same.png")
        archive.writestr("../../out.png", (folder / "001.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all runs of this file."""
    import ray

    changed = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": str(ROOT)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    ray.init(
        address="local",
        _node_ip_address="127.0.0.1",
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=STORE_BYTES,
    )
    yield
    ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def _command(pictures, zoo, out, *more) -> list[str]:
    given = [str(pictures), "--task", "deepfake", "--model", "tiny-resnet", "--zoo", str(zoo)]
    return [*given, "--out", str(out), "--chunk", "2", "--workers", "2", *more]


def _parts(out) -> int:
    return len(list(Path(out).glob("rows/*/part-*.parquet")))


def _wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _runs(process: psutil.Process, *, named: str = "") -> bool:
    # It may end between any two of these questions.
    try:
        return (
            process.is_running() and process.status() != psutil.STATUS_ZOMBIE and named in " ".join(process.cmdline())
        )
    except psutil.NoSuchProcess:
        return False


def _workers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if _runs(one, named="ScoreChunks")]


def _check(out) -> None:
    """Every picture has exactly one row, and what is wrong is told."""
    rows = pyarrow.dataset.dataset(out / "rows").to_table(columns=["path", "error", "verdict"]).to_pylist()
    names = Counter(row["path"].rpartition("/")[2] for row in rows)
    expected = {f"{number:03d}.png" for number in range(COUNT)} | {"broken.jpg", "seized.zip!same.png", "out.png"}
    assert set(names) == expected
    assert set(names.values()) == {1}
    failed = {row["path"].rpartition("/")[2] for row in rows if row["error"]}
    assert failed == {"broken.jpg", "out.png"}
    assert all((row["verdict"] is None) == bool(row["error"]) for row in rows)


def test_killed_command_and_killed_workers_lose_nothing(pictures, tiny_zoo_file, tmp_path, cluster, capsys):
    out, chance = tmp_path / "out", random.Random()
    command = _command(pictures, tiny_zoo_file, out)
    # With a Ray of its own, as anybody starts it; killed with all it holds in memory.
    driver = subprocess.Popen(
        [sys.executable, "triage.py", *command], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _wait_for(lambda: _parts(out) >= chance.randint(1, 8) or driver.poll() is not None)
    left = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    assert not (out / "manifest.json").exists()
    _wait_for(lambda: not any(_runs(one) for one in left))
    killed: list[int] = []

    def kill() -> None:
        for _ in range(2):
            goal = _parts(out) + chance.randint(1, 8)
            _wait_for(lambda goal=goal: _parts(out) >= goal or (out / "manifest.json").exists())
            for worker in _workers()[:1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
                    killed.append(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    assert triage.main([*command, "--resume"]) == 1
    killer.join()
    assert killed
    assert capsys.readouterr().out.splitlines()[-1] == f"{COUNT + 3} images, 2 failed: {out}"
    _check(out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("rows/*/*")}
    key = write_key(tmp_path / "key.pem")
    # Nothing is left to score, and nothing is scored again; the short list is looked into and all of it signed.
    second = ["--resume", "--explain", "--top", "1", "--sign", str(key)]
    assert triage.main([*command, *second]) == 1
    assert {path: path.stat().st_mtime_ns for path in out.glob("rows/*/*")} == before
    listed = json.loads((out / "shortlist.json").read_text())
    assert [entry["problem"] for entry in listed] == [None]
    assert all((out / entry["bundle"] / "report.html").exists() for entry in listed)
    assert all(check.holds for check in verify_folder(out))
    (out / "rows" / "block=00000" / "part-0000003.parquet").unlink()
    assert [check.detail for check in verify_folder(out) if not check.holds] == ["missing"]


def test_full_disk_is_one_line_and_the_rest_is_done_when_there_is_room(
    pictures, tiny_zoo_file, tmp_path, cluster, capsys
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no small disk can be mounted here; test_bulk_scoring.py tests a disk that refuses without one")
    try:
        command = _command(pictures, tiny_zoo_file, disk / "out")
        assert triage.main(command) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert "No space left" in line
        assert "--resume" in line
        written = _parts(disk / "out")
        assert not part_path(disk / "out", 46).exists()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert triage.main([*command, "--resume"]) == 1
        assert _parts(disk / "out") > written
        _check(disk / "out")
    finally:
        # Ray ends its workers after `main` has returned; one that still holds a file open makes a plain umount "busy".
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
