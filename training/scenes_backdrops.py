"""Streets, stairwells, lockers and parks, each with spots where something may lie.

A backdrop draws itself without knowing what will lie there; a spot knows what stands in front of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from training.scenes_common import (
    COLOURS,
    SHEET_PX,
    Colour,
    Point,
    Sheet,
    cut_texture,
    darken,
    find_fonts,
    load_font,
    paint,
    vary,
)
from training.scenes_props import (
    draw_bench,
    draw_bin,
    draw_cabinet,
    draw_pipe,
    draw_radiator,
    draw_stone,
    make_wall,
    park_car,
    plant_tree,
)
from training.scenes_sprites import light_up


@dataclass(frozen=True)
class Spot:
    """Where something may lie.

    Attributes:
        where: with its preposition, for instance ``behind the drainpipe``.
        xy: centre of the thing on the sheet.
        width: of the thing in px.
        front: draws what stands before it.
    """

    where: str
    xy: Point
    width: int
    front: Callable[[], None] | None = None


def _room(
    sheet: Sheet, random: Random, side: Image.Image, back: Image.Image, floor: Image.Image
) -> tuple[int, int, int, int]:
    """Two side walls, a back wall and a floor towards one vanishing point; the back wall's box."""
    x, y = random.randint(170, 340), random.randint(170, 230)
    half, up, down = random.randint(60, 110), random.randint(90, 150), random.randint(60, 100)
    left, top, right, bottom = x - half, max(0, y - up), x + half, y + down
    sheet.spread(back, [(left, top), (right, top), (right, bottom), (left, bottom)])
    sheet.spread(side, [(0, -160), (left, top), (left, bottom), (0, 470)])
    sheet.spread(
        side.transpose(Image.Transpose.FLIP_LEFT_RIGHT), [(right, top), (512, -160), (512, 470), (right, bottom)]
    )
    sheet.spread(floor, [(left, bottom), (right, bottom), (700, 600), (-190, 600)])
    for corner, edge in ((left, 0), (right, 512)):
        sheet.draw.line((corner, bottom, edge, 470), fill=(50, 48, 46), width=4)
    return left, top, right, bottom


def _facade(random: Random, night: bool) -> Image.Image:
    kind, colour = random.choice(
        (
            ("brick", (138, 74, 58)),
            ("plaster", (196, 180, 150)),
            ("plaster", (150, 160, 168)),
            ("concrete", (150, 148, 142)),
        )
    )
    flat = make_wall(kind, vary(colour, random), random)
    draw = ImageDraw.Draw(flat)
    for row in range(4):
        for column in range(4):
            x, y = 18 + 72 * column, 10 + 74 * row
            lit = random.random() < (0.4 if night else 0.05)
            glass = (240, 206, 130) if lit else vary((70, 84, 98), random, 20)
            draw.rectangle((x - 4, y - 4, x + 44, y + 54), fill=darken(colour, 1.15))
            draw.rectangle((x, y, x + 40, y + 48), fill=glass)
            draw.line((x + 20, y, x + 20, y + 48), fill=darken(colour, 0.6), width=3)
    return flat


