"""Find copies and near copies of pictures.

Duplicates are found exactly by SHA-256 of the bytes, and nearly by two perceptual hashes (``imagehash``: pHash and
dHash). Pictures joined by either relation, or by something known about them, form a group (connected components).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from models.errors import BadImageError
from models.imaging import read_image
from training.decoding import decode_each
from training.errors import DataError
from training.picture_table import PictureTable

logger = logging.getLogger(__name__)

# Of 64 bits each. A re-encoded or resized copy differs in 0-4; two different aligned faces almost never in both.
MAX_PHASH_BITS = 6
MAX_DHASH_BITS = 6


@dataclass(frozen=True)
class Fingerprints:
    """What tells a copy: one row per picture.

    Attributes:
        sha256: hex digests of the original bytes.
        phash: uint64 (n,), DCT hash.
        dhash: uint64 (n,), gradient hash.
    """

    sha256: tuple[str, ...]
    phash: NDArray[np.uint64]
    dhash: NDArray[np.uint64]

    def take(self, keep: NDArray[np.intp]) -> Fingerprints:
        """Those of some pictures only."""
        return Fingerprints(tuple(self.sha256[i] for i in keep), self.phash[keep], self.dhash[keep])


def fingerprint(table: PictureTable, title: str) -> tuple[PictureTable, Fingerprints, list[str]]:
    """Hash every picture.

    Args:
        table: the pictures.
        title: what the progress bar says.

    Returns:
        The table of those that can be read, their hashes, and one line for each that cannot.

    Raises:
        DataError: if none can be read.
    """
    named = dict(zip(reversed(table.places.tolist()), reversed(table.sources), strict=True))

    def decode(index: int) -> tuple[str, tuple[int, int]] | str:
        try:
            image = read_image(table.pictures[index], name=named[index])
        except BadImageError as error:
            return str(error)
        return image.sha256, (_to_int(imagehash.phash(image.rgb)), _to_int(imagehash.dhash(image.rgb)))

    readable: list[int] = []
    digests: list[str] = []
    hashes: list[tuple[int, int]] = []
    unreadable: list[str] = []
    for index, found in enumerate(decode_each(len(table.pictures), decode, title)):
        if isinstance(found, str):
            logger.warning("left out: %s", found)
            unreadable.append(found)
            continue
        readable.append(index)
        digests.append(found[0])
        hashes.append(found[1])
    if not readable:
        raise DataError("none of the pictures can be read; the first says: " + unreadable[0])
    hashed = np.array(hashes, dtype=np.uint64)
    return table.take(readable), Fingerprints(tuple(digests), hashed[:, 0], hashed[:, 1]), unreadable


def _to_int(value: imagehash.ImageHash) -> int:
    return int(str(value), 16)


def _near(prints: Fingerprints, others: Fingerprints, rows: slice) -> NDArray[np.bool_]:
    """(rows, others) True where both perceptual hashes agree within their bounds."""
    p_bits = np.bitwise_count(prints.phash[rows, None] ^ others.phash[None, :])
    d_bits = np.bitwise_count(prints.dhash[rows, None] ^ others.dhash[None, :])
    near: NDArray[np.bool_] = (p_bits <= MAX_PHASH_BITS) & (d_bits <= MAX_DHASH_BITS)
    return near


def _row_blocks(count: int, block: int = 512) -> Iterable[slice]:
    return (slice(start, min(start + block, count)) for start in range(0, count, block))


def group_duplicates(prints: Fingerprints, keys: Iterable[tuple[int, str]] = ()) -> NDArray[np.int32]:
    """Group number (n,) of each picture; copies and near copies share one.

    The relation is closed under union: if A resembles B and B resembles C, all three are one group.

    Args:
        prints: hashes of the pictures.
        keys: (picture, key) of pictures that belong together because they have a key in common; a picture's own
            SHA-256 is a key too.
    """
    count = len(prints.sha256)
    first: dict[str, int] = {}
    known = [*enumerate(prints.sha256), *keys]
    pairs = [(first.setdefault(key, index), index) for index, key in known]
    left, right = [np.array([a for a, _ in pairs])], [np.array([b for _, b in pairs])]
    for rows in _row_blocks(count):
        near_rows, near_columns = np.nonzero(_near(prints, prints, rows))
        left.append(near_rows + rows.start)
        right.append(near_columns)
    edges = (np.concatenate(left), np.concatenate(right))
    graph = coo_matrix((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(count, count))
    groups: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return groups


def find_copies(prints: Fingerprints, held_out: Fingerprints) -> NDArray[np.bool_]:
    """(n,) True for each picture that duplicates, exactly or nearly, a held-out one."""
    known = set(held_out.sha256)
    copies = np.array([digest in known for digest in prints.sha256], dtype=bool)
    for rows in _row_blocks(len(prints.sha256)):
        copies[rows] |= _near(prints, held_out, rows).any(axis=1)
    return copies
