"""Where pictures lie: folders, patterns, archives, parquet files and buckets, listed in a fixed order.

Nothing is unpacked: a member of an archive is read into memory where it stands, so no path can leave it.
"""

from __future__ import annotations

import glob
import io
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow.parquet as pq
from pyarrow import ArrowException, fs

from models.errors import BadImageError, ExhibitError
from models.imaging import MAX_BYTES

ZIPS = (".zip",)
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Pictures are compressed already; what grows more than this in all is a bomb.
MAX_GROWTH = 200
GROWTH_FLOOR = 1_000_000_000
_BROKEN = (
    OSError,
    ValueError,
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    ArrowException,
)


@dataclass(frozen=True)
class Item:
    """One picture to score.

    Attributes:
        source: path or address of the file, or of the archive or parquet file that holds it.
        member: name in the archive, or row of the parquet file; empty for a file.
        offset: where its bytes begin in a tar (decompressed), or its header in a zip, since names may be there twice;
            -1 elsewhere.
        size: bytes, -1 if not known.
        problem: why it is not read; empty if it may be.
    """

    source: str
    member: str = ""
    offset: int = -1
    size: int = -1
    problem: str = ""

    @property
    def path(self) -> str:
        """What people read."""
        return f"{self.source}!{self.member}" if self.member else self.source


def list_items(inputs: list[str]) -> Iterator[Item]:
    """Every picture of the inputs, in an order that does not change.

    Raises:
        ExhibitError: an input does not exist, or a pattern finds nothing.
    """
    for given in inputs:
        for file in _files(given):
            yield from [file] if file.problem else _inside(file)


def _files(given: str) -> Iterator[Item]:
    if "://" in given:
        yield from _remote_files(given)
    elif glob.has_magic(given) and not Path(given).exists():
        found = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not found:
            raise ExhibitError(f"{given}: no file fits this pattern; correct it, or put it in quotes.")
        for path in found:
            yield from _walk(Path(path))
    elif Path(given).exists():
        yield from _walk(Path(given))
    else:
        raise ExhibitError(f"{given}: there is no such file or folder; correct the path.")


def _walk(path: Path) -> Iterator[Item]:
    if path.is_file():
        yield Item(str(path), size=path.stat().st_size)
        return
    for folder, names, files in os.walk(path):
        names.sort()
        for name in sorted(files):
            file = Path(folder, name)
            mode = file.lstat()
            problem = "" if stat.S_ISREG(mode.st_mode) else "is a link or no regular file; give the file itself"
            yield Item(str(file), size=mode.st_size, problem=problem)


def _remote_files(address: str) -> Iterator[Item]:
    try:
        system, path = fs.FileSystem.from_uri(address)
        found = system.get_file_info(path)
        if found.type == fs.FileType.NotFound:
            raise ExhibitError(f"{address}: there is nothing at this address; correct it.")
        files = [found] if found.is_file else system.get_file_info(fs.FileSelector(path, recursive=True))
    except (OSError, ValueError, ArrowException) as error:
        raise ExhibitError(f"{address}: cannot be listed ({_line(error)}); check address and credentials.") from error
    scheme = address.partition("://")[0]
    for info in sorted((one for one in files if one.is_file), key=lambda one: one.path):
        yield Item(f"{scheme}://{info.path}", size=info.size)


def _inside(file: Item) -> Iterator[Item]:
    """The pictures in a file: itself, or those it holds; a damaged container is one item with a problem."""
    name = file.source.casefold()
    listing = _zipped if name.endswith(ZIPS) else _tarred if name.endswith(TARS) else None
    listing = _tabled if name.endswith(".parquet") else listing
    if listing is None:
        yield file
        return
    try:
        yield from listing(file)
    except _BROKEN as error:
        yield Item(file.source, problem=f"the container is damaged or cut off ({_line(error)})")


def _zipped(file: Item) -> Iterator[Item]:
    with open_binary(file.source) as stream, zipfile.ZipFile(stream) as archive:
        members = [one for one in archive.infolist() if not one.is_dir()]
        grown, packed = sum(one.file_size for one in members), sum(one.compress_size for one in members)
        # Members that share bytes (a bomb without nesting) are together larger than the file.
        if packed > file.size or _bomb(grown, file.size):
            yield Item(file.source, problem="is a decompression bomb; it was not read")
            return
        for one in members:
            link = stat.S_ISLNK(one.external_attr >> 16)
            yield Item(file.source, one.filename, one.header_offset, one.file_size, _refusal(one.filename, link))


