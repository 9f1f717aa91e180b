"""Listing and reading: nothing leaves an archive, nothing is lost, and bytes come back as they were put in."""

import io
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulk.sources import Item, Reader, list_items
from models.errors import BadImageError, ExhibitError

DATA = [bytes([number]) * (number + 1) for number in range(5)]


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def _read_all(path) -> list[bytes]:
    reader = Reader()
    return [reader.read(item) for item in list_items([str(path)])]


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_tar_gives_its_bytes_back_forwards_and_backwards(tmp_path, suffix):
    path = tmp_path / f"seized{suffix}"
    with tarfile.open(path, f"w:{suffix[5:]}") as archive:
        for number, data in enumerate(DATA):
            _add(archive, f"{number}.jpg", data)
    assert _read_all(path) == DATA
    reader = Reader()
    assert [reader.read(item) for item in reversed(list(list_items([str(path)])))] == DATA[::-1]


def test_zip_gives_its_bytes_back(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number, data in enumerate(DATA):
            archive.writestr(f"{number}.jpg", data)
    assert _read_all(tmp_path / "a.zip") == DATA


@pytest.mark.parametrize("wrapped", [True, False])
def test_parquet_gives_its_bytes_back_across_row_groups(tmp_path, wrapped):
    column = [{"bytes": data, "path": None} for data in DATA] if wrapped else DATA
    pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet", row_group_size=2)
    assert _read_all(tmp_path / "a.parquet") == DATA
    assert Reader().read(Item(str(tmp_path / "a.parquet"), "3")) == DATA[3]


def test_address_of_a_file_system_is_read_like_a_folder(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"one")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("c.jpg", b"two")
    assert _read_all(f"file://{tmp_path}") == [b"one", b"two"]


def test_links_and_paths_that_lead_out_are_told_and_never_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = tmp_path / "in" / "evil.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as archive:
        _add(archive, "../out.jpg", b"x")
        _add(archive, "/etc/out.jpg", b"x")
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        archive.addfile(link)
        _add(archive, "good.jpg", b"good")
    (path.parent / "link.jpg").symlink_to(secret)
    items = list(list_items([str(path.parent)]))
    assert [bool(item.problem) for item in items] == [True, True, True, False, True]
    for item in items[:3]:
        with pytest.raises(BadImageError):
            Reader().read(item)
    assert Reader().read(items[3]) == b"good"


def test_bomb_is_one_item_with_a_problem(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", b"x")
        info = archive.infolist()[0]
        info.file_size = 0xFFFFFFF0  # the directory claims 4 GiB
    (item,) = list_items([str(path)])
    assert "bomb" in item.problem


def test_damaged_container_is_an_item_with_a_problem(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK no zip")
    (tmp_path / "b.tar").write_bytes(b"no tar")
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    items = list(list_items([str(tmp_path)]))
    assert len(items) == 3
    assert all("damaged" in item.problem for item in items)


def test_same_order_every_time_and_patterns(tmp_path):
    for name in ("b.jpg", "a.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"x")
    names = [item.path.rpartition("/")[2] for item in list_items([str(tmp_path)])]
    assert names == ["a.jpg", "b.jpg", "c.txt"]
    assert len(list(list_items([f"{tmp_path}/*.jpg"]))) == 2


@pytest.mark.parametrize("name", ["missing", "*.png", "file:///nowhere-at-all"])
def test_input_that_is_not_there_is_refused(tmp_path, name):
    given = name if "://" in name else str(tmp_path / name)
    with pytest.raises(ExhibitError):
        list(list_items([given]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_duplicates_in_an_archive_are_each_read_and_an_empty_one_has_nothing(tmp_path, suffix):
    full, empty = tmp_path / f"twice{suffix}", tmp_path / f"empty{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(full, "w") as archive:
            archive.writestr("a.jpg", b"first")
            archive.writestr("a.jpg", b"second")
        zipfile.ZipFile(empty, "w").close()
    else:
        with tarfile.open(full, "w") as archive:
            _add(archive, "a.jpg", b"first")
            _add(archive, "a.jpg", b"second")
        tarfile.open(empty, "w").close()
    assert _read_all(full) == [b"first", b"second"]
    assert _read_all(empty) == []


def test_zip_that_overlaps_itself_and_tar_that_grows_are_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr("bulk.sources.GROWTH_FLOOR", 100_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", bytes(10_000_000))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        _add(archive, "first.jpg", b"good")
        _add(archive, "zeros.jpg", bytes(10_000_000))
        _add(archive, "last.jpg", b"never read")
    zipped, first, bomb = list_items([str(tmp_path)])
    assert "bomb" in zipped.problem
    assert Reader().read(first) == b"good"
    assert "bomb" in bomb.problem
