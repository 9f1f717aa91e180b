"""Documents as passages of plain text with the headings above them."""

from __future__ import annotations

import codecs
import io
import re
from dataclasses import dataclass

from models.errors import ExhibitError

__all__ = ["Passage", "decode", "read_html", "read_markdown", "read_pdf", "read_text"]

MOST_PAGES = 5000
_BETWEEN = " › "
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_SILENT_TAGS = ("script", "style", "noscript", "template", "svg", "iframe", "object")
_BLOCKS = (
    *("address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "figcaption", "figure", "footer"),
    *("form", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul"),
)
_SIXTEEN_BITS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Passage:
    """A stretch of a document under one heading.

    Attributes:
        text: plain; paragraphs apart by blank lines.
        heading: the headings above it, outermost first.
        page: of a PDF, from 1.
    """

    text: str
    heading: str = ""
    page: int | None = None


def decode(data: bytes) -> str:
    """Bytes as text: UTF-8, or UTF-16 where its mark says so.

    Raises:
        ExhibitError: it is neither.
    """
    try:
        text = data.decode("utf-16" if data.startswith(_SIXTEEN_BITS) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExhibitError("is no UTF-8 text; save it as UTF-8.") from error
    if "\0" in text:
        raise ExhibitError("is no text but binary data.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(text: str) -> list[Passage]:
    """Plain text as one passage."""
    return [Passage(text)]


def read_markdown(text: str) -> list[Passage]:
    """Markdown by its headings (``#`` and underlined ones); code keeps its lines, front matter is left out."""
    passages: list[Passage] = []
    above: dict[int, str] = {}
    lines: list[str] = []
    fence = ""

    def close() -> None:
        if any(line.strip() for line in lines):
            passages.append(Passage("\n".join(lines), _BETWEEN.join(above[level] for level in sorted(above))))
        lines.clear()

    def open_section(level: int, title: str) -> None:
        close()
        for deeper in [each for each in above if each >= level]:
            del above[deeper]
        above[level] = title

    for line in _FRONT_MATTER.sub("", text).split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            continue
        heading = None if fence else _ATX.match(line)
        underline = None if fence else _SETEXT.match(line)
        if heading:
            open_section(len(heading[1]), heading[2])
        elif underline and lines and lines[-1].strip() and (len(lines) < 2 or not lines[-2].strip()):
            title = lines.pop().strip()
            open_section(1 if "=" in underline[1] else 2, title)
        else:
            lines.append(line)
    close()
    return passages


def read_html(data: bytes) -> list[Passage]:
    """A page's visible text by its headings; scripts and the like are left out, never run."""
    from bs4 import BeautifulSoup, Comment

    page = BeautifulSoup(data, "html.parser")
    title = " ".join(page.title.get_text().split()) if page.title else ""
    for tag in page.find_all((*_SILENT_TAGS, "title")):
        tag.decompose()
    for comment in page.find_all(string=lambda string: isinstance(string, Comment)):
        comment.extract()
    for text in page.find_all(string=True):
        text.replace_with(re.sub(r"\s+", " ", text))
    for tag in page.find_all([f"h{level}" for level in range(1, 7)]):
        tag.replace_with(f"\n\n{'#' * int(tag.name[1])} {' '.join(tag.get_text().split())}\n\n")
    for tag in page.find_all(_BLOCKS):
        tag.insert_before("\n\n")
        tag.insert_after("\n\n")
        if tag.name == "li":
            tag.insert(0, "- ")
    # From here on the page is Markdown, whose headings are told apart below.
    lines = "\n".join(line.strip() for line in page.get_text().split("\n"))
    passages = read_markdown(re.sub(r"\n{3,}", "\n\n", lines))
    return [Passage(one.text, _under(title, one.heading)) for one in passages]


def read_pdf(data: bytes) -> list[Passage]:
    """The text layer of a PDF page by page; nothing for pages without one.

    Raises:
        ExhibitError: it is locked, or has too many pages.
    """
    from pypdf import PdfReader

    document = PdfReader(io.BytesIO(data))
    if document.is_encrypted and not document.decrypt(""):
        raise ExhibitError("is locked by a password; save it without one.")
    if len(document.pages) > MOST_PAGES:
        raise ExhibitError(f"has {len(document.pages)} pages; at most {MOST_PAGES} are read, so split it.")
    title = " ".join(str((document.metadata and document.metadata.title) or "").split())
    passages = [
        # A word parted at the end of a line is one word again.
        Passage(re.sub(r"(?<=[^\W\d_])-\n(?=[^\W\d_])", "", page.extract_text()), title, number)
        for number, page in enumerate(document.pages, 1)
    ]
    return [one for one in passages if one.text.strip()]


def _under(title: str, heading: str) -> str:
    """The headings with the page's title above them, unless it is the first of them already."""
    return heading if heading.startswith(title) else _BETWEEN.join(filter(None, (title, heading)))
