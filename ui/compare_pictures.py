"""The small pictures of a report, which may be a stranger's: only what is asked for is read, and never much at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import BadImageError
from models.imaging import SourceImage, read_image
from models.reports import ReportError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# A thumbnail of 256 px takes some 20 kB.
MAX_PICTURE_BYTES = 1_000_000
MAX_SIDE_PX = 1024
MAX_PICTURES = 200_000
MAX_UNPACKED_BYTES = 2_000_000_000
_AT_ONCE = 64
DIGEST_LENGTH = 64
_COLUMNS = ("sha256", "image")
_NEEDS = "needs the columns sha256 (text) and image (bytes)."


def check_pictures(file: Path) -> None:
    """See that a ``pictures.parquet`` is what it should be, from its own table of contents.

    Raises:
        ReportError: it is damaged, holds other columns, or is too large.
    """
    import pyarrow as pa

    with _open(file) as opened:
        types = {entry.name: entry.type for entry in opened.schema_arrow if entry.name in _COLUMNS}
        if set(types) != set(_COLUMNS) or not all(map(pa.types.is_dictionary, types.values())):
            raise ReportError(f"{file.name}: {_NEEDS}")
        contents = opened.metadata
        unpacked = sum(contents.row_group(number).total_byte_size for number in range(contents.num_row_groups))
        if contents.num_rows > MAX_PICTURES or unpacked > MAX_UNPACKED_BYTES:
            raise ReportError(
                f"{file.name}: {contents.num_rows} pictures of {unpacked / 1e6:.0f} MB are more than the "
                f"{MAX_PICTURES} of {MAX_UNPACKED_BYTES / 1e6:.0f} MB allowed."
            )


def read_thumbnails(file: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """The pictures with these digests, as they are stored; those that are missing or too large are left out.

    Raises:
        ReportError: the file is damaged.
    """
    import pyarrow as pa

    missing = set(wanted)
    found: dict[str, bytes] = {}
    with _open(file) as opened:
        try:
            for batch in opened.iter_batches(batch_size=_AT_ONCE, columns=list(_COLUMNS), use_threads=False):
                for number, digest in enumerate(_read_digests(batch)):
                    if digest in missing:
                        missing.discard(digest)
                        image = batch["image"][number].value
                        if image.is_valid and image.as_buffer().size <= MAX_PICTURE_BYTES:
                            found[digest] = image.as_py()
                if not missing:
                    break
        except (OSError, pa.ArrowException) as error:
            raise _damaged(file, error) from error
    return found


def decode_thumbnail(data: bytes, name: str) -> SourceImage | None:
    """A stored picture, checked like every other; ``None`` where it is none, or larger than a small picture is."""
    try:
        source = read_image(data, name)
    except BadImageError:
        return None
    return source if max(source.size_wh) <= MAX_SIDE_PX else None


def _read_digests(batch: pa.RecordBatch) -> list[str | None]:
    """The digests of a few rows; a text that is too long for one would be copied for each of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digests = batch["sha256"]
    if (pc.max(pc.binary_length(digests.dictionary)).as_py() or 0) > DIGEST_LENGTH:
        raise pa.ArrowInvalid("a digest is too long")
    return list(digests.to_pylist())


def _open(file: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # As dictionaries: one picture that is repeated a million times stays one picture in memory.
        return pq.ParquetFile(file, read_dictionary=list(_COLUMNS))
    except KeyError as error:
        raise ReportError(f"{file.name}: {_NEEDS}") from error
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> ReportError:
    reason = " ".join(str(error).split())[:200]
    return ReportError(f"{file.name}: is damaged ({reason}); take it from the report's folder again.")
