"""The Compare tab's diagrams by plotly, drawn in the visitor's browser and so in the visitor's own fonts.

They are drawn in the colours of the light page; ``assets/compare.css`` exchanges ink and hairlines where the page is
dark. Colour never carries meaning alone: curves also differ in dash and marker, cells hold their counts.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from gradio.components.plot import PlotData

from models.reports import NO_ANSWER, Report
from ui.markup import label_word
from ui.text import say

if TYPE_CHECKING:
    import plotly.graph_objects as go

# The style sheet finds what it has to exchange by these very words.
INK: Final = "rgb(21, 25, 30)"
HAIRLINE: Final = "rgb(215, 220, 226)"
ON_ACCENT: Final = "rgb(255, 255, 255)"
# Of Okabe and Ito's palette those that stand out on light and on dark alike.
COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS: Final = ("circle", "square", "diamond", "triangle-up")
DASHES: Final = ("solid", "dash", "dashdot", "longdash")
# See-through where a share is 0, so that empty cells have the colour of the page.
_SHARES: Final = [[0.0, "rgba(11, 92, 173, 0)"], [1.0, "rgba(11, 92, 173, 1)"]]
# White is readable on the accent from here on, the page's own ink below; on light and on dark.
_WHITE_FROM: Final = 0.8
_LABEL_LENGTH: Final = 18
_HEIGHT_PX: Final = 320
_FEW_STEPS: Final = 10
_FONT: Final = "IBM Plex Sans, Noto Sans KR, system-ui, sans-serif"


def draw_confusion(language: str, report: Report) -> PlotData | None:
    """A confusion matrix: rows the truth, columns the answer, each cell its count shaded by its share of the row.

    Args:
        language: of the page.
        report: whose matrix; ``None`` comes back when it has none.
    """
    import plotly.graph_objects as go

    if report.confusion is None:
        return None
    columns = [_label(language, label) for label in report.confusion.labels]
    # No picture has no truth: the last row is always empty.
    counts, rows = report.confusion.counts[: len(report.labels)], columns[: len(report.labels)]
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            zmin=0,
            zmax=1,
            colorscale=_SHARES,
            showscale=False,
            text=[
                [
                    say(language, "compare.cell", truth=truth, answer=answer, count=count, share=f"{share:.1%}")
                    for answer, count, share in zip(columns, row, row_shares, strict=True)
                ]
                for truth, row, row_shares in zip(rows, counts, shares, strict=True)
            ],
            hoverinfo="text",
        )
    )
    cells = [(row, column) for row in range(len(rows)) for column in range(len(columns))]
    for colour in (INK, ON_ACCENT):
        shown = [(r, c) for r, c in cells if (shares[r][c] >= _WHITE_FROM) == (colour == ON_ACCENT)]
        figure.add_trace(
            go.Scatter(
                x=[column for _, column in shown],
                y=[row for row, _ in shown],
                text=[str(counts[row][column]) for row, column in shown],
                mode="text",
                textfont={"color": colour, "size": 13},
                hoverinfo="skip",
            )
        )
    _name_axes(figure, say(language, "compare.predicted"), say(language, "compare.truth"))
    for update, names in ((figure.update_xaxes, columns), (figure.update_yaxes, rows)):
        ends = [-0.5, len(names) - 0.5]
        update(tickmode="array", tickvals=list(range(len(names))), ticktext=names, range=ends, showgrid=False)
    # Names lean to the left, where there is room for them.
    figure.update_xaxes(tickangle=-35)
    figure.update_yaxes(autorange="reversed", range=None)
    return finish(figure, height=max(_HEIGHT_PX, 120 + 44 * len(rows)))


def draw_reliability(language: str, report: Report, number: int) -> PlotData | None:
    """Accuracy over confidence (Guo et al. 2017, arXiv 1706.04599): on the diagonal, confidence is earned.

    Args:
        language: of the page.
        report: whose calibration; ``None`` comes back when it has none.
        number: of the report among those shown, for colour and marker.
    """
    import plotly.graph_objects as go

    bins = report.calibration
    if not bins:
        return None
    largest = max(each.count for each in bins)
    diagonal = go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": INK, "width": 1, "dash": "dot"}, hoverinfo="skip"
    )
    found = go.Scatter(
        x=[each.confidence for each in bins],
        y=[each.accuracy for each in bins],
        mode="lines+markers",
        line={"color": COLOURS[number], "width": 2, "dash": DASHES[number]},
        # The area of a marker grows with the number of pictures behind it.
        marker={"symbol": MARKERS[number], "size": [6 + 12 * (each.count / largest) ** 0.5 for each in bins]},
        text=[
            say(
                language,
                "compare.bin",
                confidence=f"{each.confidence:.1%}",
                accuracy=f"{each.accuracy:.1%}",
                count=each.count,
            )
            for each in bins
        ],
        hoverinfo="text",
        cliponaxis=False,
    )
    figure = go.Figure([diagonal, found])
    _name_axes(figure, say(language, "compare.confidence"), say(language, "figure.accuracy"))
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(range=[-0.04, 1.04], tickformat=".0%", dtick=0.25)
    return finish(figure)


def draw_loss(language: str, reports: Sequence[Report]) -> PlotData | None:
    """Training and validation loss over optimiser steps, all models in one frame.

    Args:
        language: of the page.
        reports: those shown, in their order; ``None`` comes back when none of them has a loss curve.
    """
    import plotly.graph_objects as go

    figure, last = go.Figure(), 0
    for number, report in enumerate(reports):
        for key, mode, dash in (("loss", "lines", "solid"), ("eval_loss", "lines+markers", "dot")):
            points = [(each.step, getattr(each, key)) for each in report.loss or ()]
            points = [(step, loss) for step, loss in points if loss is not None]
            if points:
                last = max(last, *(step for step, _ in points))
                figure.add_trace(
                    go.Scatter(
                        x=[step for step, _ in points],
                        y=[loss for _, loss in points],
                        mode=mode,
                        name=f"{_plain(report.name)}, {say(language, f'compare.{key}')}",
                        line={"color": COLOURS[number], "width": 2, "dash": dash},
                        marker={"symbol": MARKERS[number], "size": 8},
                    )
                )
    if not figure.data:
        return None
    _name_axes(figure, say(language, "compare.step"), say(language, "compare.loss_axis"))
    figure.update_xaxes(dtick=1 if last < _FEW_STEPS else None)  # there is no half step
    figure.update_layout(showlegend=True, legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    return finish(figure)


def _label(language: str, label: str) -> str:
    return _plain(say(language, "compare.no_answer") if label == NO_ANSWER else label_word(language, label))


def _plain(text: str) -> str:
    """Text that plotly neither takes for its markup nor lets grow over its neighbours."""
    short = text if len(text) <= _LABEL_LENGTH else f"{text[: _LABEL_LENGTH - 1]}…"
    return html.escape(short, quote=False)


def _name_axes(figure: go.Figure, x: str, y: str) -> None:
    figure.update_xaxes(title={"text": x, "standoff": 12})
    figure.update_yaxes(title={"text": y, "standoff": 12})


def finish(figure: go.Figure, height: int = _HEIGHT_PX, margin_top: int = 8) -> PlotData:
    """The figure in the page's type and colours; still under the finger, so that a page of diagrams scrolls."""
    line = {"linecolor": HAIRLINE, "gridcolor": HAIRLINE, "zeroline": False, "fixedrange": True, "automargin": True}
    figure.update_xaxes(**line)
    figure.update_yaxes(**line)
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 12, "t": margin_top, "b": 8},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"family": _FONT, "size": 12, "color": INK},
        dragmode=False,
        hoverlabel={"font": {"family": _FONT}},
    )
    if figure.layout.showlegend is None:
        figure.update_layout(showlegend=False)
    content: dict[str, Any] = json.loads(figure.to_json())
    return PlotData(type="plotly", plot=json.dumps(content | {"config": {"displayModeBar": False}}))
