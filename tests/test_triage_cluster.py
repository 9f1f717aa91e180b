"""The command on a cluster that runs already: a head of its own process, found by its address."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.dataset
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120
COUNT = 6
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "known to the cluster and to who may use it"}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Address of a Ray head with two cores, which ends with the test."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--include-dashboard=false"]
    command += [f"--object-store-memory={128 * 1024**2}"]
    # What the cluster's machines know of the project is what the head was started with.
    env = os.environ | TOKEN | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while "Ray runtime started" not in (tmp_path / "head.log").read_text():
                assert head.poll() is None, (tmp_path / "head.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield f"127.0.0.1:{port}"
        finally:
            for one in (*psutil.Process(head.pid).children(recursive=True), head):
                with contextlib.suppress(psutil.NoSuchProcess):  # its parent may have taken it along
                    one.kill()  # asked to end, Ray takes half a minute
            head.wait(PATIENCE_S)


def test_a_cluster_scores_and_is_left_running(address: str, tiny_zoo_file: Path, tmp_path: Path) -> None:
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    pictures.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (40, 40), (40 * number, 90, 90)).save(pictures / f"{number}.png")
    command = [sys.executable, "triage.py", str(pictures), "--task", "deepfake", "--model", "tiny-resnet"]
    command += ["--zoo", str(tiny_zoo_file), "--out", str(out), "--chunk", "2", "--workers", "2", "--address", address]
    env = os.environ | TOKEN | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{COUNT} images, 0 failed: {out}\n"
    rows = pyarrow.dataset.dataset(out / "rows").to_table(columns=["path", "verdict"]).to_pylist()
    assert sorted(Path(row["path"]).name for row in rows) == [f"{number}.png" for number in range(COUNT)]
    assert all(row["verdict"] for row in rows)
    assert json.loads((out / "manifest.json").read_text())["images"] == COUNT
    asked = f"import ray; ray.init(address={address!r}, log_to_driver=False); print(len(ray.nodes()))"
    alive = subprocess.run([sys.executable, "-c", asked], env=env, capture_output=True, text=True, check=True)
    assert alive.stdout.strip() == "1"


def test_where_no_cluster_answers_that_is_said_in_one_line(tiny_zoo_file: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "one.png")
    command = [sys.executable, "triage.py", str(tmp_path / "one.png"), "--task", "deepfake", "--model", "tiny-resnet"]
    command += ["--zoo", str(tiny_zoo_file), "--out", str(tmp_path / "out"), "--address", "127.0.0.1:9"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "127.0.0.1:9: no Ray cluster answers there; check the address" in done.stderr.splitlines()[-1]
