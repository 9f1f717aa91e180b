"""A folder of pictures, text, Markdown, PDF and HTML as chunks that can be found and cited.

A picture may have captions beside it: ``photo.txt``, ``photo.jpg.txt`` or ``photo.caption`` with one a line.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from models.clip_texts import split_text
from models.errors import ExhibitError
from models.imaging import MAX_BYTES, read_image
from rag.documents import Passage, decode, read_html, read_markdown, read_pdf, read_text
from rag.schema import Chunk, Source, SourceKind
from rag.sentences import split_sentences

__all__ = ["CorpusError", "CorpusFile", "Listing", "Loaded", "Read", "list_corpus"]

MOST_CHARACTERS = 700
"""Of a chunk: some 200 tokens, what the sentence encoder was made for, and a passage one can read at a glance."""
PREVIEW_SIDE_PX = 640

_CAPTION_SUFFIXES = (".txt", ".caption")
_PICTURES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")
_KINDS: Mapping[str, SourceKind] = MappingProxyType(
    {
        **dict.fromkeys(_PICTURES, "image"),
        **dict.fromkeys((".txt", ".text"), "text"),
        **dict.fromkeys((".md", ".markdown"), "markdown"),
        **dict.fromkeys((".html", ".htm", ".xhtml"), "html"),
        ".pdf": "pdf",
    }
)


class CorpusError(ExhibitError):
    """A folder or a document cannot be read; the message names it."""


@dataclass(frozen=True)
class Loaded:
    """The bytes of one file, read once, so that what is hashed is what is parsed.

    Attributes:
        source: with the hash of the bytes below.
        data: of the file.
        captions: of the files with its captions.
    """

    source: Source
    data: bytes = field(repr=False)
    captions: tuple[bytes, ...] = field(default=(), repr=False)

    def parse(self) -> Read:
        """The chunks of the file.

        Raises:
            BadImageError: a picture cannot be decoded.
            CorpusError: a document cannot be read, or says nothing.
        """
        if self.source.kind == "image":
            return self._parse_picture()
        passages = _parse_document(self.source, self.data)
        cut = ((passage, part) for passage in passages for part in _cut(passage.text))
        chunks = tuple(
            Chunk(self.source, number, part, passage.heading, passage.page)
            for number, (passage, part) in enumerate(cut)
        )
        if not chunks:
            remedy = "scanned pages need a text layer (OCR)" if self.source.kind == "pdf" else "nothing to find in it"
            raise CorpusError(f"{self.source.id}: holds no text; {remedy}.")
        return Read(chunks)

    def _parse_picture(self) -> Read:
        rgb = read_image(self.data, self.source.id).rgb
        lines = [line.strip() for data in self.captions for line in _decoded(self.source.id, data).splitlines()]
        text = "\n".join(dict.fromkeys(filter(None, lines)))
        return Read((Chunk(self.source, 0, text, picture=_preview(rgb)),), rgb)


@dataclass(frozen=True)
class Read:
    """What a file holds.

    Attributes:
        chunks: in their order; one for a picture.
        rgb: the picture itself, full size; None for a document.
    """

    chunks: tuple[Chunk, ...]
    rgb: Image.Image | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CorpusFile:
    """A file that can be read.

    Attributes:
        id: path within the corpus, its parts joined by ``/``.
        path: where it lies.
        kind: what it will be read as.
        captions: the files with its captions.
    """

    id: str
    path: Path
    kind: SourceKind
    captions: tuple[Path, ...] = ()

    def load(self) -> Loaded:
        """The file's bytes and their hash.

        Raises:
            CorpusError: it cannot be read, or is too large.
        """
        data = _read_bytes(self.path, self.id)
        captions = tuple(_read_bytes(path, self.id) for path in self.captions)
        digest = hashlib.sha256(data)
        for part in captions:
            digest.update(b"\0caption\0" + part)
        return Loaded(Source(self.id, self.kind, digest.hexdigest()), data, captions)


@dataclass(frozen=True)
class Listing:
    """The files of a corpus.

    Attributes:
        files: that can be read, sorted by id.
        ignored: ids of those whose suffix says that they cannot.
    """

    files: tuple[CorpusFile, ...]
    ignored: tuple[str, ...]


def list_corpus(root: Path) -> Listing:
    """The files below a folder, without reading any. Hidden ones, and links that lead out of it, do not count.

    Raises:
        CorpusError: there is no such folder, or nothing in it can be read.
    """
    if not root.is_dir():
        raise CorpusError(f"{root}: there is no such folder; give one with pictures or documents.")
    paths = {path.relative_to(root).as_posix(): path for path in _walk(root)}
    kinds = {name: _KINDS[path.suffix.lower()] for name, path in paths.items() if path.suffix.lower() in _KINDS}
    captions = {name: _captions(path, paths, root) for name, path in paths.items() if kinds.get(name) == "image"}
    taken = {caption for found in captions.values() for caption in found}
    files = tuple(
        CorpusFile(name, paths[name], kind, captions.get(name, ()))
        for name, kind in sorted(kinds.items())
        if paths[name] not in taken
    )
    if not files:
        raise CorpusError(f"{root}: holds no picture, text, Markdown, PDF or HTML file.")
    ignored = sorted(name for name, path in paths.items() if name not in kinds and path not in taken)
    return Listing(files, tuple(ignored))


def _walk(root: Path) -> Iterator[Path]:
    base = root.resolve()
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        # An index may lie inside the corpus that it is of.
        if any(part.startswith(".") or part.endswith(".lance") for part in parts) or not path.is_file():
            continue
        if path.resolve().is_relative_to(base):
            yield path


def _captions(path: Path, paths: Mapping[str, Path], root: Path) -> tuple[Path, ...]:
    beside = [path.with_name(path.name + suffix) for suffix in _CAPTION_SUFFIXES]
    beside += [path.with_suffix(suffix) for suffix in _CAPTION_SUFFIXES]
    return tuple(one for one in beside if one.relative_to(root).as_posix() in paths)


def _read_bytes(path: Path, name: str) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CorpusError(f"{name}: {path.stat().st_size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read.")
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{name}: cannot be read ({error.strerror}).") from error


def _parse_document(source: Source, data: bytes) -> list[Passage]:
    try:
        if source.kind == "pdf":
            return read_pdf(data)
        if source.kind == "html":
            return read_html(data)
        return (read_markdown if source.kind == "markdown" else read_text)(decode(data))
    except ExhibitError as error:
        raise CorpusError(f"{source.id}: {error}") from error
    except Exception as error:
        # Parsers raise nearly every built-in error on damaged files; all of them mean the same to a person.
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise CorpusError(f"{source.id}: the file is damaged ({detail}); get it again.") from error


def _decoded(name: str, data: bytes) -> str:
    try:
        return decode(data)
    except ExhibitError as error:
        raise CorpusError(f"{name}: its captions: {error}") from error


def _cut(text: str) -> Iterator[str]:
    """A passage as pieces of at most ``MOST_CHARACTERS``, parted between sentences where there are any."""
    start = end = 0
    for first, last in split_sentences(text):
        if last - start > MOST_CHARACTERS and end > start:
            yield from split_text(_spaced(text[start:end]), len, MOST_CHARACTERS)
            start = first
        end = last
    if text[start:end].strip():
        yield from split_text(_spaced(text[start:end]), len, MOST_CHARACTERS)


def _spaced(text: str) -> str:
    """One space where there were several; paragraphs stay apart by one line break."""
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text)).strip()


def _preview(rgb: Image.Image) -> bytes:
    small = rgb.copy()
    small.thumbnail((PREVIEW_SIDE_PX, PREVIEW_SIDE_PX))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return file.getvalue()
