"""The page as a program meets it: cold start, and the time from a picture to its verdict and to its last heatmap.

python -m benchmarks.app
python -m benchmarks.app --json --save
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradio_client import Client, handle_file

from benchmarks.report import Figure, arguments, median, report

ROOT = Path(__file__).resolve().parent.parent
MODELS = ["bundled-resnet", "bundled-vit"]
ROUNDS = 15
START_S = 600.0
PICTURE = "810 x 1080 px photograph, two models, seven methods, one detector"


@dataclass(frozen=True)
class Times:
    """Seconds from sending one picture until the page's API had answered with each part."""

    verdict_s: float
    last_heatmap_s: float
    complete_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    options = arguments("Cold start, and a picture's way through the real HTTP API.", argv)
    picture = _photograph()
    with _server() as (url, start_s):
        client = Client(url, verbose=False, download_files=False)
        first = _examine(client, picture)
        rounds = [_examine(client, picture) for _ in range(ROUNDS)]
    how = f"{PICTURE}; median of {ROUNDS} requests over HTTP, upload included"
    figures = [
        Figure("cold_start_s", start_s, None, "lower", "from `python app.py` until the page is served"),
        Figure(
            "first_verdict_s",
            first.verdict_s,
            None,
            "lower",
            f"{PICTURE}; the first request after the start, which loads the models; until a verdict is there",
        ),
        Figure("verdict_s", median([r.verdict_s for r in rounds]), 1.0, "lower", f"until a verdict is there; {how}"),
        Figure(
            "last_heatmap_s",
            median([r.last_heatmap_s for r in rounds]),
            1.0,
            "lower",
            f"until the last of 14 heatmaps is there; {how}",
        ),
        Figure("complete_s", median([r.complete_s for r in rounds]), None, "lower", f"until objects are found; {how}"),
    ]
    report("app", figures, options)
    return 0


@contextmanager
def _server() -> Iterator[tuple[str, float]]:
    """The real ``app.py`` on a free port: its address, and the seconds until it served the page."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        started = time.perf_counter()
        with log.open("w") as sink:
            process = subprocess.Popen(
                [sys.executable, "app.py", "--port", "0"],
                cwd=ROOT,
                stdout=sink,
                stderr=sink,
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
            )
            try:
                url = _wait(process, log)
                urllib.request.urlopen(url, timeout=60).read()
                yield url, time.perf_counter() - started
            finally:
                process.terminate()
                process.wait(30)


def _wait(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = re.search(r"Exhibit is at (\S+)", log.read_text())
        if found:
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SystemExit(f"app.py did not start:\n{log.read_text()}")


def _examine(client: Client, picture: Path) -> Times:
    """One examination, read step by step as the server sends it."""
    started = time.perf_counter()
    job = client.submit(image=handle_file(picture), models=MODELS, bundle=False, api_name="/examine")
    verdict_s = last_heatmap_s = 0.0
    maps = 0
    for findings, _, _ in job:
        now_s = time.perf_counter() - started
        if findings["verdict"] and not verdict_s:
            verdict_s = now_s
        if len(findings["heatmaps"]) > maps:
            maps, last_heatmap_s = len(findings["heatmaps"]), now_s
    job.result()  # raises what went wrong, if anything did
    return Times(verdict_s, last_heatmap_s, time.perf_counter() - started)


def _photograph() -> Path:
    """The street photograph that ultralytics ships."""
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        raise SystemExit("the photograph lies in the package ultralytics, which is not installed.")
    return Path(spec.origin).parent / "assets" / "bus.jpg"


if __name__ == "__main__":
    sys.exit(main())
