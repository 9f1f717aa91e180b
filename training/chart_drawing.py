"""A chart's figures and look as a picture, with the box of every mark in pixels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil, cos, hypot, pi, sin
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from training.chart_data import ChartData, Mark
from training.chart_style import ChartStyle, ink_on

DPI = 72.0  # so that matplotlib's points are pixels
Box = tuple[float, float, float, float]
MARGIN_PX = 5
THIN_SLICE = 9  # percent
SHORT_BAR = Decimal("0.15")  # of the longest
DASHES = ("-", "--", ":", "-.")


@dataclass
class _Shown:
    """What has been drawn: the artist of each mark, and the figure written for it, if it stands by a bar or slice."""

    artists: dict[Mark, Any] = field(default_factory=dict)
    figures: dict[Mark, Text] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """One picture and what stands where in it.

    Attributes:
        png: the encoded picture.
        size_px: its width and height.
        boxes_xyxy: of every bar, point or slice, in pixels.
        colours: the colour of each of them, as ``#rrggbb``.
        title_xyxy: of the title; None without one.
    """

    png: bytes
    size_px: tuple[int, int]
    boxes_xyxy: dict[Mark, Box]
    colours: dict[Mark, str]
    title_xyxy: Box | None


def draw_chart(data: ChartData, style: ChartStyle) -> Drawing | None:
    """Draw a chart.

    Args:
        data: what it shows.
        style: how it looks.

    Returns:
        The picture; None when a text would leave it or cover another, so that another look has to be drawn.
    """
    width, height = style.size_px
    # Ends with the block; the settings are matplotlib's own, and each worker is a process.
    with mpl.rc_context({"font.family": style.font, "font.size": style.text_px, "text.color": style.ink}):
        layout = ConstrainedLayoutEngine(w_pad=MARGIN_PX / DPI, h_pad=MARGIN_PX / DPI)
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, layout=layout, facecolor=style.paper)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot(facecolor=style.paper)
        title = _write_around(figure, axes, data, style)
        if data.kind == "pie":
            shown = _draw_pie(axes, data, style)
        elif data.kind == "line":
            shown = _draw_lines(axes, data, style)
        else:
            shown = _draw_bars(axes, data, style)
        canvas.draw()
        if not (_is_legible(figure, style) and _figures_fit(shown)):
            return None
        renderer = canvas.get_renderer()
        extents = {mark: artist.get_window_extent(renderer) for mark, artist in shown.artists.items()}
        if data.kind == "line":
            extents = {mark: _point_extent(axes, data, style, mark) for mark in data.marks}
        boxes = {mark: _to_pixels(extent, style.size_px) for mark, extent in extents.items()}
        title_box = _to_pixels(title.get_window_extent(renderer), style.size_px) if title else None
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    encoded = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(encoded, "PNG")
    colours = {mark: _colour_of(data, style, mark) for mark in data.marks}
    return Drawing(encoded.getvalue(), style.size_px, boxes, colours, title_box)


def format_value(value: Decimal, data: ChartData, style: ChartStyle) -> str:
    """A value as the picture writes it: one decimal where any value of the chart has one."""
    decimals = 1 if any(one % 1 for row in data.values for one in row) else 0
    text = f"{value:,.{decimals}f}".replace(",", style.separator)
    return f"{text}%" if data.unit == "percent" and style.percent_sign else text


def _write_around(figure: Figure, axes: Axes, data: ChartData, style: ChartStyle) -> Text | None:
    """Title, unit and note."""
    left = style.title_at == "left"
    if style.source:
        figure.supxlabel(style.source, x=0.02, ha="left", fontsize=0.8 * style.text_px)
    if style.unit_at == "subtitle":
        axes.set_title(f"in {data.unit}", loc="left", fontsize=0.9 * style.text_px, style="italic")
    if not data.title:
        return None
    letters = int(0.85 * style.size_px[0] / (0.68 * style.text_px))
    text = "\n".join(textwrap.wrap(data.title, letters))
    return figure.suptitle(
        text,
        x=0.02 if left else 0.5,
        ha="left" if left else "center",
        fontsize=1.2 * style.text_px,
        fontweight=style.title_weight,
    )


def _colour_of(data: ChartData, style: ChartStyle, mark: Mark) -> str:
    return style.colours[mark[1] if data.kind in ("bar", "pie") else mark[0]]


def _draw_bars(axes: Axes, data: ChartData, style: ChartStyle) -> _Shown:
    shown = _Shown()
    thick = style.width / len(data.series)
    largest = max(max(row) for row in data.values)
    # A short bar has no room for its figure.
    inside = style.labels == "inside" and min(min(row) for row in data.values) > SHORT_BAR * largest
    for series, row in enumerate(data.values):
        places = [name - style.width / 2 + thick * (series + 0.5) for name in range(len(row))]
        bars = (axes.barh if style.horizontal else axes.bar)(
            places,
            [float(value) for value in row],
            thick,
            color=[_colour_of(data, style, (series, name)) for name in range(len(row))],
            edgecolor=style.ink if style.outline else "none",
            linewidth=0.8,
            label=data.series[series],
        )
        shown.artists |= {(series, name): bar for name, bar in enumerate(bars)}
        if data.annotated:
            texts = axes.bar_label(
                bars,
                [format_value(value, data, style) for value in row],
                label_type="center" if inside else "edge",
                padding=0 if inside else 2,
                fontsize=0.9 * style.text_px,
            )
            for name, text in enumerate(texts):
                text.set_color(ink_on(_colour_of(data, style, (series, name))) if inside else style.ink)
                shown.figures[series, name] = text
    _finish_axes(axes, data, style)
    return shown


def _draw_lines(axes: Axes, data: ChartData, style: ChartStyle) -> _Shown:
    shown = _Shown()
    for series, row in enumerate(data.values):
        (line,) = axes.plot(
            range(len(row)),
            [float(value) for value in row],
            color=style.colours[series],
            linewidth=style.line_px,
            linestyle=DASHES[series] if style.dashed else "-",
            marker=style.marker,
            markersize=_point_px(style),
            label=data.series[series],
        )
        shown.artists |= {(series, name): line for name in range(len(row))}
        if data.annotated:
            for name, value in enumerate(row):
                axes.annotate(
                    format_value(value, data, style),
                    (name, float(value)),
                    xytext=(0, _point_px(style) / 2 + 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=0.85 * style.text_px,
                )
    _finish_axes(axes, data, style)
    return shown


def _draw_pie(axes: Axes, data: ChartData, style: ChartStyle) -> _Shown:
    row = data.values[0]
    written = [format_value(value, data, style) if data.annotated else "" for value in row]
    on_slices = style.labels == "slices"
    # A thin slice has no room for its figure, which then stands behind its name or outside.
    labels = [
        f"{name} {text}" if text and value < THIN_SLICE else name
        for name, text, value in zip(data.names, written, row, strict=True)
    ]
    slices = axes.pie(
        [float(value) for value in row],
        labels=labels if on_slices else None,
        colors=style.colours,
        startangle=style.start_angle,
        counterclock=style.dashed,
        wedgeprops={
            "width": 1 - style.hole,
            "edgecolor": style.paper if style.outline else "none",
            "linewidth": 1.5,
        },
    )[0]
    shown = _Shown(artists={(0, name): one for name, one in enumerate(slices)})
    for name, (text, one) in enumerate(zip(written, slices, strict=True)):
        thin = row[name] < THIN_SLICE
        if not text or (thin and on_slices):
            continue
        middle = (one.theta1 + one.theta2) / 2 * pi / 180
        far = 1.12 if thin else (1 + style.hole) / 2 if style.hole else 0.68
        shown.figures[0, name] = axes.text(
            far * cos(middle),
            far * sin(middle),
            text,
            ha="center",
            va="center",
            color=style.ink if thin else ink_on(style.colours[name]),
            fontsize=0.9 * style.text_px,
        )
    if not on_slices:
        _write_legend(axes, style, len(row), handles=slices, labels=data.names)
    return shown


def _finish_axes(axes: Axes, data: ChartData, style: ChartStyle) -> None:
    """Ticks, grid, frame, limits and legend."""
    value_axis, name_axis = (axes.xaxis, axes.yaxis) if style.horizontal else (axes.yaxis, axes.xaxis)
    axes.tick_params(colors=style.ink)
    turned = 0 if style.horizontal else style.turned
    alignment: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"} if turned in (30, 45) else {}
    name_axis.set_ticks(range(len(data.names)), data.names, rotation=turned, **alignment)
    steps = ceil(max(max(row) for row in data.values) / data.tick)
    sign = "%" if data.unit == "percent" and style.percent_sign else ""
    numbers = [f"{step * data.tick:,}".replace(",", style.separator) + sign for step in range(steps + 1)]
    value_axis.set_ticks([float(step * data.tick) for step in range(steps + 1)], numbers)
    if not style.value_axis:
        value_axis.set_tick_params(length=0, labelleft=False, labelbottom=False)
    room = 1.12 if data.annotated else 1.02
    (axes.set_xlim if style.horizontal else axes.set_ylim)(0, float(steps * data.tick) * room)
    if style.horizontal:
        axes.invert_yaxis()
    axes.set_axisbelow(True)
    if style.grid != "none":
        axis: Any = "both" if style.grid == "both" else ("x" if style.horizontal else "y")
        axes.grid(axis=axis, linestyle=style.grid_style, color=style.ink, alpha=0.25)
    for side, spine in axes.spines.items():
        spine.set_color(style.ink)
        spine.set_visible(style.frame == "box" or (style.frame == "corner" and side in ("left", "bottom")))
    if style.unit_at == "axis":
        value_axis.set_label_text(data.unit, color=style.ink)
    if len(data.series) > 1:
        _write_legend(axes, style, len(data.series))


def _write_legend(
    axes: Axes,
    style: ChartStyle,
    entries: int,
    handles: Sequence[Artist] | None = None,
    labels: Sequence[str] | None = None,
) -> None:
    chosen = {} if handles is None else {"handles": handles, "labels": labels}
    options = {"frameon": style.frame == "box", "facecolor": style.paper, "fontsize": 0.9 * style.text_px}
    if style.legend == "right":
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), **chosen, **options)
        return
    columns = min(entries, 3)
    if style.legend == "above":
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=columns, **chosen, **options)
        return
    if handles is None:
        handles, labels = axes.get_legend_handles_labels()
    axes.figure.legend(loc="outside lower center", ncols=columns, handles=handles, labels=labels, **options)


def _is_legible(figure: Figure, style: ChartStyle) -> bool:
    """Whether every text stands in the picture, upright ones apart from each other, and the chart has room."""
    width, height = style.size_px
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    extents = [text.get_window_extent() for text in texts]
    if any(box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height for box in extents):
        return False
    plot = figure.axes[0].get_window_extent()
    if plot.width < 0.4 * width or plot.height < 0.4 * height:
        return False
    upright = [box for text, box in zip(texts, extents, strict=True) if text.get_rotation() in (0, 90)]
    return not any(Bbox.intersection(one, other) for i, one in enumerate(upright) for other in upright[:i])


def _figures_fit(shown: _Shown) -> bool:
    """Whether every figure stands either wholly in its own bar or slice, or on none at all."""
    for mark, text in shown.figures.items():
        extent = text.get_window_extent()
        points = [(x, y) for x in np.linspace(extent.x0, extent.x1, 5) for y in (extent.y0, extent.y1)]
        if all(shown.artists[mark].contains_point(point) for point in points):
            continue
        if any(patch.contains_point(point) for patch in shown.artists.values() for point in points):
            return False
    return True


def _point_px(style: ChartStyle) -> float:
    return 3 * style.line_px


def _point_extent(axes: Axes, data: ChartData, style: ChartStyle, mark: Mark) -> Bbox:
    """The square around one point of a line."""
    x, y = axes.transData.transform((mark[1], float(data.value(mark))))
    reach = hypot(_point_px(style), 2) / 2
    return Bbox([[x - reach, y - reach], [x + reach, y + reach]])


def _to_pixels(extent: Bbox, size_px: tuple[int, int]) -> Box:
    """From matplotlib's origin at the bottom to the picture's at the top, cut at its edges."""
    width, height = size_px
    x0, x1 = (min(max(float(x), 0.0), width) for x in (extent.x0, extent.x1))
    y0, y1 = (min(max(height - float(y), 0.0), height) for y in (extent.y1, extent.y0))
    return x0, y0, x1, y1
