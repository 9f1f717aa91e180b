"""A report that a visitor brings: ``report.json`` alone, or its folder as a zip file. Strangers' files all.

Nothing is unpacked by the names in an archive: its two parts that are read are found by name, measured while they are
read, and kept under names of our own.
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Annotated

from pydantic import BaseModel, Field, ValidationError

from models.reports import PICTURES, REPORT, Report, ReportError, parse_report
from ui.compare_pictures import check_pictures
from ui.compare_shelf import Saved
from ui.files import fresh_path

MAX_REPORT_BYTES = 16_000_000
MAX_PICTURES_BYTES = 256_000_000
MAX_ENTRIES = 1000
MAX_LABELS = 100
MAX_ROWS = 20_000
# Every label has a curve over all rows in each of a thousand resamples.
MAX_LABELS_TIMES_ROWS = 100_000
MAX_NAME = 200
UPLOADED = "uploaded/"
"""Start of the key of a report that was brought."""
_HOW = "give the report.json of a report, or its folder as a zip file."

# What zipfile raises for damaged, encrypted and unknown content.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
)


class _Size(BaseModel):
    """What would make a report too large to be looked into; all else is the reader's."""

    labels: Annotated[list[object], Field(max_length=MAX_LABELS)] = []
    rows: Annotated[list[object], Field(max_length=MAX_ROWS)] = []
    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    figures: Annotated[dict[str, object], Field(max_length=MAX_LABELS)] = {}
    versions: Annotated[dict[str, object], Field(max_length=MAX_LABELS)] = {}


def read_upload(file: Path, name: str) -> Saved:
    """A report from a file that somebody chose.

    Args:
        file: where the upload lies.
        name: what it was called, for messages; never a path to follow.

    Raises:
        ReportError: it is no report, or larger than reports are; one line that names ``name``.
    """
    name = " ".join(PurePosixPath(name.replace("\\", "/")).name[-MAX_NAME:].split()) or "file"
    try:
        if not zipfile.is_zipfile(file):
            with file.open("rb") as opened:
                text = _read(opened, name)
            return _make(text, _parse(text, name), None)
        with zipfile.ZipFile(file) as archive:
            return _read_archive(archive, name)
    except _BROKEN as error:
        reason = " ".join(str(error).split())[:120]
        raise ReportError(f"{name}: this archive cannot be read ({reason}); pack the folder again.") from error
    except OSError as error:
        raise ReportError(f"{name}: cannot be read ({error.strerror or error}); {_HOW}") from error


def _read_archive(archive: zipfile.ZipFile, name: str) -> Saved:
    parts = _find_parts(archive, name)
    if REPORT not in parts:
        raise ReportError(f"{name}: holds no {REPORT}; {_HOW}")
    with archive.open(parts[REPORT]) as opened:
        text = _read(opened, name)
    # The report first: nothing is written for an archive that holds none.
    report = _parse(text, name)
    if PICTURES not in parts:
        return _make(text, report, None)
    pictures = fresh_path(PICTURES)
    try:
        with archive.open(parts[PICTURES]) as packed, pictures.open("wb") as kept:
            _copy(packed, kept, name)
        check_pictures(pictures)
    except BaseException:
        shutil.rmtree(pictures.parent)
        raise
    return _make(text, report, pictures)


def _find_parts(archive: zipfile.ZipFile, name: str) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive that are read, by name; a packed folder has its own name in front of them."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise ReportError(f"{name}: holds {len(entries)} files, which no report does; {_HOW}")
    parts: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        path = PurePosixPath(entry.filename)
        # Plots and report.html tell the same figures and are not looked at.
        if path.name not in (REPORT, PICTURES) or len(path.parts) > 2 or ".." in path.parts:
            continue
        if path.name in parts:
            raise ReportError(f"{name}: holds more than one {path.name}; give one report at a time.")
        parts[path.name] = entry
    return parts


def _read(opened: IO[bytes], name: str) -> bytes:
    text = opened.read(MAX_REPORT_BYTES + 1)
    if len(text) > MAX_REPORT_BYTES:
        raise ReportError(f"{name}: {REPORT} is larger than the {MAX_REPORT_BYTES / 1e6:.0f} MB allowed.")
    return text


def _copy(packed: IO[bytes], kept: IO[bytes], name: str) -> None:
    """Unpack no more than is allowed, whatever the archive says of itself."""
    left = MAX_PICTURES_BYTES
    while piece := packed.read(1 << 20):
        left -= len(piece)
        if left < 0:
            raise ReportError(f"{name}: {PICTURES} is larger than the {MAX_PICTURES_BYTES / 1e6:.0f} MB allowed.")
        kept.write(piece)


def _parse(text: bytes, name: str) -> Report:
    try:
        size = _Size.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where, reason = ".".join(map(str, first["loc"])) or "report", " ".join(first["msg"].split())
        raise ReportError(f"{name}: no report that Exhibit can read ({where}: {reason[:200]}).") from error
    if len(size.labels) * len(size.rows) > MAX_LABELS_TIMES_ROWS:
        raise ReportError(f"{name}: {len(size.labels)} labels for {len(size.rows)} rows are too many to compare here.")
    return parse_report(text, name)


def _make(text: bytes, report: Report, pictures: Path | None) -> Saved:
    return Saved(f"{UPLOADED}{hashlib.sha256(text).hexdigest()[:12]}", report, pictures)
