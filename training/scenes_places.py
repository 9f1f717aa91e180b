"""Places by day and by night; a hidden packet makes one a deal place, the litter and post of everybody does not.

What decides: a taped packet, a press-seal bag or an envelope with a drawn mark and no address. The same backdrops,
spots, lamps and drawn rings occur in both classes.
"""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

from training.scenes_backdrops import BACKDROPS, Spot
from training.scenes_common import PLACE, SHEET_PX, Scene, Sheet, change_one, turn, vary
from training.scenes_finds import HIDDEN_KINDS, draw_harmless, draw_hidden
from training.scenes_sprites import draw_mark

CROWD = (10, 20)  # things lying in a crowded place
CROWD_WIDTHS_PX = (26, 110)  # on the sheet, from a find in a photo sent in a chat to one that is held up to the camera
CLOSE_UPS = 0.8
CLOSE_UP_SHARES = (0.42, 0.75)  # of the sheet's side


def draw_place(label: int, random: Random) -> Scene:
    """A place with something lying in it.

    Args:
        label: ``PLACE`` for a deal place, ``UNRELATED`` for any other.
        random: decides everything else.
    """
    name = random.choice(sorted(BACKDROPS))
    night = random.random() < 0.4
    sheet = Sheet()
    spots = BACKDROPS[name](sheet, random, night)
    _litter(sheet, random)
    chosen = random.choice(spots)
    what = _lay(sheet, spots, chosen, label, random)
    if night:
        _darken(sheet, chosen, random)
    if random.random() < 0.25:
        _ring(sheet, chosen, random)
    if random.random() < CLOSE_UPS:
        _come_closer(sheet, chosen, random)
    when, otherwise = ("at night", "by day")[:: 1 if night else -1]
    elsewhere = random.choice([spot.where for spot in spots if spot.where != chosen.where])
    claims = [
        change_one("The place is a {}.", name, random.choice([other for other in sorted(BACKDROPS) if other != name])),
        change_one("The picture was taken {}.", when, otherwise),
        change_one(f"The {what} is {{}}.", chosen.where, elsewhere),
    ]
    article = "an" if what[0] in "aeiou" else "a"
    return Scene(sheet, label, f"place/{name}", f"A {name} {when} with {article} {what} {chosen.where}.", claims)


def draw_crowded(label: int, random: Random) -> Scene:
    """A place strewn with things of all sizes, where every picture teaches what ten of ``draw_place`` do.

    To learn from only: nobody photographs such places.

    Args:
        label: ``PLACE`` if half of the things are hidden packets, ``UNRELATED`` if none is.
        random: decides everything else.
    """
    name = random.choice(sorted(BACKDROPS))
    sheet = Sheet()
    spots = BACKDROPS[name](sheet, random, False)
    _litter(sheet, random)
    taken: list[tuple[float, float, float]] = []
    for _ in range(random.randint(*CROWD)):
        low, high = CROWD_WIDTHS_PX
        width = low * (high / low) ** random.random()
        x, y = (random.uniform(0.5 * width, SHEET_PX - 0.5 * width) for _ in range(2))
        if any(np.hypot(x - a, y - b) < 0.75 * (width + other) for a, b, other in taken):
            continue
        hidden = label == PLACE and (not taken or random.random() < 0.5)
        drawn = random.choice(spots).width  # in its usual size, and scaled as a photograph of it would be
        sprite, what = (
            draw_hidden(random.choice(HIDDEN_KINDS), drawn, random) if hidden else draw_harmless(drawn, random)
        )
        sprite = turn(sprite, random.uniform(-24, 24))
        size = (max(1, round(side * width / drawn)) for side in sprite.size)
        part = sheet.add_part(what) if hidden else 0
        sheet.stamp(sprite.resize(tuple(size), Image.Resampling.BICUBIC), (x, y), part, shadow=0.5)
        taken.append((x, y, width))
    if random.random() < 0.4:
        _darken(sheet, Spot("", (random.uniform(100, 412), random.uniform(100, 412)), 0), random)
    return Scene(sheet, label, f"crowd/{name}", f"A {name} with many things lying in it.")


