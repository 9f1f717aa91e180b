"""Walls, pipes, cars, trees and furniture that backdrops are built from."""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image, ImageDraw

from training.scenes_common import COLOURS, Colour, Sheet, cut_texture, darken, paint, scale_pixels, vary
from training.scenes_sprites import light_up


def make_wall(kind: str, colour: Colour, random: Random, width: int = 300, height: int = 300) -> Image.Image:
    """A flat wall: ``plaster``, ``brick``, ``tiled`` or ``concrete``."""
    pixels = paint(colour, width, height, random, "rough", 0.07 if kind != "concrete" else 0.13)
    if kind in ("brick", "tiled"):
        high, wide = (14, 36) if kind == "brick" else (30, 30)
        y, x = np.mgrid[0:height, 0:width]
        row = y // high
        offset = (row % 2) * (wide // 2) if kind == "brick" else 0
        joint = (y % high < 2) | ((x + offset) % wide < 2)
        tone = 1 + 0.12 * np.sin(row * 12.9 + ((x + offset) // wide) * 78.2) * (kind == "brick")
        pixels = scale_pixels(pixels, np.where(joint, 1.3 if kind == "brick" else 0.7, tone).astype(np.float32))
    return Image.fromarray(scale_pixels(pixels, 1 - 0.1 * np.maximum(cut_texture("cloud", width, height, random), 0)))


def draw_pipe(length: int, thick: int, colour: Colour, random: Random) -> Image.Image:
    """An upright pipe with two clamps."""
    mask = Image.new("L", (thick + 10, length), 0)
    ImageDraw.Draw(mask).rectangle((5, 0, thick + 4, length), fill=255)
    across = np.sin(np.linspace(0.25, 2.7, thick + 10))
    pixels = paint(colour, thick + 10, length, random, "rough", 0.06) * (0.45 + 0.65 * across)[None, :, None]
    sprite = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGBA")
    pen = ImageDraw.Draw(mask)
    for share in (0.22, 0.72):
        y = round(length * share)
        pen.rectangle((0, y, thick + 9, y + 12), fill=255)
        ImageDraw.Draw(sprite).rectangle((0, y, thick + 9, y + 12), fill=darken(colour, 0.55))
    sprite.putalpha(mask)
    return sprite


def draw_cabinet(width: int, height: int, colour: Colour, random: Random) -> Image.Image:
    """A metal cabinet on a wall."""
    sprite = light_up(Image.new("L", (width, height), 255), colour, random, 0.08, 0.04)
    draw = ImageDraw.Draw(sprite)
    draw.rectangle((6, 6, width - 7, height - 7), outline=darken(colour, 0.6), width=2)
    draw.rectangle((width - 20, height // 2 - 8, width - 14, height // 2 + 8), fill=darken(colour, 0.4))
    for slit in range(3):
        draw.line((width * 0.25, 18 + 7 * slit, width * 0.7, 18 + 7 * slit), fill=darken(colour, 0.5), width=2)
    return sprite


def park_car(sheet: Sheet, random: Random, at: tuple[int, int]) -> None:
    """A car from behind, standing at ``at``."""
    width = random.randint(70, 100)
    mask = Image.new("L", (width, round(width * 0.62)), 0)
    pen, high = ImageDraw.Draw(mask), round(width * 0.62)
    pen.rounded_rectangle((0, high * 0.4, width - 1, high * 0.9), high * 0.16, fill=255)
    pen.polygon(
        [(width * 0.16, high * 0.45), (width * 0.27, 2), (width * 0.73, 2), (width * 0.84, high * 0.45)], fill=255
    )
    for side in (0.08, 0.76):
        pen.rectangle((width * side, high * 0.8, width * (side + 0.16), high - 1), fill=255)
    sprite = light_up(mask, vary(COLOURS[random.choice(sorted(COLOURS))], random), random, 0.2, 0.03)
    draw = ImageDraw.Draw(sprite)
    glass = [
        (width * 0.24, high * 0.4),
        (width * 0.31, high * 0.1),
        (width * 0.69, high * 0.1),
        (width * 0.76, high * 0.4),
    ]
    draw.polygon(glass, fill=(46, 56, 66))
    for side in (0.06, 0.8):
        draw.ellipse((width * side, high * 0.5, width * (side + 0.14), high * 0.64), fill=(200, 60, 50))
        draw.rectangle((width * (side + 0.02), high * 0.86, width * (side + 0.16), high - 1), fill=(20, 20, 22))
    sheet.stamp(sprite, at, shadow=0.5)


def draw_bin(random: Random) -> Image.Image:
    """A rubbish bin."""
    mask = Image.new("L", (120, 180), 0)
    ImageDraw.Draw(mask).polygon([(0, 20), (119, 20), (104, 179), (16, 179)], fill=255)
    colour = vary(random.choice(((60, 90, 66), (70, 72, 76), (50, 70, 110))), random)
    sprite = light_up(mask, colour, random, 0.3, 0.05)
    draw = ImageDraw.Draw(sprite)
    draw.rounded_rectangle((0, 4, 119, 34), 8, fill=darken(colour, 0.75))
    for rib in range(4):
        draw.line((26 + 22 * rib, 44, 30 + 20 * rib, 170), fill=darken(colour, 0.8), width=4)
    return sprite


def draw_radiator(random: Random) -> Image.Image:
    """A ribbed radiator."""
    colour = vary((214, 212, 204), random)
    sprite = light_up(Image.new("L", (160, 112), 255), darken(colour, 0.6), random, 0.1, 0.03)
    for rib in range(8):
        sprite.alpha_composite(draw_pipe(104, 18, colour, random), (rib * 20 - 4, 4))
    draw = ImageDraw.Draw(sprite)
    for y in (0, 100):
        draw.rounded_rectangle((0, y, 159, y + 11), 5, fill=darken(colour, 0.92))
    return sprite


def draw_stone(random: Random) -> Image.Image:
    """A boulder."""
    mask = Image.new("L", (150, 96), 0)
    rim = [(75 + 74 * a * random.uniform(0.8, 1), 52 + 44 * b * random.uniform(0.8, 1)) for a, b in _OCTAGON]
    ImageDraw.Draw(mask).polygon(rim, fill=255)
    return light_up(mask, vary((128, 124, 118), random), random, 0.35, 0.16)


_OCTAGON = ((-1, 0), (-0.75, -0.7), (0, -1), (0.75, -0.7), (1, 0), (0.75, 0.8), (0, 1), (-0.75, 0.8))


def draw_bench(random: Random) -> Image.Image:
    """A bench from the front."""
    sprite = Image.new("RGBA", (210, 170), (0, 0, 0, 0))
    draw, timber = ImageDraw.Draw(sprite), vary(random.choice(((130, 92, 56), (90, 70, 60), (70, 96, 80))), random)
    for post in (20, 178):
        draw.rectangle((post, 10, post + 10, 166), fill=(46, 46, 48))
    for slat, y in enumerate((6, 30, 54, 82, 98)):
        draw.rectangle((0, y, 209, y + 13), fill=darken(timber, 1 - 0.05 * slat))
        draw.line((0, y + 13, 209, y + 13), fill=darken(timber, 0.5), width=2)
    return sprite


def plant_tree(sheet: Sheet, random: Random, foot: tuple[int, int], leaf: Colour) -> None:
    """A tree far away with its trunk's foot at ``foot``."""
    high = round((foot[1] - 100) * random.uniform(0.8, 1.1))
    sheet.draw.rectangle((foot[0] - high // 22, foot[1] - high, foot[0] + high // 22, foot[1]), fill=(74, 60, 48))
    size = round(high * 0.8)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    crown = np.hypot(x, y) + 0.22 * cut_texture("cloud", size, size, random) < 0.85
    leaves = paint(darken(leaf, random.uniform(0.8, 1.2)), size, size, random, "rough", 0.25) * (1 - 0.3 * y)[..., None]
    sprite = Image.fromarray(np.clip(leaves, 0, 255).astype(np.uint8)).convert("RGBA")
    sprite.putalpha(Image.fromarray((crown * 255).astype(np.uint8)))
    sheet.stamp(sprite, (foot[0], foot[1] - high), shadow=0.2)
