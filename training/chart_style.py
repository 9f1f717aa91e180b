"""How a generated chart looks: every choice drawn at random, none of it changing what the chart says."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from random import Random

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb

from training.chart_data import ChartData

# Those that come with matplotlib, so that a seed gives the same picture on every machine.
FONTS = ("DejaVu Sans", "DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
QUALITATIVE = ("tab10", "Set1", "Set2", "Dark2", "Accent", "Paired", "tab20")
SEQUENTIAL = ("Blues", "Greens", "Oranges", "Purples", "Greys", "viridis", "cividis", "plasma", "RdBu")
PAPERS = ("#ffffff", "#ffffff", "#ffffff", "#fbf8f1", "#f2f2f2", "#eaeaf2", "#eef4f8", "#20242b", "#102a43")
# Distances in RGB, each channel in [0, 1].
LEAST_FROM_PAPER = 0.4
LEAST_BETWEEN_MARKS = 0.25


@dataclass(frozen=True)
class ChartStyle:
    """Every choice of one picture's look; lengths in pixels.

    Attributes:
        size_px: width and height of the picture.
        font: family.
        text_px: height of the letters.
        paper: background colour.
        ink: colour of the texts.
        colours: of the series; for a single series of bars and for a pie, of each name.
        horizontal: bars lie.
        width: of a bar or a group, in (0, 1) of the room it has.
        outline: bars and slices have an edge.
        grid: ``none``, ``values`` or ``both``.
        grid_style: line style of the grid.
        frame: ``box``, ``corner`` or ``none``.
        legend: ``right``, ``above`` or ``below``.
        labels: of a pie: ``slices`` or ``legend``; of bars: ``outside`` or ``inside`` their ends.
        value_axis: whether the numbers of the value axis are drawn.
        separator: of thousands.
        percent_sign: whether percents are written with their sign.
        unit_at: ``axis``, ``subtitle`` or ``none``.
        title_at: ``left`` or ``center``.
        title_weight: ``normal`` or ``bold``.
        marker: of the points of a line.
        line_px: width of a line.
        dashed: lines differ by their dashes too.
        turned: degrees by which the names are turned.
        start_angle: of the first slice, in degrees.
        hole: radius of a ring's hole, 0 for a full pie.
        source: a note below the chart, or empty.
    """

    size_px: tuple[int, int]
    font: str
    text_px: float
    paper: str
    ink: str
    colours: tuple[str, ...]
    horizontal: bool
    width: float
    outline: bool
    grid: str
    grid_style: str
    frame: str
    legend: str
    labels: str
    value_axis: bool
    separator: str
    percent_sign: bool
    unit_at: str
    title_at: str
    title_weight: str
    marker: str
    line_px: float
    dashed: bool
    turned: int
    start_angle: int
    hole: float
    source: str


def draw_style(random: Random, data: ChartData) -> ChartStyle:
    """Draw a look that leaves every figure of ``data`` readable.

    Args:
        random: the only source of chance.
        data: what is to be shown.
    """
    paper = random.choice(PAPERS)
    named = data.kind == "pie"
    legend = random.choice(("right", "above", "below"))
    labels = random.choice(("slices", "legend") if named else ("outside", "outside", "inside"))
    return ChartStyle(
        size_px=(random.randint(380, 860), random.randint(300, 620)),
        font=random.choice(FONTS),
        text_px=random.uniform(11.5, 17),
        paper=paper,
        ink=random.choice(("#000000", "#333333", "#4d4d4d")) if _brightness(paper) > 0.5 else "#f0f0f0",
        colours=_draw_colours(random, data, paper),
        horizontal=data.kind in ("bar", "grouped bar") and random.random() < 0.4,
        width=random.uniform(0.5, 0.85),
        outline=random.random() < 0.3,
        # Without figures beside the marks, the gridlines are what they are read by.
        grid=random.choice(("none", "values", "both") if data.annotated else ("values", "values", "both")),
        grid_style=random.choice(("-", "--", ":")),
        frame=random.choice(("box", "corner", "none")),
        legend=legend,
        labels=labels,
        value_axis=not data.annotated or random.random() < 0.6,
        separator=random.choice((",", ",", "", " ")),
        percent_sign=random.random() < 0.6,
        unit_at=random.choice(("axis", "subtitle") if legend != "above" else ("axis", "none")),
        title_at=random.choice(("left", "center")),
        title_weight=random.choice(("normal", "bold")),
        marker=random.choice("os^D") if data.kind == "line" else "",
        line_px=random.uniform(1.5, 3.5),
        dashed=random.random() < 0.25,
        turned=random.choice((0, 0, 0, 30, 45, 90)),
        start_angle=random.choice((0, 90, random.randint(0, 359))),
        hole=random.choice((0.0, 0.0, random.uniform(0.35, 0.6))),
        source=random.choice(("", "", "Source: own survey", "Note: figures are made up", "Source: annual report"))
        if legend != "below"
        else "",
    )


def _draw_colours(random: Random, data: ChartData, paper: str) -> tuple[str, ...]:
    """One colour per series, or per name where those are told apart by it."""
    several = data.kind == "pie" or (data.kind == "bar" and random.random() < 0.25)
    count = len(data.names) if several else len(data.series)
    while True:
        name = random.choice(QUALITATIVE + SEQUENTIAL)
        colours = mpl.colormaps[name]
        if name in QUALITATIVE:
            first = random.randrange(colours.N)
            found = tuple(to_hex(colours((first + i) % colours.N)) for i in range(count))
        else:
            found = tuple(to_hex(colours(0.15 + 0.8 * (i + random.random() / 2) / count)) for i in range(count))
        clear = all(_distance(one, paper) >= LEAST_FROM_PAPER for one in found)
        if clear and all(_distance(*pair) >= LEAST_BETWEEN_MARKS for pair in combinations(found, 2)):
            if data.kind == "bar" and not several:
                return found * len(data.names)
            return found


def _distance(one: str, other: str) -> float:
    squares = [(a - b) ** 2 for a, b in zip(to_rgb(one), to_rgb(other), strict=True)]
    return float(sum(squares) ** 0.5)


def _brightness(colour: str) -> float:
    """Luma in [0, 1] (Rec. 601 weights)."""
    red, green, blue = to_rgb(colour)
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on ``colour``."""
    return "#000000" if _brightness(colour) > 0.5 else "#ffffff"
