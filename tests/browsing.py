"""What the tests in a real browser share: the real ``app.py`` served once, visitors who never leave this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ("resnet-deepfake", "vit-deepfake", "yolov8n-coco")
CHROMIUM = os.environ.get("EXHIBIT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Generous: a busy machine must not look like a fault.
PATIENCE_MS = float(os.environ.get("EXHIBIT_BROWSER_PATIENCE_S", "120")) * 1000
START_S = 300
# The status line written since ``mark_status``, without a progress bar.
FINISHED = (
    "() => document.querySelector('#status .status:not([data-old])') && !document.querySelector('#status progress')"
)

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="NO BROWSER, the page was NOT TESTED: apt-get install chromium, or set EXHIBIT_CHROMIUM",
    ),
    pytest.mark.skipif(
        not all((ROOT / "assets" / "bundled" / name / "model.safetensors").is_file() for name in BUNDLED),
        reason="the bundled models are not all in assets/bundled",
    ),
]


@contextmanager
def serve(zoo_file: Path, log: Path, *options: str) -> Iterator[str]:
    """The address of ``app.py`` with a user's zoo and further options, for as long as this lasts."""
    with log.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "app.py", "--port", "0", "--zoo", str(zoo_file), *options],
            cwd=ROOT,
            stderr=sink,
            stdout=sink,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")},
        )
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            process.wait(30)


def _address(process: subprocess.Popen, log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        found = re.search(r"Exhibit is at (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            urllib.request.urlopen(found[1], timeout=60).read()
            return found[1]
        assert process.poll() is None, f"app.py ended early:\n{log.read_text()}"
        time.sleep(0.2)
    pytest.fail(f"app.py did not start within {START_S} s:\n{log.read_text()}")


class Visits:
    """New visitors of the page; remembers what was asked for outside this machine, and scripts that failed."""

    def __init__(self, browser, address: str) -> None:
        self._browser = browser
        self._address = address
        self._contexts: list = []
        self.outside: list[str] = []
        self.broken: list[str] = []

    def __call__(self, width=1600, height=1000, scheme="light", locale="en-US", script=""):
        """A page that is ready, or, with a script that runs before its own ones, one that is in the script's hands."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, locale=locale, accept_downloads=True
        )
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        context.set_default_navigation_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("request", self._note)
        page.on("pageerror", lambda error: self.broken.append(str(error)))
        if script:
            page.add_init_script(script)
        page.goto(self._address)
        page.wait_for_selector("#models input", state="attached" if script else "visible")
        page.wait_for_function("lang => document.documentElement.lang === lang", arg=locale[:2])
        return page

    def _note(self, request) -> None:
        if request.url.startswith("http") and urlsplit(request.url).hostname != "127.0.0.1":
            self.outside.append(request.url)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


def upload(page, path: Path) -> None:
    page.set_input_files("#picture input[type=file]", path)
    page.wait_for_function("name => document.querySelector('#facts').innerText.includes(name)", arg=path.name)


def mark_status(page) -> None:
    page.evaluate("document.querySelector('#status .status').dataset.old = ''")


def press_examine(page) -> None:
    mark_status(page)
    page.click("#examine")
    page.wait_for_function(FINISHED)


def overlay_address(page) -> str:
    return page.get_attribute("#viewer img >> nth=-1", "src")


def wait_for_other_overlay(page, former: str) -> str:
    page.wait_for_function(
        "former => { const all = document.querySelectorAll('#viewer img');"
        " return all.length && all[all.length - 1].getAttribute('src') !== former; }",
        arg=former,
    )
    return overlay_address(page)


def overflow(page) -> int:
    """Pixels by which the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def picture(path: Path, seed: int, size=(320, 240)) -> Path:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path