def _tarred(file: Item) -> Iterator[Item]:
    with open_binary(file.source) as stream, tarfile.open(fileobj=stream, mode="r:*") as archive:
        for one in archive:
            if _bomb(one.offset_data + one.size, file.size):
                yield Item(file.source, one.name, problem="is part of a decompression bomb; the rest was not read")
                return
            if not one.isdir():
                problem = _refusal(one.name, not one.isreg())
                yield Item(file.source, one.name, one.offset_data, one.size, problem)
            setattr(archive, "members", [])  # noqa: B010 - tarfile remembers every member; a million of them need not stay in memory


def _tabled(file: Item) -> Iterator[Item]:
    with open_binary(file.source) as stream:
        table = pq.ParquetFile(stream)
        if "image" not in table.schema_arrow.names:
            raise ValueError("it has no column `image`")
        yield from (Item(file.source, str(row)) for row in range(table.metadata.num_rows))


def _refusal(name: str, link: bool) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "its path leads out of the archive; it was not read"
    return "is a link or no regular file; it was not read" if link else ""


def _bomb(grown: int, packed: int) -> bool:
    return grown > max(GROWTH_FLOOR, MAX_GROWTH * packed)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def open_binary(source: str) -> IO[bytes]:
    """A seekable stream of a path or an address."""
    if "://" not in source:
        return Path(source).open("rb")
    system, path = fs.FileSystem.from_uri(source)
    stream: IO[bytes] = system.open_input_file(path)
    return stream


class Reader:
    """Bytes of items; keeps the latest container open, so that a compressed tar is read once from front to end."""

    def __init__(self) -> None:
        self._source = ""
        self._stream: IO[bytes] | None = None
        self._container: Any = None
        self._members: dict[int, zipfile.ZipInfo] = {}
        self._group: tuple[int, int, Any] = (0, 0, None)

    def read(self, item: Item) -> bytes:
        """The original bytes.

        Raises:
            BadImageError: they cannot be read.
        """
        if item.problem:
            raise BadImageError(f"{item.path}: {item.problem}.")
        if item.size > MAX_BYTES:
            raise BadImageError(f"{item.path}: more than {MAX_BYTES / 1e6:.0f} MB; it was not read.")
        try:
            return self._bytes(item)
        except (*_BROKEN, KeyError) as error:
            self.close()
            raise BadImageError(f"{item.path}: cannot be read ({_line(error)}).") from error

    def close(self) -> None:
        """Close what is open."""
        if self._stream is not None:
            self._stream.close()
        self._source, self._stream, self._container, self._members = "", None, None, {}
        self._group = (0, 0, None)

    def _bytes(self, item: Item) -> bytes:
        if not item.member:
            with open_binary(item.source) as stream:
                return stream.read(MAX_BYTES + 1)
        if self._source != item.source:
            self.close()
            self._stream = open_binary(item.source)
            self._container = self._opened(item, self._stream)
            self._source = item.source
        if isinstance(self._container, zipfile.ZipFile):
            with self._container.open(self._members[item.offset]) as member:
                return member.read(MAX_BYTES + 1)
        if isinstance(self._container, tarfile.TarFile):
            inner: Any = self._container.fileobj
            inner.seek(item.offset)
            data: bytes = inner.read(item.size)
            return data
        return self._cell(int(item.member))

    def _opened(self, item: Item, stream: IO[bytes]) -> Any:  # noqa: ANN401 - one of three libraries' classes
        name = item.source.casefold()
        if name.endswith(TARS):
            return tarfile.open(fileobj=stream, mode="r:*")
        if not name.endswith(ZIPS):
            return pq.ParquetFile(stream)
        archive = zipfile.ZipFile(stream)
        self._members = {one.header_offset: one for one in archive.infolist()}
        return archive

    def _cell(self, row: int) -> bytes:
        first, end, column = self._group
        if not first <= row < end:
            end = 0
            for group in range(self._container.num_row_groups):
                first, end = end, end + self._container.metadata.row_group(group).num_rows
                if row < end:
                    column = self._container.read_row_group(group, columns=["image"]).column("image")
                    break
            self._group = (first, end, column)
        value = column[row - first].as_py()
        value = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(value, bytes):
            raise ValueError("the row holds no picture bytes")  # noqa: TRY004 - told as any damage is
        return io.BytesIO(value).getvalue()
