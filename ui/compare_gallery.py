"""The pictures on which models disagree, a page at a time: each with its truth and what every model answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from explain import render
from models.report_comparison import Disagreement
from models.reports import ReportError
from ui import pictures
from ui.compare_pictures import decode_thumbnail
from ui.compare_shelf import Saved
from ui.compare_table import is_generated, label_shown, render_generated, shorten
from ui.markup import escape, render_empty, render_heading
from ui.text import say

PAGE_SIZE: Final = 24
THUMBNAIL_SIDE_PX: Final = 256
TEXT_LENGTH: Final = 160
OPEN, TURN = "open", "page"
ALL, NOBODY = "all", "nobody"
"""Which disagreements are shown; else the number of the report that alone is right."""


# A press of a picture or of a page is told; after a turn the focus stays with the pages.
@dataclass(frozen=True)
class Gallery:
    """What is shown of the disagreements.

    Attributes:
        saved: the chosen reports.
        names: of each, all different.
        entries: all disagreements; of one report alone its mistakes.
        which: ``ALL``, ``NOBODY``, or the number of the report that alone is right.
        page: counted from 0.
    """

    saved: tuple[Saved, ...]
    names: tuple[str, ...]
    entries: tuple[Disagreement, ...]
    which: str = ALL
    page: int = 0

    @property
    def shown(self) -> list[tuple[int, Disagreement]]:
        """The entries of the choice with their numbers among all."""
        return [(number, entry) for number, entry in enumerate(self.entries) if _belongs(entry, self.which)]

    @property
    def pages(self) -> int:
        """How many pages the choice fills, at least one."""
        return max(1, -(-len(self.shown) // PAGE_SIZE))


def name_source(entry: Disagreement) -> str:
    """Where a picture came from, without the folders of whoever measured."""
    return shorten(entry.source.replace("\\", "/").rpartition("/")[2]) or entry.sha256[:12]


def find_mistakes(saved: Saved) -> tuple[Disagreement, ...]:
    """The rows that a single report got wrong, in the form of disagreements."""
    return tuple(
        Disagreement(
            sha256=row.sha256,
            source=row.source,
            question=row.question,
            truth=row.truth,
            given=(
                row.answer if row.predicted is None and row.answer is not None else row.predicted or row.problem or "",
            ),
            right=(False,),
        )
        for row in saved.report.rows
        if not row.right
    )


def list_choices(language: str, gallery: Gallery) -> list[tuple[str, str]]:
    """Which disagreements can be asked for, with how many there are of each."""
    words = {ALL: say(language, "compare.all")}
    if len(gallery.saved) > 1:
        words |= {
            str(number): say(language, "compare.only_right", name=shorten(name))
            for number, name in enumerate(gallery.names)
        }
        words[NOBODY] = say(language, "compare.nobody_right")
    return [
        (f"{text} ({sum(_belongs(entry, which) for entry in gallery.entries)})", which) for which, text in words.items()
    ]


def render_gallery_heading(language: str, gallery: Gallery) -> str:
    """What the pictures below are, that generated ones are generated, and why there are none."""
    title = say(language, "compare.mistakes" if len(gallery.saved) == 1 else "compare.disagreements")
    lines = [render_heading(title, say(language, "compare.gallery_note"))]
    if is_generated(gallery.saved):
        lines.append(render_generated(language))
    if not any(saved.pictures for saved in gallery.saved):
        lines.append(f'<p class="note">{escape(say(language, "compare.no_pictures"))}</p>')
    return f"<section>{''.join(lines)}</section>"


def render_gallery(language: str, gallery: Gallery) -> str:
    """One page of the disagreements; a press of a picture opens it in the Examine tab."""
    shown = gallery.shown
    if not shown:
        alone = len(gallery.saved) == 1
        return render_empty(say(language, "compare.no_mistake" if alone else "compare.no_disagreement"))
    page = min(max(gallery.page, 0), gallery.pages - 1)
    entries = shown[page * PAGE_SIZE : (page + 1) * PAGE_SIZE]
    images, problem = _read_images(gallery.saved, [entry.sha256 for _, entry in entries])
    note = f'<p class="note">{escape(problem)}</p>' if problem else ""
    cards = "".join(
        _card(language, number, entry, gallery.names, images.get(entry.sha256, "")) for number, entry in entries
    )
    return f'{note}<ul class="cards">{cards}</ul>{_pages(language, page, gallery.pages)}'


def _belongs(entry: Disagreement, which: str) -> bool:
    if which == ALL:
        return True
    if which == NOBODY:
        return not any(entry.right)
    return sum(entry.right) == 1 and str(entry.right.index(True)) == which


def read_picture(saved: Sequence[Saved], sha256: str) -> bytes | None:
    """The small picture that the reports keep of an original; the first that has one.

    Raises:
        ReportError: a file of pictures is damaged.
    """
    return next((found[sha256] for each in saved if sha256 in (found := each.thumbnails([sha256]))), None)


def _read_images(saved: Sequence[Saved], wanted: Sequence[str]) -> tuple[dict[str, str], str]:
    """Data URIs by digest, drawn anew so that nothing but pixels of a stranger's file reaches the page."""
    images: dict[str, str] = {}
    problem = ""
    for each in saved:
        try:
            stored = each.thumbnails([digest for digest in wanted if digest not in images])
        except ReportError as error:
            problem = str(error)
            continue
        for digest, data in stored.items():
            source = decode_thumbnail(data, digest)
            if source is not None:
                images[digest] = pictures.data_uri(render.fit(source.rgb, THUMBNAIL_SIDE_PX))
    return images, problem


