"""Tables, floors and walls that things lie on or hang at."""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

from training.scenes_common import COLOURS, SHEET_PX, Colour, Pixels, Sheet, cut_texture, paint, scale_pixels, vary

_WOODS: tuple[Colour, ...] = ((150, 104, 66), (196, 158, 112), (92, 62, 44), (220, 200, 170), (120, 110, 100))


def lay_surface(sheet: Sheet, random: Random) -> str:
    """Cover a sheet with one of several table tops; its name for captions."""
    name = random.choice(sorted(_SURFACES))
    pixels = _SURFACES[name](random)
    light = np.array(
        [[random.uniform(0.75, 1.15) for _ in range(2)] for _ in range(2)], np.float32
    )  # a window or a lamp to one side
    sheet.rgb = Image.fromarray(pixels)
    sheet.shade(light)
    return name


def _wood(random: Random) -> Pixels:
    pixels = paint(vary(random.choice(_WOODS), random), SHEET_PX, SHEET_PX, random, "fibre", 0.12)
    pitch = random.choice((0, 90, 128, 180))
    if pitch:
        offset = random.randrange(pitch)
        shade = np.ones((SHEET_PX, SHEET_PX), np.float32)
        for start in range(-offset, SHEET_PX, pitch):
            shade[:, max(0, start) : max(0, start + pitch)] *= random.uniform(0.85, 1.1)
            shade[:, max(0, start) : max(0, start) + 3] *= 0.55
        pixels = scale_pixels(pixels, shade)
    return np.ascontiguousarray(pixels if random.random() < 0.5 else pixels.transpose(1, 0, 2))


def _marble(random: Random) -> Pixels:
    base = vary(random.choice(((226, 224, 220), (70, 72, 74), (200, 190, 176))), random)
    veins = np.exp(-np.abs(cut_texture("cloud", SHEET_PX, SHEET_PX, random)) * 9)
    rough = cut_texture("rough", SHEET_PX, SHEET_PX, random)
    return scale_pixels(np.full((SHEET_PX, SHEET_PX, 3), base, np.uint8), 1 - 0.35 * veins + 0.03 * rough)


def _cloth(random: Random) -> Pixels:
    colour = vary(COLOURS[random.choice(sorted(COLOURS))], random, 24)
    pixels = paint(colour, SHEET_PX, SHEET_PX, random, "grain", 0.05)
    y, x = np.mgrid[0:SHEET_PX, 0:SHEET_PX].astype(np.float32)
    pitch = random.choice((24, 40, 64))
    pattern = random.choice(("plain", "stripes", "checks"))
    factor = 1 + 0.14 * cut_texture("cloud", SHEET_PX, SHEET_PX, random)  # folds
    if pattern != "plain":
        factor = factor * np.where((x // pitch) % 2 < 1, 1.0, 0.78)
    if pattern == "checks":
        factor = factor * np.where((y // pitch) % 2 < 1, 1.0, 0.78)
    return scale_pixels(pixels, factor.astype(np.float32))


def _tiles(random: Random) -> Pixels:
    colour = vary(random.choice(((210, 206, 196), (120, 140, 150), (170, 120, 96), (232, 232, 230))), random)
    pixels = paint(colour, SHEET_PX, SHEET_PX, random, "rough", 0.05)
    pitch, gap = random.choice((96, 140, 200)), random.choice((4, 6))
    y, x = np.mgrid[0:SHEET_PX, 0:SHEET_PX]
    shift_x, shift_y = random.randrange(pitch), random.randrange(pitch)
    joints = ((x + shift_x) % pitch < gap) | ((y + shift_y) % pitch < gap)
    return scale_pixels(pixels, np.where(joints, 0.68, 1.0).astype(np.float32))


def _plain(random: Random) -> Pixels:
    colour = vary(random.choice(((40, 40, 44), (222, 220, 214), (96, 110, 126), (150, 148, 140))), random)
    return paint(colour, SHEET_PX, SHEET_PX, random, "rough", random.uniform(0.02, 0.1))


def _carpet(random: Random) -> Pixels:
    colour = vary(random.choice(((110, 60, 58), (70, 84, 104), (150, 140, 120), (84, 96, 74))), random)
    pixels = paint(colour, SHEET_PX, SHEET_PX, random, "grain", 0.2)
    return scale_pixels(pixels, 1 + 0.08 * cut_texture("cloud", SHEET_PX, SHEET_PX, random))


_SURFACES = {
    "a wooden table": _wood,
    "a marble counter": _marble,
    "a cloth": _cloth,
    "tiles": _tiles,
    "a plain desk": _plain,
    "a carpet": _carpet,
}
