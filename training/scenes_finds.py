"""What lies about in places: hidden packets, and litter, post and lost things."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw

from training.scenes_common import COLOURS, vary
from training.scenes_sprites import (
    blank,
    carton,
    crystals,
    envelope,
    herb,
    light_up,
    powder,
    tablet,
    taped_packet,
    zip_bag,
)

MARKS = ("cross", "ring", "triangle", "two bars")
_WRAPS = ("black", "brown", "green", "blue", "grey")


def draw_hidden(kind: str, width: int, random: Random) -> tuple[Image.Image, str]:
    """What makes a place a deal place; the sprite and its name.

    Args:
        kind: ``packet``, ``bag`` or ``envelope``.
        width: of the sprite in px.
        random: chooses colours and marks.
    """
    if kind == "packet":
        colour = random.choice(_WRAPS)
        # Black foil shines, and would be lost in a dark locker.
        shade = (72, 71, 76) if colour == "black" else COLOURS[colour]
        return taped_packet(vary(shade, random, 8), width, random), f"{colour} taped packet"
    if kind == "bag":
        stuff = random.choice(
            (
                ("white powder", powder(COLOURS["white"], width, random)),
                ("brown powder", powder(COLOURS["brown"], width, random)),
                ("dried herb", herb(width, width, random)),
                ("crystals", crystals(COLOURS["white"], width, width, random)),
            )
        )
        narrow = round(width * 0.85)
        return zip_bag(stuff[1], narrow, round(width * 1.05), random, COLOURS["blue"]), f"press-seal bag of {stuff[0]}"
    mark = random.choice(MARKS)
    return envelope(
        width, random, mark
    ), f"envelope marked with a {mark}" if mark != "two bars" else f"envelope marked with {mark}"


HIDDEN_KINDS = ("packet", "packet", "bag", "envelope")


def draw_harmless(width: int, random: Random) -> tuple[Image.Image, str]:
    """What anybody leaves in such a place; the sprite and its name."""
    name = random.choice(sorted(_HARMLESS))
    return _HARMLESS[name](width, random), name


def _can(width: int, random: Random) -> Image.Image:
    mask = Image.new("L", (round(width * 0.55), width), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, width - 1), width * 0.09, fill=255)
    colour = vary(COLOURS[random.choice(("red", "blue", "green", "orange", "grey"))], random)
    sprite = light_up(mask, colour, random, 0.6, 0.03)
    draw = ImageDraw.Draw(sprite)
    draw.ellipse((2, 1, mask.width - 3, width * 0.13), fill=(196, 198, 202))
    draw.ellipse((mask.width * 0.2, width * 0.35, mask.width * 0.8, width * 0.7), fill=(238, 238, 238))
    return sprite


def _cup(width: int, random: Random) -> Image.Image:
    mask = Image.new("L", (round(width * 0.75), width), 0)
    side = mask.width
    ImageDraw.Draw(mask).polygon([(0, 6), (side - 1, 6), (side * 0.82, width - 1), (side * 0.18, width - 1)], fill=255)
    sprite = light_up(mask, vary((236, 232, 224), random, 8), random, 0.5, 0.02)
    draw, band = ImageDraw.Draw(sprite), vary(COLOURS[random.choice(("brown", "green", "red"))], random)
    draw.polygon(
        [
            (side * 0.06, width * 0.34),
            (side * 0.94, width * 0.34),
            (side * 0.87, width * 0.7),
            (side * 0.13, width * 0.7),
        ],
        fill=band,
    )
    draw.ellipse((1, 0, side - 2, width * 0.16), fill=(250, 248, 244), outline=(190, 188, 184))
    return sprite


def _bottle(width: int, random: Random) -> Image.Image:
    tall = round(width * 1.2)
    mask = Image.new("L", (round(width * 0.42), tall), 0)
    pen, side = ImageDraw.Draw(mask), round(width * 0.42)
    pen.rounded_rectangle((0, tall * 0.3, side - 1, tall - 1), side * 0.2, fill=255)
    pen.polygon(
        [(0, tall * 0.36), (side * 0.32, tall * 0.12), (side * 0.68, tall * 0.12), (side, tall * 0.36)], fill=255
    )
    pen.rectangle((side * 0.32, 0, side * 0.68, tall * 0.14), fill=255)
    sprite = light_up(
        mask, vary(random.choice(((60, 110, 66), (110, 70, 36), (160, 190, 205))), random), random, 0.6, 0.04
    )
    ImageDraw.Draw(sprite).rectangle((0, tall * 0.52, side, tall * 0.76), fill=vary((226, 214, 180), random))
    return sprite


def _paper(width: int, random: Random) -> Image.Image:
    sprite, draw = blank(width, width * 0.8)
    tall = width * 0.8
    rim = [
        (width * (0.5 + random.uniform(0.3, 0.5) * x), tall * (0.5 + random.uniform(0.3, 0.5) * y))
        for x, y in ((-1, 0), (-0.7, -0.7), (0, -1), (0.7, -0.7), (1, 0), (0.7, 0.7), (0, 1), (-0.7, 0.7))
    ]
    hub = (width * random.uniform(0.4, 0.6), tall * random.uniform(0.4, 0.6))
    for index, corner in enumerate(rim):
        shade = random.randint(165, 245)
        draw.polygon([hub, corner, rim[(index + 1) % len(rim)]], fill=(shade, shade, shade - 6))
    return sprite


def _ball(width: int, random: Random) -> Image.Image:
    side = round(width * 0.85)
    colour = vary(COLOURS[random.choice(("red", "yellow", "orange", "blue", "white"))], random)
    sprite = tablet(colour, side, random)
    ImageDraw.Draw(sprite).arc(
        (side * 0.2, -side * 0.3, side * 1.3, side * 0.8), 90, 180, fill=(240, 240, 240), width=4
    )
    return sprite


def _parcel(width: int, random: Random) -> Image.Image:
    """A delivered carton: shipping label with a barcode, one straight strip of tape."""
    tall = round(width * random.uniform(0.7, 0.95))
    sprite = light_up(Image.new("L", (width, tall), 255), vary((186, 146, 98), random), random, 0.08, 0.04)
    draw = ImageDraw.Draw(sprite)
    draw.rectangle((0, tall * 0.1, width, tall * 0.2), fill=(206, 172, 124))
    draw.rectangle((width * 0.3, tall * 0.32, width * 0.94, tall * 0.92), fill=(246, 246, 244))
    for x in range(round(width * 0.36), round(width * 0.88), 4):
        draw.line((x, tall * 0.66, x, tall * 0.86), fill=(20, 20, 20), width=random.randint(1, 3))
    for row in range(3):
        draw.line(
            (width * 0.36, tall * (0.39 + 0.08 * row), width * 0.8, tall * (0.39 + 0.08 * row)),
            fill=(90, 90, 90),
            width=2,
        )
    return sprite


def _glove(width: int, random: Random) -> Image.Image:
    tall = round(width * 1.05)
    mask = Image.new("L", (width, tall), 0)
    pen = ImageDraw.Draw(mask)
    pen.rounded_rectangle((width * 0.24, tall * 0.4, width * 0.8, tall - 1), width * 0.12, fill=255)
    for finger in range(4):
        x = width * (0.24 + 0.145 * finger)
        pen.rounded_rectangle(
            (x, tall * (0.08 + 0.05 * (finger in (0, 3))), x + width * 0.125, tall * 0.5), 8, fill=255
        )
    pen.line((width * 0.26, tall * 0.72, width * 0.08, tall * 0.5), fill=255, width=max(5, width // 8))
    return light_up(mask, vary(COLOURS[random.choice(("black", "grey", "red", "blue"))], random), random, 0.3, 0.1)


_HARMLESS = {
    "drinks can": _can,
    "paper cup": _cup,
    "glass bottle": _bottle,
    "crumpled paper": _paper,
    "ball": _ball,
    "delivered parcel": _parcel,
    "lost glove": _glove,
    "addressed letter": lambda width, random: envelope(width, random, "address"),
    "printed box": lambda width, random: carton(
        width,
        round(width * 0.7),
        vary(COLOURS["green"], random, 40),
        random.choice(("녹차", "감기약", "밀가루")),
        random,
    ),
}
