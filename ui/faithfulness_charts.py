"""Insertion and deletion curves of a map beside those of random maps and of a blob in the centre, by plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gradio.components.plot import PlotData

from explain.faithfulness_metrics import Curve
from explain.faithfulness_schema import MapFaithfulness
from ui.compare_charts import COLOURS, HAIRLINE, INK, finish
from ui.text import say

if TYPE_CHECKING:
    import plotly.graph_objects as go

_BAND: Final = "rgba(128, 140, 153, 0.35)"
_MARGIN: Final = 0.04


def draw_curves(language: str, found: MapFaithfulness) -> PlotData:
    """Two frames on one axis of probability.

    Args:
        language: of the page.
        found: the map's figures; without a badge only its own curves are drawn.
    """
    from plotly.subplots import make_subplots

    kinds = (("insertion", found.insertion), ("deletion", found.deletion))
    titles = [say(language, f"trust.{kind}").partition(":")[0] for kind, _ in kinds]
    figure = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.1)
    for column, (kind, curve) in enumerate(kinds, start=1):
        _add(figure, language, found, kind, curve, column)
    figure.update_xaxes(
        title={"text": say(language, "trust.share"), "standoff": 8},
        range=[0, 1],
        tickvals=[0, 0.5, 1],
        ticktext=["0", "50%", "100%"],
    )
    figure.update_yaxes(range=[-_MARGIN, 1 + _MARGIN], tickformat=".0%", dtick=0.25)
    figure.update_yaxes(title={"text": say(language, "trust.probability"), "standoff": 8}, col=1)
    figure.update_annotations(font={"size": 13, "color": INK})
    figure.update_layout(
        showlegend=True, legend={"orientation": "h", "x": 0, "y": -0.28, "yanchor": "top"}, hovermode="x unified"
    )
    return finish(figure, margin_top=28)


def _add(figure: go.Figure, language: str, found: MapFaithfulness, kind: str, curve: Curve, column: int) -> None:
    """One frame: the band, the blob's curve, the map's; each is named in the legend once."""
    import plotly.graph_objects as go

    named = {"showlegend": column == 1}
    controls = found.badge.curves if found.badge else None
    if controls is not None:
        chance = getattr(controls, kind)
        band, blob = say(language, "trust.random"), say(language, "trust.blob")
        edge = {"width": 1, "color": HAIRLINE}
        figure.add_trace(
            go.Scatter(
                x=controls.fractions,
                y=chance.max(axis=0),
                mode="lines",
                line=edge,
                showlegend=False,
                hoverinfo="skip",
            ),
            1,
            column,
        )
        figure.add_trace(
            go.Scatter(
                x=controls.fractions,
                y=chance.min(axis=0),
                mode="lines",
                line=edge,
                fill="tonexty",
                fillcolor=_BAND,
                name=band,
                legendgroup="random",
                hoverinfo="skip",
                **named,
            ),
            1,
            column,
        )
        line = {"color": COLOURS[1], "width": 2, "dash": "dash"}
        centre = getattr(controls, f"centre_{kind}")
        figure.add_trace(_line(controls.fractions, centre, blob, line, "blob", named), 1, column)
    line = {"color": COLOURS[0], "width": 3}
    figure.add_trace(_line(curve.fractions, curve.scores, say(language, "trust.map"), line, "map", named), 1, column)


def _line(x: object, y: object, name: str, line: dict[str, object], group: str, named: dict[str, bool]) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=x, y=y, mode="lines", name=name, line=line, legendgroup=group, hovertemplate="%{y:.1%}", **named
    )
