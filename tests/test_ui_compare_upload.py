"""Strangers' reports: whatever an upload holds, it is read or refused in one line, and nothing of it is left behind."""

import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.reports import PICTURES as PICTURES_FILE
from models.reports import REPORT, ReportError, read_report
from tests.saved_reports import PICTURES, draw_picture, save_reports
from ui import compare_pictures, compare_upload
from ui.compare_pictures import read_thumbnails
from ui.compare_upload import read_upload


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_reports(tmp_path / "reports")


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Path:
    """Where files of visitors are kept."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return tmp_path / "gradio"


def write_pictures(file: Path, digests: list, images: list, **options) -> Path:
    columns = {"sha256": pa.array(digests), "image": pa.array(images)}
    pq.write_table(pa.table(columns), file, **options)
    return file


def test_pictures_too_large_or_broken_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_pictures, "MAX_PICTURE_BYTES", 100)
    file = write_pictures(tmp_path / "p.parquet", ["a", "b", "c"], [b"x" * 101, b"ok", None])
    assert read_thumbnails(file, ["a", "b", "c", "d"]) == {"b": b"ok"}
    assert compare_pictures.decode_thumbnail(b"no picture", "x") is None
    assert compare_pictures.decode_thumbnail(draw_picture(1, side=1100), "x") is None


def test_one_picture_repeated_a_million_times_does_not_fill_memory(tmp_path):
    file = tmp_path / "p.parquet"
    indices = pa.array([0] * 200_000, pa.int32())
    columns = {
        "sha256": pa.DictionaryArray.from_arrays(indices, pa.array(["a"])),
        "image": pa.DictionaryArray.from_arrays(indices, pa.array([b"x" * 900_000])),
    }  # 180 GB if it were laid out
    pq.write_table(pa.table(columns), file, store_schema=False)
    assert file.stat().st_size < 10_000_000
    assert read_thumbnails(file, ["missing"]) == {}


def test_digest_that_is_a_book_is_refused(tmp_path):
    with pytest.raises(ReportError, match="is damaged"):
        read_thumbnails(write_pictures(tmp_path / "p.parquet", ["a" * 65], [b""]), ["a"])


# Uploads


def pack(path: Path, entries: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def parts(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_report_is_brought_as_json_and_as_archive(folder, tmp_path, uploads):
    report = read_report(folder / "tuned")
    alone = read_upload(folder / "tuned" / REPORT, REPORT)
    assert (alone.report, alone.pictures) == (report, None)
    content = parts(folder / "tuned")
    for prefix in ("", "my report/"):
        entries = {f"{prefix}{name}": data for name, data in content.items()}
        packed = pack(tmp_path / "a.zip", entries | {f"{prefix}report.html": b"<html>", f"{prefix}confusion.png": b""})
        saved = read_upload(packed, "a.zip")
        assert (saved.report, saved.key) == (report, alone.key)
        assert saved.thumbnails(list(PICTURES)[:2]) == dict(list(PICTURES.items())[:2])


def rewritten(folder: Path, **changes) -> bytes:
    return json.dumps(json.loads((folder / "tuned" / REPORT).read_bytes()) | changes).encode()


HOSTILE = {
    "nothing": (lambda f: b"", "no report that Exhibit can read"),
    "no JSON": (lambda f: b"\x89PNG\r\n", "no report that Exhibit can read"),
    "nested": (lambda f: b"[" * 200_000, "no report that Exhibit can read"),
    "not a number": (lambda f: b'{"rows": NaN}', "no report that Exhibit can read"),
    "a lie": (lambda f: rewritten(f, labels=["x", "y"]), "no report that Exhibit can read"),
    "many labels": (lambda f: rewritten(f, labels=["x"] * 101), "labels"),
    "long name": (lambda f: rewritten(f, name="x" * 201), "name"),
    "many figures": (lambda f: rewritten(f, figures={str(n): None for n in range(101)}), "figures"),
    "too large": (lambda f: b" " * 2001, "larger than"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_json_is_one_line(case, folder, tmp_path, uploads, monkeypatch):
    make, said = HOSTILE[case]
    if case == "too large":
        monkeypatch.setattr(compare_upload, "MAX_REPORT_BYTES", 2000)
    file = tmp_path / "upload"
    file.write_bytes(make(folder))
    with pytest.raises(ReportError, match=said) as raised:
        read_upload(file, "../../etc/<b>\nmine.json")
    assert str(raised.value).startswith("<b> mine.json: ")
    assert "\n" not in str(raised.value)
    assert "etc" not in str(raised.value)
    assert not list(uploads.rglob("*.*"))


def hostile_archives(content: dict[str, bytes]) -> dict[str, tuple[dict[str, bytes], str]]:
    report, pictures = content[REPORT], content[PICTURES_FILE]
    return {
        "no report": ({PICTURES_FILE: pictures}, "holds no report.json"),
        "outside": ({"../report.json": report}, "holds no report.json"),
        "absolute": ({"/tmp/report.json": report}, "holds no report.json"),
        "deep": ({"a/b/report.json": report}, "holds no report.json"),
        "twice": ({REPORT: report, f"a/{REPORT}": report}, "more than one report.json"),
        "other report": ({REPORT: b"{}", PICTURES_FILE: pictures}, "no report that Exhibit can read"),
        "no parquet": ({REPORT: report, PICTURES_FILE: b"PAR1 no"}, "is damaged"),
        "many": ({REPORT: report} | {str(n): b"" for n in range(1001)}, "1002 files"),
    }


@pytest.mark.parametrize("case", hostile_archives({REPORT: b"", PICTURES_FILE: b""}))
def test_hostile_archive_is_one_line_and_leaves_nothing(case, folder, tmp_path, uploads):
    entries, said = hostile_archives(parts(folder / "tuned"))[case]
    with pytest.raises(ReportError, match=said):
        read_upload(pack(tmp_path / "a.zip", entries), "a.zip")
    assert not list(uploads.rglob("*.*"))
    assert not (tmp_path / REPORT).exists()


def test_archive_is_measured_while_it_is_read(folder, tmp_path, uploads, monkeypatch):
    content = parts(folder / "tuned")
    packed = pack(tmp_path / "a.zip", content, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(compare_upload, "MAX_PICTURES_BYTES", len(content[PICTURES_FILE]) - 1)
    with pytest.raises(ReportError, match=r"pictures\.parquet is larger"):
        read_upload(packed, "a.zip")
    monkeypatch.setattr(compare_upload, "MAX_REPORT_BYTES", len(content[REPORT]) - 1)
    with pytest.raises(ReportError, match=r"report\.json is larger"):
        read_upload(packed, "a.zip")
    assert not list(uploads.rglob("*.*"))


@pytest.mark.parametrize(
    "columns", [{"sha256": [1], "image": [b""]}, {"image": [b""]}, {"sha256": ["a"], "image": [1]}]
)
def test_pictures_of_another_form_are_refused(columns, folder, tmp_path, uploads):
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    content = parts(folder / "tuned") | {PICTURES_FILE: buffer.getvalue()}
    with pytest.raises(ReportError, match="needs the columns"):
        read_upload(pack(tmp_path / "a.zip", content), "a.zip")


def test_damaged_archives_are_refused_wherever_they_are_damaged(folder, tmp_path, uploads):
    content = {REPORT: (folder / "tuned" / REPORT).read_bytes()}
    whole = pack(tmp_path / "whole.zip", content, compression=zipfile.ZIP_DEFLATED).read_bytes()
    file, refused = tmp_path / "broken.zip", 0
    for place in [*range(60), *range(60, len(whole), 29), *range(len(whole) - 90, len(whole))]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_upload(file, "broken.zip")
        except ReportError as error:
            refused += 1
            assert "broken.zip" in str(error)
    assert refused > 50


def test_encrypted_archive_is_refused(folder, tmp_path, uploads):
    packed = pack(tmp_path / "a.zip", {REPORT: b"{}"})
    data = bytearray(packed.read_bytes())
    data[6] |= 1  # the flag in both headers
    data[data.index(b"PK\x01\x02") + 8] |= 1
    packed.write_bytes(data)
    with pytest.raises(ReportError, match="cannot be read"):
        read_upload(packed, "a.zip")