def _come_closer(sheet: Sheet, spot: Spot, random: Random) -> None:
    """Keep the part of the sheet around a spot, as whoever photographs a find steps up to it."""
    side = round(SHEET_PX * random.uniform(*CLOSE_UP_SHARES))
    margin = 0.75 * spot.width  # of the thing, which stays inside whole
    corner = []
    for centre in spot.xy:
        lowest, highest = centre + margin - side, centre - margin
        corner.append(min(max(0.0, random.uniform(lowest, max(lowest, highest))), float(SHEET_PX - side)))
    left, top = (round(value) for value in corner)
    box, size = (left, top, left + side, top + side), sheet.size
    sheet.rgb = sheet.rgb.crop(box).resize(size, Image.Resampling.BICUBIC)
    sheet.ids = sheet.ids.crop(box).resize(size, Image.Resampling.NEAREST)


def _litter(sheet: Sheet, random: Random) -> None:
    """Leaves, butts and stains on the ground, too small to matter."""
    for _ in range(random.randint(3, 22)):
        y = random.uniform(400, 505)
        x, size = random.uniform(5, 505), (y - 330) / 30
        shade = vary(random.choice(((150, 110, 60), (210, 206, 196), (70, 66, 60), (120, 130, 70))), random, 20)
        box = (x - size * random.uniform(0.6, 1.8), y - size * 0.5, x + size * random.uniform(0.6, 1.8), y + size * 0.5)
        sheet.draw.ellipse(box, fill=shade)


def _lay(sheet: Sheet, spots: list[Spot], chosen: Spot, label: int, random: Random) -> str:
    """Put the deciding thing at its spot and litter at some others; the thing's name."""
    if label == PLACE:
        sprite, what = draw_hidden(random.choice(HIDDEN_KINDS), chosen.width, random)
    else:
        sprite, what = draw_harmless(chosen.width, random)
    for spot in spots:
        if spot is chosen:
            sheet.stamp(turn(sprite, random.uniform(-24, 24)), spot.xy, sheet.add_part(what), shadow=0.5)
        elif random.random() < 0.4:
            litter, name = draw_harmless(round(spot.width * 0.8), random)
            if name != what:
                sheet.stamp(turn(litter, random.uniform(-24, 24)), spot.xy, shadow=0.5)
        if spot.front:
            spot.front()
    return what


def _darken(sheet: Sheet, spot: Spot, random: Random) -> None:
    """Night: blue and dim, with a lamp or torch near the thing."""
    y, x = np.mgrid[0:SHEET_PX:64j, 0:SHEET_PX:64j]
    reach = random.uniform(110, 220)
    far = np.hypot(x - spot.xy[0] - random.uniform(-50, 50), y - spot.xy[1] - random.uniform(-60, 30)) / reach
    lamp = np.array(random.choice(((1.0, 0.86, 0.6), (0.9, 0.95, 1.0), (1.0, 0.74, 0.42))))
    pool = np.exp(-(far**2))[..., None] * lamp * random.uniform(0.7, 1.05)
    sheet.shade((random.uniform(0.26, 0.44) * np.array([0.8, 0.9, 1.2]) + pool).astype(np.float32))


def _ring(sheet: Sheet, spot: Spot, random: Random) -> None:
    """A ring or an arrow drawn over the picture, as people do to point at anything."""
    ink = random.choice(((226, 30, 30), (250, 220, 40), (40, 220, 90)))
    x, y = spot.xy
    if random.random() < 0.6:
        draw_mark(sheet.draw, "ring", (x, y), spot.width * 0.85, ink, 6)
        return
    side = 1 if x < SHEET_PX / 2 else -1
    start, tip = (x + side * 170, y - 130), (x + side * 62, y - 46)
    sheet.draw.line([start, tip], fill=ink, width=8)
    sheet.draw.polygon([tip, (tip[0] + side * 34, tip[1] - 8), (tip[0] + side * 12, tip[1] - 34)], fill=ink)
