"""Saved reports: those that lie beside bundled models and in the operator's folder, and those that visitors bring."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock

from models.registry import BUNDLED_ROOT
from models.reports import PICTURES, REPORT, Report, ReportError, read_report
from ui.compare_pictures import check_pictures, read_thumbnails

_LOG = logging.getLogger(__name__)
# More would make a list that nobody reads; the operator is told.
MAX_SAVED = 200
# First part of the keys of the operator's own reports.
_OWN = "reports"
# Where reports lie below a folder: ``NAME/reports/EVALUATION/report.json`` beside bundled models, and the operator may
# name one report, a folder of them, or a folder of such folders.
_BUNDLED_DEPTH = "*/reports/*"
_DEPTHS = ("", "*", "*/*", "*/*/*")


@dataclass(frozen=True)
class Saved:
    """One saved report.

    Attributes:
        key: what it is called between page, programs and server; unique among those a visitor sees.
        report: what it says.
        pictures: its ``pictures.parquet``, or ``None`` where it came without.
    """

    key: str
    report: Report
    pictures: Path | None

    @cached_property
    def evaluation(self) -> str:
        """The same for all reports of the same pictures, questions and truths, and for no others."""
        report = self.report
        asked = sorted((row.sha256, row.question or "", row.truth) for row in report.rows)
        return hashlib.sha256(json.dumps([report.kind, sorted(report.labels), asked]).encode()).hexdigest()

    def thumbnails(self, wanted: Iterable[str]) -> dict[str, bytes]:
        """Small pictures by digest of the original, as they are stored; those that are missing are left out.

        Raises:
            ReportError: the file is damaged.
        """
        # Those of an upload are cleared with the page's other files.
        return read_thumbnails(self.pictures, wanted) if self.pictures and self.pictures.is_file() else {}


@dataclass(frozen=True)
class Shelf:
    """The reports that every visitor sees, read again when their files change.

    Attributes:
        folder: named by the operator; ``None`` for the reports beside bundled models alone.
        bundled: where bundled models lie.
    """

    folder: Path | None = None
    bundled: Path = BUNDLED_ROOT
    _read: dict[Path, tuple[tuple[int, int], Saved | str]] = field(default_factory=dict, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        """Refuse at the start what would only show as an empty page.

        Raises:
            ReportError: there is no such folder.
        """
        if self.folder is not None and not self.folder.is_dir():
            raise ReportError(f"--reports {self.folder}: there is no such folder.")

    def list_saved(self) -> tuple[Saved, ...]:
        """All reports that can be read, those of bundled models first."""
        return tuple(found for found in self._take() if isinstance(found, Saved))

    def list_problems(self) -> tuple[str, ...]:
        """One line for each report that cannot be read."""
        return tuple(found for found in self._take() if isinstance(found, str))

    def _take(self) -> list[Saved | str]:
        with self._lock:
            return [self._read_again(key, file) for key, file in self._find()]

    def _find(self) -> list[tuple[str, Path]]:
        found = [
            (f"{file.parents[2].name}/{file.parent.name}", file)
            for file in sorted(self.bundled.glob(f"{_BUNDLED_DEPTH}/{REPORT}"))
        ]
        if self.folder is not None:
            files = sorted(file for depth in _DEPTHS for file in self.folder.glob(f"{depth}/{REPORT}".lstrip("/")))
            found += [(f"{_OWN}/{file.parent.relative_to(self.folder).as_posix()}", file) for file in files]
        if len(found) > MAX_SAVED:
            _LOG.warning("%d reports; only the first %d are shown.", len(found), MAX_SAVED)
        return found[:MAX_SAVED]

    def _read_again(self, key: str, file: Path) -> Saved | str:
        try:
            facts = file.stat()
            state = (facts.st_mtime_ns, facts.st_size)
            former = self._read.get(file)
            if former is None or former[0] != state:
                former = (state, _read_saved(key, file))
                self._read[file] = former
        except OSError as error:
            return f"{key}: cannot be read ({error.strerror})."
        return former[1]


def find_evaluations(saved: Iterable[Saved]) -> dict[str, tuple[Saved, ...]]:
    """The reports of each evaluation: the operator's own come before those of bundled models, most reports first."""
    groups: dict[str, list[Saved]] = {}
    for each in saved:
        groups.setdefault(each.evaluation, []).append(each)

    def rank(name: str) -> tuple[bool, int]:
        return not any(each.key.startswith(f"{_OWN}/") for each in groups[name]), -len(groups[name])

    return {name: tuple(groups[name]) for name in sorted(groups, key=rank)}


def _read_saved(key: str, file: Path) -> Saved | str:
    pictures = file.with_name(PICTURES)
    try:
        report = read_report(file)
        if pictures.is_file():
            check_pictures(pictures)
    except ReportError as error:
        _LOG.warning("%s", error)
        return " ".join(str(error).replace(str(file), key).split())
    return Saved(key, report, pictures if pictures.is_file() else None)
