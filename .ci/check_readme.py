"""Whether every command, path and figure in the README is true; ``--write`` renews the tables of figures.

Tables between ``<!-- figures NAME -->`` and ``<!-- end -->`` are written from ``benchmarks/results/NAME.json``, those
named ``models`` and ``doubt`` from the ``metrics.json`` and ``doubt.json`` beside each bundled model.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TABLE = re.compile(r"(<!-- figures (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MEAN_PRECISIONS = (("mAP50", "map50"), ("mAP50-95", "map50_95"))
RETRIEVAL = (("recall@1", "recall_at_1"), ("recall@5", "recall_at_5"), ("AUROC", "auroc"))
FRONT_MATTER = {"sdk": "gradio", "app_file": "app.py", "license": "agpl-3.0", "python_version": "3.11"}


def check_front_matter(text: str) -> Iterator[str]:
    """What Hugging Face reads must fit what is installed."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    if not match:
        yield "the front matter of the Space is missing"
        return
    found = yaml.safe_load(match.group(1))
    pinned = re.search(r"^gradio==(\S+)$", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    expected = {**FRONT_MATTER, "sdk_version": pinned.group(1) if pinned else None}
    for key, value in expected.items():
        if str(found.get(key)) != str(value):
            yield f"front matter: {key} is {found.get(key)!r}, not {value!r}"


def check_commands(text: str) -> Iterator[str]:
    """Every command in a shell block must exist, with every option it names."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                yield from _check_command(words, line)


def _check_command(words: list[str], line: str) -> Iterator[str]:
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in words[1:] if "=" not in word):
            if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
                yield f"no such target: {line}"
    elif words[0].endswith("python"):
        # `-m package command` or a script; what follows are its arguments.
        count = 2 if words[1] == "-m" else 1
        program, arguments = words[1 : 1 + count], words[1 + count :]
        command = arguments[:1] if arguments and re.fullmatch(r"[a-z]+", arguments[0]) else []
        usage = _help(tuple(program + command))
        if usage is None:
            yield f"cannot be run: {line}"
            return
        for option in (word for word in arguments if word.startswith("--")):
            if not re.search(rf"{re.escape(option.split('=')[0])}\b", usage):
                yield f"no option {option}: {line}"
    elif words[0] not in {"git", "cd"}:
        yield f"unknown program {words[0]}: {line}"


@lru_cache
def _help(command: tuple[str, ...]) -> str | None:
    done = subprocess.run(  # noqa: S603 - commands of our own README
        [sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout if done.returncode == 0 else None


def check_paths(text: str) -> Iterator[str]:
    """Every path of the repository that is named must exist."""
    linked = re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    named = [span for span in spans if re.fullmatch(r"[\w.-]+(/[\w.*-]+)*/?", span) and ("/" in span or "." in span)]
    tops = {path.name for path in ROOT.iterdir()}
    for path in linked + [span for span in named if span.split("/")[0] in tops or "/" not in span]:
        if not list(ROOT.glob(path.rstrip("/"))):
            yield f"no such path: {path}"


def render_table(name: str) -> str:
    """One table of figures in Markdown."""
    if name in ("models", "doubt"):
        return _models_table() if name == "models" else _doubt_table()
    data = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    rows = ["| figure | measured | bound | holds | how |", "|---|---|---|---|---|"]
    for figure in data["figures"]:
        sign = "at least" if figure["better"] == "higher" else "at most"
        bound = "" if figure["bound"] is None else f"{sign} {figure['bound']:g}"
        holds = "" if figure["bound"] is None else ("yes" if figure["holds"] else "**no**")
        how = figure["how"].replace("|", "\\|")
        rows.append(f"| {figure['name']} | {figure['value']:.3g} | {bound} | {holds} | {how} |")
    machine = data["machine"]
    place = f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}"
    return "\n".join(rows) + f"\n\nMeasured by `python -m benchmarks.{name}` on {machine['gpu'] or place}.\n"


def _models_table() -> str:
    rows = ["| model | measured on | pictures | figures |", "|---|---|---|---|"]
    for path in sorted((ROOT / "assets" / "bundled").glob("*/metrics.json")):
        measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for data_set, values in measured.items():
            if isinstance(values, dict) and "accuracy" in values:
                before = measured.get("before", {}).get(data_set)
                figures = _describe(values) + (f"; before fine-tuning {_describe(before)}" if before else "")
                rows.append(f"| {path.parent.name} | {data_set} | {values['pictures']} | {figures} |")
        if "recall_at_1" in measured.get("validation", {}):
            found = measured["validation"]
            spans = ("{} {value:.3f} ({low:.3f} to {high:.3f})".format(title, **found[key]) for title, key in RETRIEVAL)
            rows.append(f"| {path.parent.name} | validation | {found['photographs']} | {', '.join(spans)} |")
        if "heldout" in measured:
            before, after = measured["heldout"]["before"], measured["heldout"]["after"]
            gains = (f"{title} {before[key]:.3f}, fine-tuned {after[key]:.3f}" for title, key in MEAN_PRECISIONS)
            rows.append(f"| {path.parent.name} | heldout | {after['photos']} | {'; '.join(gains)} |")
    return "\n".join(rows) + "\n"


def _doubt_table() -> str:
    """How the bundled models are calibrated, and what they find strange."""
    kinds = ("COCO photos", "charts", "other generators", "distorted faces", "faces")
    rows = [
        f"| model | temperature | ECE raw, calibrated | false alarms | {' | '.join(kinds)} |",
        "|---" * (4 + len(kinds)) + "|",
    ]
    for path in sorted((ROOT / "assets" / "bundled").glob("*/doubt.json")):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        figures = found["figures"]
        outside = figures["outside"]
        cells = (f"{outside[kind]['auroc']:.3f}" if kind in outside else "" for kind in kinds)
        rows.append(
            f"| {path.parent.name} | {found['temperature']:.3f} | {figures['ece_raw']:.3f}, {figures['ece']:.3f} "
            f"| {figures['false_alarm_measured']:.1%} | {' | '.join(cells)} |"
        )
    return "\n".join(rows) + "\n"


def _describe(values: dict[str, Any]) -> str:
    """Figures of one set, with the interval of the first where it is known; of free answers, the relaxed accuracy."""
    asked = "questions" in values
    parts = [f"{'relaxed accuracy' if asked else 'accuracy'} {values['accuracy']:.1%}"]
    if "accuracy" in values.get("intervals", {}):
        parts[0] += " ({:.1%} to {:.1%})".format(*values["intervals"]["accuracy"])
    names = {"bleu": ("BLEU", ".1f"), "rougeL": ("ROUGE-L", ".3f")} if asked else {}
    names = names or {"roc_auc": ("ROC AUC", ".3f"), "ece": ("ECE", ".3f")}
    parts += [f"{title} {values[key]:{form}}" for key, (title, form) in names.items() if values[key] is not None]
    return ", ".join(parts)


def check_tables(text: str) -> Iterator[str]:
    """Every table must say what was last measured."""
    for _, name, body, _ in TABLE.findall(text):
        if body.strip() != render_table(name).strip():
            yield f"the table {name} is not what was measured; run: python .ci/check_readme.py --write"


def main() -> int:
    """Check, or write the tables and then check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="renew the tables of figures")
    if parser.parse_args().write:
        text = README.read_text(encoding="utf-8")
        README.write_text(TABLE.sub(lambda m: m[1] + render_table(m[2]) + m[4], text), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    checks = (check_front_matter, check_commands, check_paths, check_tables)
    faults = [fault for check in checks for fault in check(text)]
    for fault in faults:
        sys.stdout.write(f"README.md: {fault}\n")
    sys.stdout.write(f"README: {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