def draw_street(sheet: Sheet, random: Random, night: bool) -> list[Spot]:
    """A street between houses; a drainpipe, a cabinet and a bin near the camera."""
    sky = (24, 28, 48) if night else vary(random.choice(((150, 186, 222), (200, 204, 208))), random)
    sheet.rgb.paste(sky, (0, 0, SHEET_PX, SHEET_PX))
    road = Image.fromarray(paint(vary((104, 104, 106), random), 300, 300, random, "grain", 0.12))
    pen = ImageDraw.Draw(road)
    for dash in range(5):
        pen.rectangle((146, dash * 60, 154, dash * 60 + 34), fill=(214, 212, 200))
    for edge in (34, 262):
        pen.rectangle((edge, 0, edge + 5, 300), fill=(168, 166, 160))
    left, top, right, bottom = _room(sheet, random, _facade(random, night), Image.new("RGB", (8, 8), sky), road)
    _far_houses(sheet, random, (left, top, right, bottom))
    if random.random() < 0.7:
        park_car(sheet, random, (random.randint(left + 20, right + 20), bottom + random.randint(30, 60)))
    x = random.choice((random.randint(90, 150), random.randint(362, 422)))
    panel = make_wall(
        random.choice(("brick", "concrete", "plaster")), vary((150, 120, 100), random, 30), random, 300, 420
    )
    near = (0, x + 96) if x < 256 else (x - 96, 512)
    sheet.spread(panel, [(near[0], -10), (near[1], -10), (near[1], 440), (near[0], 452)])
    sheet.draw.rectangle((near[0], 440, near[1], 512), fill=vary((140, 138, 134), random))
    pipe = draw_pipe(
        470, random.randint(26, 38), vary(random.choice(((96, 98, 100), (150, 90, 60), (70, 90, 80))), random), random
    )
    cabinet = draw_cabinet(
        100, 120, vary(random.choice(((120, 126, 122), (170, 160, 120), (90, 100, 120))), random), random
    )
    inner = near[1] - 62 if x < 256 else near[0] + 62
    pipe_x = near[0] + 40 if x < 256 else near[1] - 40
    sheet.stamp(cabinet, (inner, 250), shadow=0.5)
    bin_x = 420 if x < 256 else 92
    container = draw_bin(random)
    return [
        Spot(
            "behind the drainpipe",
            (pipe_x + (26 if x < 256 else -26), 360),
            88,
            lambda: sheet.stamp(pipe, (pipe_x, 235), shadow=0.3),
        ),
        Spot("on the meter cabinet", (inner, 160), 80, None),
        Spot(
            "beside the bin",
            (bin_x - (80 if x < 256 else -80), 430),
            92,
            lambda: sheet.stamp(container, (bin_x, 380), shadow=0.5),
        ),
        Spot("on the pavement", (256 + random.randint(-30, 30), 420), 92, None),
    ]


