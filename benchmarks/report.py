"""How benchmarks time and report: ratios of interleaved runs, with the bound each has to keep."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

__all__ = ["Figure", "add_options", "arguments", "interleaved", "machine", "report"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: stays the same between versions.
        value: what was measured, in the unit that ``how`` gives.
        bound: what it has to keep; ``None`` where the number only informs.
        better: in which direction it improves.
        how: one sentence: what was divided by what.
    """

    name: str
    value: float
    bound: float | None
    better: Literal["lower", "higher"]
    how: str

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        if self.bound is None:
            return True
        return self.value <= self.bound if self.better == "lower" else self.value >= self.bound

    def to_json(self) -> dict[str, Any]:
        """The figure as the results file holds it."""
        return {
            "name": self.name,
            "value": float(f"{self.value:.4g}"),
            "bound": self.bound,
            "better": self.better,
            "holds": self.holds,
            "how": self.how,
        }


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, rounds: int, repeats: int = 1
) -> list[dict[str, float]]:
    """Seconds of every contender in every round.

    Contenders take turns, so that a slow minute of a shared machine falls on all of them; within a round the fastest of
    ``repeats`` turns counts. Compare contenders within a round only.

    Returns:
        One mapping of name to seconds for each round; a first round to warm up is not among them.
    """
    for run in contenders.values():
        run()
    table = []
    for _ in range(rounds):
        fastest = dict.fromkeys(contenders, float("inf"))
        for _ in range(repeats):
            for name, run in contenders.items():
                started = perf_counter()
                run()
                fastest[name] = min(fastest[name], perf_counter() - started)
        table.append(fastest)
    return table


def median(values: Sequence[float]) -> float:
    """The middle value, which a few disturbed rounds cannot move."""
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def arguments(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    add_options(parser)
    return parser.parse_args(argv)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add those options to a parser that has further ones."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--save", action="store_true", help="also write benchmarks/results/NAME.json")


def report(
    name: str,
    figures: Sequence[Figure],
    options: argparse.Namespace,
    details: Mapping[str, Any] | None = None,
    *,
    partial: bool = False,
) -> None:
    """Print the figures, and write them to ``benchmarks/results/NAME.json`` if asked.

    Args:
        name: of the benchmark.
        figures: the measured numbers.
        options: as ``arguments`` gave them.
        details: what JSON holds besides the figures.
        partial: only some parts were measured; the saved figures of the others stay.
    """
    result = {"machine": machine(), "figures": [figure.to_json() for figure in figures], **(details or {})}
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if options.save:
        file = RESULTS / f"{name}.json"
        RESULTS.mkdir(exist_ok=True)
        kept = json.loads(file.read_text(encoding="utf-8"))["figures"] if partial and file.exists() else []
        saved = {**result, "figures": _merged(kept, result["figures"])}
        file.write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(text if options.json else _table(figures))


def _merged(kept: Sequence[dict[str, Any]], measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures measured anew in the places of those of the same name, further ones behind the last of these."""
    new = {figure["name"]: figure for figure in measured}
    places = [at for at, figure in enumerate(kept) if figure["name"] in new]
    end = places[-1] + 1 if places else len(kept)
    known = {figure["name"] for figure in kept}
    added = [figure for figure in measured if figure["name"] not in known]
    replaced = [new.get(figure["name"], figure) for figure in kept]
    return [*replaced[:end], *added, *replaced[end:]]


def _table(figures: Sequence[Figure]) -> str:
    width = max((len(figure.name) for figure in figures), default=0)
    lines = [f"{'figure':<{width}}  {'value':>9}  {'bound':>9}  holds  how"]
    for figure in figures:
        sign = "<=" if figure.better == "lower" else ">="
        bound = "" if figure.bound is None else f"{sign} {figure.bound:g}"
        holds = "yes" if figure.holds else "NO"
        lines.append(f"{figure.name:<{width}}  {figure.value:>9.4g}  {bound:>9}  {holds:<5}  {figure.how}")
    return "\n".join(lines) + "\n"
