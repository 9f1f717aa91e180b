"""From a folder to an index: only new and changed files are embedded, and what is gone from the folder is removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from threading import Event

from models.errors import ExhibitError
from rag.corpus import CorpusFile, Read, list_corpus
from rag.embedding import Embedder
from rag.index import Index, Row

__all__ = ["FILES_AT_ONCE", "Building", "build_index"]

FILES_AT_ONCE = 32
"""Files a version of the index: what a kill can cost, and about two batches of the encoders."""


@dataclass(frozen=True)
class Building:
    """How far a build is.

    Attributes:
        files: how many there are in the folder.
        seen: how many have been looked at.
        written: how many were new or changed, and are in the index now.
        unchanged: how many were in it already.
        removed: how many are no longer in the folder, or no longer readable, and left the index.
        problems: one line for each file that cannot be read.
        ignored: how many are of kinds that are not read.
        chunks: in the index, once it is done.
        done: whether it is.
    """

    files: int
    seen: int = 0
    written: int = 0
    unchanged: int = 0
    removed: int = 0
    problems: tuple[str, ...] = ()
    ignored: int = 0
    chunks: int = 0
    done: bool = False


def build_index(
    corpus: Path, address: str | Path, embedder: Embedder, cancel: Event | None = None
) -> Iterator[Building]:
    """Bring an index to what a folder holds now.

    What was written stays, whenever it is stopped or killed; the next build goes on from there.

    Args:
        corpus: the folder.
        address: folder or URL of the index; a new one is made where there is none.
        embedder: the same that the index was built with.
        cancel: set by another thread, ends it after the files in work.

    Yields:
        How far it is, after every ``FILES_AT_ONCE`` files; ``done`` with the last.

    Raises:
        CorpusError: the folder holds nothing to read.
        IndexUnusableError: the index is of other models, or is being written to, or cannot be.
    """
    listing = list_corpus(corpus)
    index = Index.create(address, embedder.origin)
    with index.writing():
        known = index.sources()
        gone = known.keys() - {file.id for file in listing.files}
        index.remove(gone)
        state = Building(len(listing.files), removed=len(gone), ignored=len(listing.ignored))
        yield state
        files = iter(listing.files)
        while batch := list(islice(files, FILES_AT_ONCE)):
            if cancel is not None and cancel.is_set():
                return
            state = _write(batch, index, known, embedder, state)
            yield state
        index.optimise()
        yield replace(state, chunks=len(index), done=True)


def _write(
    batch: Sequence[CorpusFile], index: Index, known: dict[str, str], embedder: Embedder, state: Building
) -> Building:
    """One version of the index from some files."""
    fresh: list[Read] = []
    old: list[str] = []
    problems: list[str] = []
    unchanged = removed = 0
    for file in batch:
        try:
            loaded = file.load()
            if known.get(file.id) == loaded.source.sha256:
                unchanged += 1
                continue
            fresh.append(loaded.parse())
        except ExhibitError as error:
            problems.append(str(error))
            removed += file.id in known
        if file.id in known:
            old.append(file.id)
    sources = [read.chunks[0].source for read in fresh]
    if fresh or old:
        index.replace([*old, *(source.id for source in sources)], _embed(fresh, embedder), known=bool(old))
    return replace(
        state,
        seen=state.seen + len(batch),
        written=state.written + len(fresh),
        unchanged=state.unchanged + unchanged,
        removed=state.removed + removed,
        problems=(*state.problems, *problems),
    )


def _embed(reads: Sequence[Read], embedder: Embedder) -> list[Row]:
    """All chunks with their vectors; each encoder is asked once."""
    chunks = [chunk for read in reads for chunk in read.chunks]
    texts = [f"{chunk.heading}\n{chunk.text}".strip() for chunk in chunks if chunk.text]
    pictures = iter(embedder.embed_pictures([read.rgb for read in reads if read.rgb is not None]))
    sentences = iter(embedder.sentences.embed(texts))
    return [
        Row(chunk, next(pictures) if chunk.picture else None, next(sentences) if chunk.text else None)
        for chunk in chunks
    ]