def _far_houses(sheet: Sheet, random: Random, area: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = area
    x = left
    while x < right:
        wide, high = random.randint(20, 50), random.randint(30, max(31, bottom - top - 10))
        sheet.draw.rectangle((x, bottom - high, min(right, x + wide), bottom), fill=vary((112, 112, 120), random, 30))
        x += wide


def draw_stairwell(sheet: Sheet, random: Random, night: bool) -> list[Spot]:
    """Stairs going up, a pipe, a meter cabinet and a radiator."""
    upper, lower = (
        vary((208, 202, 188), random),
        vary(random.choice(((110, 140, 120), (120, 130, 160), (170, 130, 96))), random),
    )
    side = make_wall("plaster", upper, random)
    side.paste(make_wall("plaster", lower, random, 300, 130), (0, 170))
    back = make_wall("plaster", darken(upper, 0.55 if night else 0.85), random)
    floor = make_wall("tiled", vary((150, 140, 128), random), random)
    sheet.rgb.paste(darken(upper, 0.5 if night else 0.92), (0, 0, SHEET_PX, SHEET_PX))  # the ceiling
    left, _, right, bottom = _room(sheet, random, side, back, floor)
    _stairs(sheet, random, (left, right, bottom))
    pipe_x, cabinet_x = (random.randint(56, 96), random.randint(400, 440))[:: random.choice((1, -1))]
    pipe = draw_pipe(
        520,
        random.randint(24, 40),
        vary(random.choice(((176, 172, 160), (140, 70, 54), (110, 116, 120))), random),
        random,
    )
    cabinet = draw_cabinet(
        112, 150, vary(random.choice(((170, 40, 38), (150, 152, 150), (200, 196, 180))), random), random
    )
    sheet.stamp(cabinet, (cabinet_x, 210), shadow=0.5)
    radiator = draw_radiator(random)
    inward = 26 if pipe_x < 256 else -26
    return [
        Spot(
            "behind the pipe",
            (pipe_x + inward, random.randint(290, 380)),
            88,
            lambda: sheet.stamp(pipe, (pipe_x, 250), shadow=0.4),
        ),
        Spot("on the cabinet", (cabinet_x, 105), 84, None),
        Spot(
            "behind the radiator",
            (cabinet_x - (cabinet_x > 256) * 10, 322),
            92,
            lambda: sheet.stamp(radiator, (cabinet_x, 410), shadow=0.5),
        ),
        Spot("at the foot of the stairs", ((left + right) / 2, min(440, bottom + 110)), 92, None),
    ]


def _stairs(sheet: Sheet, random: Random, frame: tuple[int, int, int]) -> None:
    left, right, bottom = frame
    stone, steps = vary((170, 164, 156), random), random.randint(6, 9)
    middle, half, y = (left + right) / 2, (right - left) * 0.62, bottom + 60.0
    for step in range(steps):
        shrink = 0.9**step
        wide, rise, tread = half * shrink, 20 * shrink, 9 * shrink
        sheet.draw.rectangle((middle - wide, y - rise, middle + wide, y), fill=darken(stone, 0.62 - 0.02 * step))
        y -= rise
        sheet.draw.polygon(
            [
                (middle - wide, y),
                (middle + wide, y),
                (middle + wide * 0.93, y - tread),
                (middle - wide * 0.93, y - tread),
            ],
            fill=darken(stone, 1.05 - 0.04 * step),
        )
        y -= tread
    iron = vary((60, 56, 54), random)
    for edge in (-1, 1):
        low, high = (middle + edge * half, bottom + 10), (middle + edge * half * 0.9**steps, y - 30)
        sheet.draw.line([(low[0], low[1] - 30), high], fill=iron, width=6)
        for post in range(steps + 1):
            share = post / steps
            x, top = low[0] + (high[0] - low[0]) * share, low[1] - 30 + (high[1] - low[1] + 30) * share
            sheet.draw.line((x, top, x, top + 64 * (1 - 0.5 * share)), fill=iron, width=3)


def draw_lockers(sheet: Sheet, random: Random, night: bool) -> list[Spot]:
    """A bank of lockers, one of them open."""
    colour = vary(
        random.choice(((90, 120, 150), (150, 152, 150), (170, 130, 70), (96, 130, 104), (150, 66, 60))), random
    )
    sheet.rgb.paste(make_wall("plaster", darken((196, 190, 180), 0.6 if night else 1.0), random, 512, 512))
    sheet.rgb.paste(make_wall("tiled", vary((120, 116, 110), random), random, 512, 90), (0, 430))
    columns, rows = random.randint(3, 4), random.randint(2, 3)
    wide, high, top = 480 // columns, 400 // rows, random.randint(16, 34)
    opened = (random.randrange(1, columns), random.randrange(rows))
    number, font = random.randint(1, 80), load_font(find_fonts("en")[1], 20)
    for row in range(rows):
        for column in range(columns):
            corner = (16 + column * wide, top + row * high)
            if (column, row) == opened:
                inside = np.linspace(0.28, 0.5, high, dtype=np.float32)[:, None, None]
                dark = paint(colour, wide, high, random, "rough", 0.05) * inside
                sheet.rgb.paste(Image.fromarray(dark.astype(np.uint8)), corner)
                sheet.draw.rectangle(
                    (*corner, corner[0] + wide, corner[1] + high), outline=darken(colour, 0.5), width=6
                )
                continue
            sheet.rgb.paste(_door(wide, high, colour, random), corner)
            plate = str(number + row * columns + column)
            sheet.draw.text(
                (corner[0] + wide / 2, corner[1] + 18), plate, fill=darken(colour, 0.25), font=font, anchor="mm"
            )
    x, y = 16 + opened[0] * wide, top + opened[1] * high
    leaf = _door(wide, high, darken(colour, 0.8), random)
    sheet.spread(leaf, [(x - wide * 0.42, y - 12), (x, y), (x, y + high), (x - wide * 0.42, y + high + 14)])
    return [
        Spot("inside the open locker", (x + wide / 2, y + high * 0.66), min(96, round(wide * 0.72))),
        Spot("below the lockers", (random.randint(120, 390), 452), 92),
    ]


def _door(wide: int, high: int, colour: Colour, random: Random) -> Image.Image:
    door = light_up(Image.new("L", (wide, high), 255), colour, random, 0.06, 0.04).convert("RGB")
    draw = ImageDraw.Draw(door)
    draw.rectangle((0, 0, wide - 1, high - 1), outline=darken(colour, 0.45), width=3)
    for slit in range(4):
        draw.line((wide * 0.3, 32 + 9 * slit, wide * 0.7, 32 + 9 * slit), fill=darken(colour, 0.5), width=4)
    draw.rounded_rectangle((wide - 26, high * 0.5, wide - 14, high * 0.5 + 30), 3, fill=darken(colour, 0.4))
    if random.random() < 0.2:
        shade = vary(COLOURS[random.choice(sorted(COLOURS))], random)
        draw.ellipse((wide * 0.3, high * 0.6, wide * 0.3 + 30, high * 0.6 + 30), fill=shade)
    return door


def draw_park(sheet: Sheet, random: Random, night: bool) -> list[Spot]:
    """Grass, a path, trees, a bench and a stone."""
    horizon = random.randint(170, 220)
    sky = (22, 26, 44) if night else vary(random.choice(((160, 194, 226), (206, 208, 210), (226, 196, 160))), random)
    sheet.rgb.paste(sky, (0, 0, SHEET_PX, SHEET_PX))
    leaf = vary(random.choice(((70, 104, 52), (120, 100, 50), (60, 90, 70))), random)
    grass = Image.fromarray(paint(vary((96, 126, 62), random), 400, 300, random, "grain", 0.24))
    sheet.spread(grass, [(-200, horizon), (712, horizon), (1000, 620), (-480, 620)])
    crowns = cut_texture("cloud", 512, 130, random) + np.linspace(-1.2, 1.6, 130)[:, None] > 0
    leaves = paint(darken(leaf, 0.75), 512, 130, random, "rough", 0.2)
    sheet.rgb.paste(Image.fromarray(leaves), (0, horizon - 118), Image.fromarray((crowns * 255).astype(np.uint8)))
    x = random.randint(180, 330)
    path = make_wall("concrete", vary((176, 160, 130), random), random, 200, 300)
    sheet.spread(path, [(x - 34, horizon + 4), (x + 34, horizon + 4), (x + 210, 520), (x - 210, 520)])
    for _ in range(random.randint(2, 5)):
        plant_tree(sheet, random, (random.randint(10, 500), horizon + random.randint(8, 50)), leaf)
    tree_x, bench_x = (random.randint(60, 110), random.randint(380, 420))[:: random.choice((1, -1))]
    trunk = np.ascontiguousarray(paint(vary((94, 74, 56), random), 96, 440, random, "fibre", 0.2))
    bark = Image.fromarray(
        np.clip(trunk * (0.5 + 0.6 * np.sin(np.linspace(0.3, 2.8, 96)))[None, :, None], 0, 255).astype(np.uint8)
    )
    sheet.spread(bark, [(tree_x - 40, -20), (tree_x + 40, -20), (tree_x + 54, 410), (tree_x - 54, 410)])
    stone = draw_stone(random)
    bench = draw_bench(random)
    stone_x = 256 + random.randint(-40, 40)
    return [
        Spot("under the bench", (bench_x, 392), 88, lambda: sheet.stamp(bench, (bench_x, 360), shadow=0.35)),
        Spot("at the foot of the tree", (tree_x + (54 if tree_x < 256 else -54), 410), 92, None),
        Spot("behind the stone", (stone_x, 344), 92, lambda: sheet.stamp(stone, (stone_x + 14, 410), shadow=0.5)),
        Spot("on the path", (x, 430), 92, None),
    ]


BACKDROPS: dict[str, Callable[[Sheet, Random, bool], list[Spot]]] = {
    "street": draw_street,
    "stairwell": draw_stairwell,
    "locker room": draw_lockers,
    "park": draw_park,
}
