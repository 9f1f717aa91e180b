"""How fast and how completely evidence is found: an index of a million vectors against comparing with every one.

The vectors are drawn: clusters and spectra are those of real embeddings of photographs, since random directions would
flatter or spoil an index that lives on clusters.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.report import Figure, median
from models.clip import ImageTextModel
from rag.index import Index, Origin, Row
from rag.schema import Chunk, Source

__all__ = ["VECTORS", "draw_vectors", "search_figures"]

VECTORS, WIDTH = 1_000_000, 512
QUERIES, DEPTH = 100, 10
ADDED = 10_000  # vectors that come to an index that is there
_AT_ONCE = 20_000
_REAL_CLUSTERS = 24
_MEMBERS = 250  # vectors that a drawn cluster has on average
_SPACE_GB = 6


def search_figures(clip: ImageTextModel, photos: Sequence[Image.Image], count: int = VECTORS) -> list[Figure]:
    """Recall, time against a full scan, and the throughput of building.

    Args:
        clip: its vectors of ``photos`` are what the drawn ones are modelled on.
        photos: a hundred or more.
        count: vectors in the index.
    """
    folder = Path(tempfile.mkdtemp(prefix="exhibit-search-"))
    try:
        free = shutil.disk_usage(folder).free / 1e9
        if free < _SPACE_GB * count / VECTORS:
            raise OSError(f"{folder}: {free:.0f} GB free, {_SPACE_GB} GB are needed; set TMPDIR to a larger disk")
        return _measure(clip.embed_images(photos), folder, count)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def draw_vectors(real: NDArray[np.float32], count: int, width: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Vectors of length 1 with the clusters and the spectra of real ones, in batches (n, width), always the same.

    Args:
        real: float32 (m, d), vectors to imitate.
        count: how many to draw.
        width: their length; the spectra are stretched to it.
        seed: of the drawing.
    """
    from sklearn.cluster import KMeans

    random = np.random.default_rng(seed)
    groups = KMeans(min(_REAL_CLUSTERS, len(real) // 4), n_init=3, random_state=seed).fit(real)
    between = _spectrum(groups.cluster_centers_ - real.mean(0), width)
    within = _spectrum(real - groups.cluster_centers_[groups.labels_], width)
    centres = random.normal(size=(max(count // _MEMBERS, 2), width)).astype(np.float32) * between
    centres[:, 0] += float(np.linalg.norm(real.mean(0)))  # what all of them share
    shares = random.dirichlet(np.full(len(centres), 2.0))  # some clusters are larger than others
    for start in range(0, count, _AT_ONCE):
        some = min(_AT_ONCE, count - start)
        own = random.choice(len(centres), some, p=shares)
        batch = centres[own] + random.standard_normal((some, width), dtype=np.float32) * within
        yield (batch / np.linalg.norm(batch, axis=1, keepdims=True)).astype(np.float32)


def _spectrum(rows: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Standard deviations along the principal axes, the largest first, stretched to a width at the same variance."""
    values = np.linalg.svd(rows - rows.mean(0), compute_uv=False) ** 2 / max(len(rows) - 1, 1)
    stretched = np.interp(np.linspace(0, len(values) - 1, width), np.arange(len(values)), values)
    scaled: NDArray[np.float32] = np.sqrt(stretched * values.sum() / stretched.sum()).astype(np.float32)
    return scaled


def _measure(real: NDArray[np.float32], folder: Path, count: int) -> list[Figure]:
    index = Index.create(folder / "index", Origin("drawn", "", WIDTH, "none", 8))
    sample: list[NDArray[np.float32]] = []
    started = perf_counter()
    written = 0
    for batch in draw_vectors(real, count, WIDTH):
        index.replace((), _rows(batch, written), known=False)
        written += len(batch)
        sample.append(batch[:: max(count // (_AT_ONCE * 10), 1)][:20])
    written_s = perf_counter() - started
    index.optimise()
    built_s = perf_counter() - started
    random = np.random.default_rng(1)
    pool = np.concatenate(sample)
    queries = pool[random.choice(len(pool), QUERIES, replace=len(pool) < QUERIES)]
    # A query is near what it seeks, not equal to it.
    queries = queries + 0.3 * random.standard_normal(queries.shape, dtype=np.float32) / WIDTH**0.5
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    recall, fast, slow = _search(index, queries)
    extra = next(draw_vectors(real, ADDED, WIDTH, seed=2))
    started = perf_counter()
    index.replace((), _rows(extra[:ADDED], written), known=False)
    index.optimise()
    added_s = perf_counter() - started
    shown = f"{count} drawn vectors of {WIDTH}, {QUERIES} queries, {DEPTH} results"
    return [
        Figure("search_recall", recall, 0.95, "higher", f"{shown}: share of the exact results that are found"),
        Figure(
            "search_over_scan",
            median([one / other for one, other in zip(fast, slow, strict=True)]),
            1 / 20,
            "lower",
            f"{shown}: time of a search over comparing with every vector, both by the index "
            f"({1000 * median(fast):.1f} ms, {1000 * median(slow):.0f} ms)",
        ),
        Figure(
            "index_build_per_s",
            count / built_s,
            None,
            "higher",
            f"vectors a second, written and indexed ({written_s:.0f} s to write, {built_s - written_s:.0f} s to index)",
        ),
        Figure(
            "index_added_per_s",
            ADDED / added_s,
            None,
            "higher",
            f"vectors a second that come to an index of {count}, optimised afterwards",
        ),
    ]


def _search(index: Index, queries: NDArray[np.float32]) -> tuple[float, list[float], list[float]]:
    """Share of exact results found, and the seconds of each search, approximate and exact in turn."""
    found: list[float] = []
    fast, slow = [], []
    index.search_vector("picture", queries[0], DEPTH)
    index.search_vector("picture", queries[0], DEPTH, exact=True)
    for query in queries:
        started = perf_counter()
        near = {one.chunk.id for one in index.search_vector("picture", query, DEPTH)}
        middle = perf_counter()
        exact = {one.chunk.id for one in index.search_vector("picture", query, DEPTH, exact=True)}
        fast.append(middle - started)
        slow.append(perf_counter() - middle)
        found.append(len(near & exact) / len(exact))
    return float(np.mean(found)), fast, slow


def _rows(vectors: NDArray[np.float32], first: int) -> list[Row]:
    return [
        Row(Chunk(Source(f"{first + at}.jpg", "image", ""), 0, ""), vector, None) for at, vector in enumerate(vectors)
    ]
