"""The Triage tab as accessible HTML: a histogram whose bars set the threshold, and a table that opens pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bulk.results import DISTANCE
from models.imaging import SourceImage
from ui import pictures
from ui.markup import escape, label_word, render_empty, render_heading
from ui.text import say
from ui.triage_runs import Sight, Stranger, short_name

if TYPE_CHECKING:
    import pyarrow as pa

PAGE_SIZE: Final = 24
THUMBNAIL_SIDE_PX: Final = 72
OPEN, PAGE, SORT, BAR = "open", "page", "sort", "bar"
SORTED: Final = ("name", "verdict", "probability", "disagreement")
_MAX_NAME: Final = 80
_MAX_PAGES: Final = 12


def render_histogram(language: str, counts: Sequence[int], sight: Sight) -> str:
    """Pictures by probability; a press of a bar makes its lower end the threshold."""
    highest = max(1, *counts)
    bars = []
    for number, count in enumerate(counts):
        low, high = number / len(counts), (number + 1) / len(counts)
        said = escape(say(language, "triage.bar", low=f"{low:.2f}", high=f"{high:.2f}", count=count))
        inside = " data-inside" if high > sight.threshold else ""
        bars.append(
            f'<button type="button" data-pick="{BAR}|{low:.2f}" aria-label="{said}" title="{said}"{inside}>'
            f'<span style="height:{100 * count / highest:.1f}%"></span></button>'
        )
    title = say(language, "triage.histogram", label=label_word(language, sight.label))
    heading = render_heading(title, say(language, "triage.histogram_note"))
    scale = '<p class="scale" aria-hidden="true"><span>0</span><span>0.5</span><span>1</span></p>'
    return f'<section>{heading}<div class="bars">{"".join(bars)}</div>{scale}</section>'


def render_table(
    language: str,
    rows: pa.Table,
    of: int,
    sight: Sight,
    sources: Mapping[int, SourceImage | str],
    first: int,
    strangers: Mapping[str, Stranger],
) -> str:
    """One page of the rows.

    Args:
        language: of the page.
        rows: all rows that fit.
        of: rows of the whole run.
        sight: what is looked at.
        sources: number of a shown row to its picture, or why there is none.
        first: number of the first shown row.
        strangers: the models of the run by id.
    """
    count = f'<p class="note">{escape(say(language, "triage.shown", count=rows.num_rows, of=of))}</p>'
    if not rows.num_rows:
        return f"<section>{count}{render_empty(say(language, 'triage.empty'))}</section>"
    shown = rows.slice(first, PAGE_SIZE).to_pylist()
    body = "".join(_row(language, first + n, row, sources.get(first + n, ""), strangers) for n, row in enumerate(shown))
    return (
        f'<section>{count}<div class="wide"><table><thead><tr>{_head(language, sight)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{_pages(language, rows.num_rows, sight.page)}</section>"
    )


def _head(language: str, sight: Sight) -> str:
    cells = [f'<th scope="col">{escape(say(language, "triage.picture"))}</th>']
    for name in SORTED:
        state = f' aria-sort="{"ascending" if sight.rising else "descending"}"' if name == sight.sort else ""
        words = escape(say(language, f"triage.{name}"))
        cells.append(f'<th scope="col"{state}><button type="button" data-pick="{SORT}|{name}">{words}</button></th>')
    return "".join(cells) + f'<th scope="col">{escape(say(language, "triage.told"))}</th>'


def _row(
    language: str,
    number: int,
    row: Mapping[str, Any],
    source: SourceImage | str,
    strangers: Mapping[str, Stranger],
) -> str:
    name = short_name(row["path"])[-_MAX_NAME:]
    if isinstance(source, SourceImage):
        uri = pictures.data_uri(pictures.fit_square(source.rgb, THUMBNAIL_SIDE_PX))
        said = escape(say(language, "triage.open", name=name))
        picture = (
            f'<button type="button" class="picture" data-pick="{OPEN}|{number}" aria-label="{said}">'
            f'<img alt="" src="{uri}"></button>'
        )
    else:
        picture = ""
    if row["error"]:
        rest = f'<td colspan="3" class="failed">{escape(row["error"])}</td>'
    else:
        rest = (
            f"<td>{_verdict(language, row)}</td>"
            f'<td class="number">{row["probability"]:.1%}</td><td class="number">{row["disagreement"]:.1%}</td>'
        )
    told = "<br>".join(escape(line) for line in _told(language, row, strangers))
    return f'<tr><td>{picture}</td><th scope="row">{escape(name)}</th>{rest}<td>{told}</td></tr>'


def _verdict(language: str, row: Mapping[str, Any]) -> str:
    """The verdict, which is none where the models have not seen such pictures, however sure they are."""
    label = label_word(language, row["verdict"])
    if not row["out_of_distribution"]:
        return escape(label)
    lean = escape(say(language, "triage.lean", label=label))
    return f"<strong>{escape(say(language, 'doubt.none'))}</strong><br>{lean}"


def _told(language: str, row: Mapping[str, Any], strangers: Mapping[str, Stranger]) -> list[str]:
    lines = []
    if row["c2pa_ai_generated"]:
        lines.append(say(language, "triage.made_by_ai"))
    if row["c2pa_signature"]:
        lines.append(say(language, "triage.credentials", state=row["c2pa_signature"]))
    for model_id in row["unfamiliar"].split(", ") if row["unfamiliar"] else ():
        model = strangers.get(model_id, Stranger(model_id, None))
        line = say(language, "triage.unlike", name=model.name)
        if model.threshold is not None:
            far = f"{row[DISTANCE + model_id]:.2f}"
            line += f" ({say(language, 'triage.distance', distance=far, threshold=f'{model.threshold:.2f}')})"
        lines.append(line)
    return lines


def _pages(language: str, count: int, page: int) -> str:
    pages = -(-count // PAGE_SIZE)
    if pages < 2:
        return ""
    # The first, the last, and those around the one shown.
    near = range(max(0, page - _MAX_PAGES // 2), min(pages, page + _MAX_PAGES // 2))
    numbers = sorted({0, pages - 1, *near})
    current = ' disabled aria-current="page"'
    buttons = "".join(
        f'<button type="button" data-pick="{PAGE}|{number}" '
        f'aria-label="{escape(say(language, "triage.page", number=number + 1))}"'
        f"{current if number == page else ''}>{number + 1}</button>"
        for number in numbers
    )
    return f'<nav class="pages" aria-label="{escape(say(language, "triage.pages"))}">{buttons}</nav>'
