"""Substances, packets and their look-alikes as single sprites (RGBA), lit from the upper left."""

from __future__ import annotations

import math
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.scenes_common import (
    Colour,
    cut_texture,
    darken,
    find_fonts,
    load_font,
    paint,
    scale_pixels,
    vary,
    with_alpha,
)

CLEAR: Colour = (225, 230, 235)
_LINE_STRETCH = 0.3  # powder flatter than this lies in a line


def blank(width: float, height: float) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty sprite and a pen for it."""
    sprite = Image.new("RGBA", (max(4, round(width)), max(4, round(height))), (0, 0, 0, 0))
    return sprite, ImageDraw.Draw(sprite)


def light_up(mask: Image.Image, colour: Colour, random: Random, bulge: float = 0.3, depth: float = 0.05) -> Image.Image:
    """A body of one colour with the outline of ``mask``, bright at its upper left and dark at its lower right edge.

    Args:
        mask: opacity, L.
        colour: of the body.
        random: chooses its grain.
        bulge: share of the sprite over which its edges bend away.
        depth: strength of the grain.
    """
    width, height = mask.size
    reach = max(3, round(min(width, height) * bulge))
    high = cv2.blur(np.asarray(mask), (reach, reach), borderType=cv2.BORDER_CONSTANT).astype(np.float32) / 255
    shift = max(1, reach // 3)
    slope = np.roll(high, (-shift, -shift), (0, 1)) - np.roll(high, (shift, shift), (0, 1))
    pixels = scale_pixels(paint(colour, width, height, random, "rough", depth), 1 + np.float32(0.45) * slope)
    return with_alpha(pixels, mask)


def powder(colour: Colour, size: int, random: Random, stretch: float = 1.0) -> Image.Image:
    """A heap of powder, ``size`` px wide (at most 340) and ``size * stretch`` high."""
    height = max(8, round(size * stretch))
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : size * 1j]
    bumps = cut_texture("cloud", 3 * size, 3 * height, random)[::3, ::3]  # shapes small enough to make its rim ragged
    grain = cut_texture("rough", size, height, random)
    if stretch < _LINE_STRETCH:
        far = np.sqrt(np.abs(x) ** 14 + y**2)  # square ends
    else:
        far = np.hypot(x, y) * np.clip(1.2 + 0.26 * bumps, 1, 2)  # round and ragged
    heap = np.clip(1.02 - far**1.4 + 0.12 * bumps, 0, None).astype(np.float32) + 0.02 * grain
    fade = np.clip(1.0 - far, 0, 1)
    alpha = np.clip((heap - 0.16) * 7, 0, 1) * np.clip(fade * 9, 0, 1)
    return with_alpha(_lit(heap, colour, size, 0.09), Image.fromarray((alpha * 255).astype(np.uint8)))


def _lit(heap: NDArray[np.float32], colour: Colour, size: int, gain: float) -> NDArray[np.uint8]:
    slope = np.asarray(np.gradient(heap, axis=0)) + np.asarray(np.gradient(heap, axis=1))
    light = np.clip(0.94 - slope * gain * size, 0.5, 1.12)
    pixels = np.clip(np.array(colour) * light[..., None], 0, 255)
    return np.asarray(pixels, np.uint8)


def crystals(colour: Colour, width: int, height: int, random: Random) -> Image.Image:
    """Many glassy splinters filling an ellipse."""
    sprite, draw = blank(width, height)
    for _ in range(70):
        angle, far = random.uniform(0, math.tau), math.sqrt(random.random()) * 0.42
        x, y = width * (0.5 + far * math.cos(angle)), height * (0.5 + far * math.sin(angle))
        length, turn_by = random.uniform(0.03, 0.08) * width, random.uniform(0, math.tau)
        points = [
            (
                x + length * random.uniform(0.5, 1) * math.cos(turn_by + k * 1.57),
                y + length * random.uniform(0.4, 1) * math.sin(turn_by + k * 1.57),
            )
            for k in range(4)
        ]
        draw.polygon(points, fill=(*darken(colour, random.uniform(0.62, 1.15)), 235))
    return sprite


def herb(width: int, height: int, random: Random, dry: Colour = (92, 112, 58)) -> Image.Image:
    """Crumbled leaves filling an ellipse."""
    sprite, draw = blank(width, height)
    for _ in range(110):
        angle, far = random.uniform(0, math.tau), math.sqrt(random.random()) * 0.42
        x, y = width * (0.5 + far * math.cos(angle)), height * (0.5 + far * math.sin(angle))
        a, b = random.uniform(0.02, 0.07) * width, random.uniform(0.015, 0.04) * width
        shade = darken(vary(dry, random, 16), random.uniform(0.5, 1.25))
        draw.ellipse((x - a, y - b, x + a, y + b), fill=(*shade, 255))
    return sprite


def tablet(colour: Colour, size: int, random: Random, stamp: str = "") -> Image.Image:
    """A pressed tablet seen from above; ``stamp``: ``score``, ``cross``, ``star``, ``smile`` or nothing."""
    mask = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mask).ellipse((1, 1, size - 2, size - 2), fill=255)
    sprite = light_up(mask, colour, random, 0.3, 0.04)
    draw, middle, reach = ImageDraw.Draw(sprite), size / 2, size * 0.26
    dark, light, thick = darken(colour, 0.66), darken(colour, 1.2), max(1, size // 16)
    for shift, ink in ((thick * 0.8, light), (0.0, dark)):
        c = middle + shift
        if stamp in ("score", "cross"):
            draw.line((c - reach * 1.4, c, c + reach * 1.4, c), fill=ink, width=thick)
        if stamp == "cross":
            draw.line((c, c - reach * 1.4, c, c + reach * 1.4), fill=ink, width=thick)
        if stamp == "star":
            spikes = [(math.tau * k / 10, reach * (1.2 if k % 2 else 0.5)) for k in range(10)]
            draw.polygon([(c + r * math.sin(a), c + r * math.cos(a)) for a, r in spikes], outline=ink, width=thick)
        if stamp == "smile":
            draw.arc((c - reach, c - reach, c + reach, c + reach), 20, 160, fill=ink, width=thick)
            for x in (c - reach * 0.5, c + reach * 0.5):
                draw.ellipse((x - thick, c - reach * 0.6 - thick, x + thick, c - reach * 0.6 + thick), fill=ink)
    return sprite


def sweet(colour: Colour, size: int, random: Random) -> Image.Image:
    """A glossy sugar-coated sweet, or one in a twisted wrapper."""
    if random.random() < 0.5:
        sprite = tablet(colour, size, random)
        draw = ImageDraw.Draw(sprite)
        draw.ellipse((size * 0.25, size * 0.18, size * 0.48, size * 0.34), fill=(255, 255, 255, 210))
        return sprite
    wide = round(size * 2)
    mask = Image.new("L", (wide, size), 0)
    pen = ImageDraw.Draw(mask)
    pen.rounded_rectangle((size * 0.45, size * 0.12, size * 1.55, size * 0.88), size * 0.3, fill=255)
    for edge, tip in ((size * 0.5, 2), (size * 1.5, wide - 3)):
        pen.polygon([(edge, size * 0.5), (tip, size * 0.08), (tip, size * 0.92)], fill=255)
    sprite = light_up(mask, colour, random, 0.25, 0.1)
    draw = ImageDraw.Draw(sprite)
    for k in range(3):
        x = size * (0.7 + 0.25 * k)
        draw.line((x, size * 0.16, x - size * 0.1, size * 0.84), fill=darken(colour, 1.35), width=max(2, size // 10))
    return sprite


def zip_bag(content: Image.Image, width: int, height: int, random: Random, seal: Colour) -> Image.Image:
    """A clear press-seal bag with a content sprite in its lower part."""
    sprite, draw = blank(width, height)
    film = np.full((height, width, 3), CLEAR, np.uint8)
    folds = cut_texture("cloud", width, height, random)
    alpha = np.clip(70 + 34 * folds, 30, 150).astype(np.uint8)
    sprite = with_alpha(film, Image.fromarray(alpha))
    room = content.resize((round(width * 0.92), round(height * 0.7)), Image.Resampling.BILINEAR)
    sprite.alpha_composite(room, (round(width * 0.04), round(height * 0.27)))
    shine = Image.fromarray(np.where(folds > 1.1, np.clip((folds - 1.1) * 220, 0, 170), 0).astype(np.uint8))
    gloss = Image.new("RGBA", sprite.size, (255, 255, 255, 0))
    gloss.putalpha(shine)
    sprite.alpha_composite(gloss)
    draw = ImageDraw.Draw(sprite)
    thick = max(2, height // 28)
    for level in (0.11, 0.17):
        draw.line((0, height * level, width, height * level), fill=(*seal, 255), width=thick)
    draw.rectangle((0, 0, width - 1, height - 1), outline=(200, 205, 212, 230), width=max(1, width // 50))
    sprite.putalpha(sprite.getchannel("A").point(_THICKEN))
    return sprite


# Film counts as part of the bag, so nothing of it may be fainter than half.
_THICKEN = [max(value, 128) if value else 0 for value in range(256)]


def blister(columns: int, rows: int, size: int, colour: Colour, random: Random, empty: int = 0) -> Image.Image:
    """A foil strip of ``columns`` x ``rows`` tablets, ``empty`` of them pressed out; one cell is ``size`` px wide."""
    width, height = columns * size + size // 3, rows * size + size // 3
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, width - 1, height - 1), size // 5, fill=255)
    sprite = light_up(mask, (186, 190, 196), random, 0.1, 0.1)
    draw = ImageDraw.Draw(sprite)
    pill = tablet(colour, round(size * 0.64), random)
    gone = set(random.sample(range(columns * rows), min(empty, columns * rows - 1)))
    for cell in range(columns * rows):
        x, y = size // 6 + cell % columns * size, size // 6 + cell // columns * size
        inner = (x + size * 0.1, y + size * 0.1, x + size * 0.9, y + size * 0.9)
        draw.ellipse(inner, fill=(150, 154, 160, 255), outline=(226, 230, 234, 255), width=2)
        if cell in gone:
            draw.polygon([(x + size * 0.3, y + size * 0.35), (x + size * 0.7, y + size * 0.3),
                          (x + size * 0.55, y + size * 0.7)], fill=(70, 70, 74, 255))  # fmt: skip
        else:
            sprite.alpha_composite(pill, (round(x + size * 0.18), round(y + size * 0.18)))
            draw.arc((x + size * 0.2, y + size * 0.2, x + size * 0.8, y + size * 0.8), 200, 260, (255,) * 4, 2)
    return sprite


def taped_packet(colour: Colour, width: int, random: Random) -> Image.Image:
    """A flat packet wound with bands of shiny tape."""
    height = round(width * random.uniform(0.5, 0.75))
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((1, 1, width - 2, height - 2), height * 0.2, fill=255)
    sprite = light_up(mask, colour, random, 0.35, 0.16)
    bands, pen = blank(width, height)
    tape = random.choice(((196, 160, 104), (210, 212, 216), (30, 30, 32), (226, 200, 60)))
    if abs(sum(tape) - sum(colour)) < 150:
        tape = (206, 208, 212) if sum(colour) < 380 else (60, 50, 44)
    thick = max(3, round(height * random.uniform(0.16, 0.24)))
    for _ in range(random.randint(3, 5)):  # wound in haste: never straight, never crossing in the middle only
        start, end = (random.uniform(0.05, 0.95) * width for _ in range(2))
        across = random.random() < 0.65
        line = (
            (start, 0.0, end, float(height)) if across else (0.0, start * height / width, width, end * height / width)
        )
        pen.line(line, fill=(*darken(tape, 0.7), 255), width=thick + 2)
        pen.line(line, fill=(*vary(tape, random, 8), 255), width=thick)
        pen.line([c - thick * 0.2 for c in line], fill=(*darken(tape, 1.25), 255), width=max(1, thick // 5))
    sprite.paste(bands, (0, 0), Image.composite(bands.getchannel("A"), Image.new("L", mask.size), mask))
    return sprite


def envelope(width: int, random: Random, mark: str) -> Image.Image:
    """An envelope; ``mark`` is drawn with a thick pen, or ``address`` for stamp and lines of a letter."""
    height = round(width * random.uniform(0.58, 0.7))
    colour = vary(random.choice(((234, 228, 212), (196, 158, 108), (240, 240, 240))), random, 8)
    mask = Image.new("L", (width, height), 255)
    sprite = light_up(mask, colour, random, 0.08, 0.04)
    draw, ink = ImageDraw.Draw(sprite), darken(colour, 0.78)
    if mark == "address":
        for row in range(3):
            y = height * (0.5 + 0.14 * row)
            draw.line(
                (width * 0.4, y, width * random.uniform(0.7, 0.92), y), fill=(60, 60, 90), width=max(1, width // 50)
            )
        draw.rectangle((width * 0.8, height * 0.08, width * 0.95, height * 0.36), fill=(170, 80, 70))
        draw.line((width * 0.06, height * 0.12, width * 0.32, height * 0.12), fill=ink, width=max(1, width // 60))
        return sprite
    draw.line([(0, 0), (width / 2, height * 0.5), (width, 0)], fill=ink, width=max(1, width // 50))
    pen = random.choice(((180, 24, 24), (20, 20, 24), (24, 40, 150)))
    draw_mark(draw, mark, (width * 0.5, height * 0.56), height * 0.3, pen, max(3, height // 9))
    return sprite


def draw_mark(
    draw: ImageDraw.ImageDraw, mark: str, xy: tuple[float, float], reach: float, ink: Colour, thick: int
) -> None:
    """Draw ``cross``, ``ring``, ``triangle`` or ``two bars`` around ``xy``."""
    x, y = xy
    if mark == "cross":
        draw.line((x - reach, y - reach, x + reach, y + reach), fill=ink, width=thick)
        draw.line((x - reach, y + reach, x + reach, y - reach), fill=ink, width=thick)
    elif mark == "ring":
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=ink, width=thick)
    elif mark == "triangle":
        corners = [(x - reach, y + reach * 0.8), (x, y - reach), (x + reach, y + reach * 0.8)]
        draw.line([*corners, *corners[:2]], fill=ink, width=thick, joint="curve")
    else:
        for side in (-0.5, 0.5):
            draw.line((x + side * reach, y - reach, x + side * reach, y + reach), fill=ink, width=thick)


def carton(width: int, height: int, colour: Colour, text: str, random: Random, code: str = "ko") -> Image.Image:
    """A printed box or packet: a coloured band, a name, small print."""
    mask = Image.new("L", (width, height), 255)
    sprite = light_up(mask, vary((240, 240, 238), random, 10), random, 0.06, 0.02)
    draw = ImageDraw.Draw(sprite)
    band = random.choice(((0, 0, 1, 0.28), (0, 0.7, 1, 1), (0, 0, 0.2, 1)))
    draw.rectangle((band[0] * width, band[1] * height, band[2] * width - 1, band[3] * height - 1), fill=colour)
    path, wanted = find_fonts(code)[1], round(height * 0.24)
    fits = min(1.0, 0.7 * width / load_font(path, wanted).getlength(text))
    font = load_font(path, max(8, int(wanted * fits)))
    draw.text((width * 0.6, height * 0.48), text, fill=darken(colour, 0.6), font=font, anchor="mm")
    for row in range(2):
        y = height * (0.6 + 0.05 * row)
        draw.line(
            (width * 0.3, y, width * random.uniform(0.6, 0.9), y), fill=(150, 150, 155), width=max(1, height // 60)
        )
    return sprite