def _card(language: str, number: int, entry: Disagreement, names: Sequence[str], uri: str) -> str:
    source = name_source(entry)
    spoken = escape(say(language, "compare.open", source=source))
    if uri:
        top = (
            f'<button type="button" data-pick="{OPEN}|{number}" aria-label="{spoken}"><img src="{uri}" alt=""></button>'
        )
    else:
        top = f'<div class="absent">{escape(say(language, "compare.no_picture"))}</div>'
    question = f'<p class="asked">{escape(shorten(entry.question, TEXT_LENGTH))}</p>' if entry.question else ""
    rows = "".join(_given(language, *each) for each in zip(names, entry.given, entry.right, strict=True))
    truth = escape(_text(language, entry.truth))
    return (
        f'<li>{top}<p class="source">{escape(source)}</p>{question}<dl>'
        f"<div><dt>{escape(say(language, 'compare.truth'))}</dt><dd><b>{truth}</b></dd></div>{rows}</dl></li>"
    )


def _given(language: str, name: str, given: str, right: bool) -> str:
    word = say(language, "compare.right" if right else "compare.wrong")
    mark = f'<span aria-hidden="true">{"✓" if right else "✗"}</span><span class="spoken">{escape(word)}</span>'
    kind = "right" if right else "wrong"
    return f'<div class="{kind}"><dt>{escape(shorten(name))}</dt><dd>{mark} {escape(_text(language, given))}</dd></div>'


def _text(language: str, text: str) -> str:
    return label_shown(language, text) if len(text) < TEXT_LENGTH else shorten(text, TEXT_LENGTH)


def _pages(language: str, page: int, pages: int) -> str:
    if pages == 1:
        return ""
    where = escape(say(language, "compare.page", page=page + 1, pages=pages))
    turns = ((page - 1, say(language, "compare.former")), (page + 1, say(language, "compare.next")))
    buttons = [
        f'<button type="button" data-pick="{TURN}|{to}"{"" if 0 <= to < pages else " disabled"}>{escape(text)}</button>'
        for to, text in turns
    ]
    return f'<nav class="pages" aria-label="{where}">{buttons[0]}<span>{where}</span>{buttons[1]}</nav>'
