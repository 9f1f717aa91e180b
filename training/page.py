"""Pages to print: one self-contained HTML file, no script, nothing from a network, every text escaped.

Letters beyond Latin are shipped in a font of just those letters, so that no Hangul label becomes an empty box.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

from models.reports import Estimate
from training.scenes_common import find_fonts

STYLE = """
body{font:15px/1.5 system-ui,sans-serif,Shipped;color:#1b1f24;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #c8ccd2}
table{border-collapse:collapse}td,th{text-align:left;padding:.25rem 1.25rem .25rem 0;vertical-align:top}
th{font-weight:600}td.num,th.num{font-variant-numeric:tabular-nums;text-align:right}
.plots{display:flex;flex-wrap:wrap;gap:1rem;align-items:flex-start}.plots img{max-width:100%;height:auto}
.plots img{max-height:22rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(10rem,1fr));gap:1rem}
figure{margin:0;break-inside:avoid}.pictures img{width:100%}figcaption{font-size:.8rem;color:#4a525c}
figcaption,td{overflow-wrap:anywhere}code{font-size:.85em;overflow-wrap:anywhere}
.note{border-left:4px solid #b35900;padding-left:.75rem}.quiet{color:#4a525c;font-size:.85rem}
@media print{body{margin:0;max-width:none}}
"""
# Polish and most European letters are in every system's fonts.
LATIN = 0x250


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page.

    Args:
        path: HTML file to write.
        title: plain text, also the heading.
        body: HTML below the heading.
    """
    font = _ship_font(title + body)
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; font-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{font}{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    """A table of plain texts, all of them escaped.

    Args:
        head: titles of the columns.
        rows: cells.
        numbers: the last so many columns hold numbers and stand to the right.
    """
    kinds = [""] * (len(head) - numbers) + [' class="num"'] * numbers
    top = "".join(f"<th{kind}>{escape(cell)}</th>" for kind, cell in zip(kinds, head, strict=True))
    lines = (
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{top}</tr>{''.join(lines)}</table>"


def show_plots(plots: Iterable[tuple[Path, str]]) -> str:
    """PNG files and what they show, side by side."""
    shown = (_make_figure(file.read_bytes(), "png", text) for file, text in plots)
    return f'<div class="plots">{"".join(shown)}</div>'


def show_pictures(pictures: Iterable[tuple[bytes | None, str]]) -> str:
    """JPEG pictures with their captions; without a picture the caption stands alone."""
    shown = (
        _make_figure(data, "jpeg", text) if data else f"<figure><figcaption>{escape(text)}</figcaption></figure>"
        for data, text in pictures
    )
    return f'<div class="pictures">{"".join(shown)}</div>'


def write_estimate(one: Estimate | None, digits: int = 3, *, signed: bool = False) -> str:
    """A figure with its interval as text."""
    if one is None:
        return "not defined"
    sign = "+" if signed else ""
    return f"{one.value:{sign}.{digits}f} ({one.low:{sign}.{digits}f} to {one.high:{sign}.{digits}f})"


def _make_figure(data: bytes, kind: str, text: str) -> str:
    encoded = base64.b64encode(data).decode()
    caption = escape(text)
    return (
        f'<figure><img alt="{caption}" src="data:image/{kind};base64,{encoded}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _ship_font(text: str) -> str:
    """CSS of a font with the letters of a text that not every system has; nothing where there are none."""
    letters = {ord(letter) for letter in text if ord(letter) >= LATIN}
    if not letters:
        return ""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table that it keeps or drops
    font = TTFont(find_fonts("ko")[0])
    options = subset.Options()
    options.layout_features = []
    options.notdef_outline = True
    chosen = subset.Subsetter(options)
    chosen.populate(unicodes=letters)
    chosen.subset(font)
    buffer = io.BytesIO()
    font.save(buffer)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'@font-face{{font-family:Shipped;src:url("data:font/ttf;base64,{encoded}")}}'
