"""``triage.py`` as a whole: against the bare model, two workers against one, and memory as pictures grow in number.

python -m benchmarks.triage
python -m benchmarks.triage --pictures 1000
python -m benchmarks.triage --json --save
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.report import Figure, arguments, report

ROOT = Path(__file__).resolve().parent.parent
MODEL = "bundled-resnet"
PICTURES = 20_000
DISTINCT = 500
BATCH = 16
CHUNK = 100
CORE_HOUR_USD = 0.04
"""What a rented core of a common cloud costs per hour on demand; an assumption, stated with every figure."""
MACHINE_CORES = 64
SAMPLE_S = 3.0  # adding up the memory of some ten processes takes a core a good part of a second


@dataclass(frozen=True)
class Cost:
    """What one run of the command took.

    Attributes:
        seconds: from start to end of the process.
        rate: pictures per second once all workers were up: over the parts written after the first fifth.
        peak_mb: largest proportional set size of the command with all its processes, MB.
    """

    seconds: float
    rate: float
    peak_mb: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--bare", type=Path)
    own, rest = parser.parse_known_args(argv)
    if own.bare is not None:
        _run_bare(own.bare)
        return 0
    options = arguments("Scoring many pictures with the whole command.", rest)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_pictures(folder / "many", own.pictures)
        _write_pictures(folder / "few", own.pictures // 10)
        many = _triage(folder / "many", folder / "two", workers=2)
        few = _triage(folder / "few", folder / "small", workers=2)
        bare_s = _time([sys.executable, "-m", "benchmarks.triage", "--bare", str(folder / "many")], threads=2)
        one = _triage(folder / "many", folder / "one", workers=1)
    report("triage", [*_measured(own.pictures, many, few, one, bare_s), *_projected(many.rate / 2)], options)
    return 0


def _measured(count: int, many: Cost, few: Cost, one: Cost, bare_s: float) -> list[Figure]:
    what = f"{count} JPEG files of 256 x 256 px, {MODEL}"
    return [
        Figure(
            "throughput_over_bare",
            bare_s / many.seconds,
            0.85,
            "higher",
            f"{what}: seconds of a plain program that decodes and runs the model in batches of {BATCH} on two threads, "
            "divided by those of the whole command with two workers; starts and imports of both included",
        ),
        Figure(
            "two_workers_speedup",
            many.rate / one.rate,
            1.7,
            "higher",
            f"{what}: pictures per second with two workers over one, one thread each, once they are up",
        ),
        Figure(
            "memory_growth",
            many.peak_mb / few.peak_mb,
            1.2,
            "lower",
            f"peak memory (PSS of all processes) at {count} pictures ({many.peak_mb:.0f} MB) over {count // 10}",
        ),
        Figure("pictures_per_second", many.rate, None, "higher", f"{what}: two workers on two cores, once they are up"),
    ]


def _projected(rate: float) -> list[Figure]:
    """What a million and a billion pictures take, on paper; ``rate`` is pictures per second and core."""
    figures = []
    for name, count in (("million", 1e6), ("billion", 1e9)):
        core_hours = count / rate / 3600
        machines = max(1, round(core_hours / MACHINE_CORES / 24))
        formula = f"core hours = {count:.0e} / {rate:.1f} per second and core / 3600 = {core_hours:.0f}"
        figures += [
            Figure(
                f"{name}_machines", machines, None, "lower", f"of {MACHINE_CORES} cores to be done in a day; {formula}"
            ),
            Figure(
                f"{name}_hours",
                core_hours / MACHINE_CORES / machines,
                None,
                "lower",
                f"core hours / {MACHINE_CORES} cores / {machines} machines, all cores kept as busy as these two",
            ),
            Figure(
                f"{name}_cost_usd",
                core_hours * CORE_HOUR_USD,
                None,
                "lower",
                f"core hours x {CORE_HOUR_USD} USD, assumed",
            ),
        ]
    return figures


def _write_pictures(folder: Path, count: int) -> None:
    """Smooth colour fields with noise, which compress as photographs do; the distinct ones repeat under new names."""
    folder.mkdir()
    for number in range(min(DISTINCT, count)):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC), np.float32)
        pixels = (smooth + rng.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=88)
        for copy in range(number, count, DISTINCT):
            (folder / f"{copy:06d}.jpg").write_bytes(buffer.getvalue())


def _triage(pictures: Path, out: Path, *, workers: int) -> Cost:
    command = [sys.executable, "triage.py", str(pictures), "--task", "deepfake", "--model", MODEL, "--out", str(out)]
    command += ["--workers", str(workers), "--chunk", str(CHUNK)]
    started = time.perf_counter()
    peak = _run_sampled(command)
    seconds = time.perf_counter() - started
    times = sorted(part.stat().st_mtime for part in out.glob("rows/*/part-*.parquet"))
    up = times[len(times) // 5 :]
    rate = (len(up) - 1) * CHUNK / max(up[-1] - up[0], 1e-9)
    shutil.rmtree(out)
    return Cost(seconds, rate, peak / 1e6)


def _run_sampled(command: list[str]) -> int:
    """Run a command to its end; the largest memory of it with all its children, in bytes."""
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return peak


def _memory(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for one in (parent, *parent.children(recursive=True)):
            try:
                total += one.memory_full_info().pss
            except psutil.Error:  # it ended meanwhile
                continue
    except psutil.Error:
        return total
    return total


def _time(command: list[str], *, threads: int) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": str(threads)}, check=True)
    return time.perf_counter() - started


def _run_bare(folder: Path) -> None:
    """What anybody would write first: decode a batch, run the model on it, keep the probabilities."""
    import torch

    from models.classifier import ImageClassifier
    from models.loading import ModelLoader
    from models.registry import load_zoo

    live = ModelLoader(load_zoo(None)).load(MODEL)
    if not isinstance(live, ImageClassifier):
        raise SystemExit(f"{MODEL} is no classifier")
    files = iter(sorted(folder.iterdir()))
    kept = []
    with torch.inference_mode():
        while batch := list(islice(files, BATCH)):
            images = [Image.open(file).convert("RGB") for file in batch]
            kept.append(live.forward(live.prepare(images)).logits.softmax(-1).cpu())
    sys.stderr.write(f"{len(torch.cat(kept))} pictures\n")


if __name__ == "__main__":
    raise SystemExit(main())
