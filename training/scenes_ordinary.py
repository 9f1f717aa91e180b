"""Ordinary pictures, as most of those on any telephone are: a page of text, a landscape, everyday things on a table.

Nothing in them decides a class, so they have no parts. The other half of the unrelated pictures are look-alikes of the
three other classes (``scenes_chat``, ``scenes_places``, ``scenes_things``).
"""

from __future__ import annotations

from random import Random

import numpy as np
from PIL import Image

from training.scenes_common import (
    SHEET_PX,
    UNRELATED,
    Colour,
    Point,
    Scene,
    Sheet,
    change_one,
    cut_texture,
    find_fonts,
    load_font,
    paint,
    turn,
    vary,
)
from training.scenes_props import draw_bench, plant_tree
from training.scenes_surfaces import lay_surface
from training.scenes_things import EVERYDAY
from training.scenes_words import LANGUAGES, fill_line

_LEAVES: tuple[Colour, ...] = ((70, 104, 52), (120, 128, 60), (168, 120, 48), (52, 84, 58))
_SKIES: dict[str, tuple[Colour, Colour]] = {
    "a blue sky": ((96, 150, 214), (206, 224, 240)),
    "a grey sky": ((128, 132, 140), (196, 198, 200)),
    "a red evening sky": ((92, 84, 130), (236, 150, 92)),
}


def draw_ordinary(_label: int, random: Random) -> Scene:
    """A picture that has to do with no case.

    Args:
        _label: ignored, it is ``UNRELATED``; the other scenes' functions have it too.
        random: decides everything.
    """
    return random.choice((_draw_page, _draw_landscape, _draw_table))(random)


def _draw_page(random: Random) -> Scene:
    """A letter or notice on a table: a heading and harmless lines."""
    sheet = Sheet()
    surface = lay_surface(sheet, random)
    code = random.choice(sorted(LANGUAGES))
    language = LANGUAGES[code]
    file = random.choice(find_fonts(code))
    flat = Sheet(360, 480, vary(random.choice(((246, 244, 236), (236, 226, 200), (226, 232, 240))), random))
    size = random.randint(13, 20)
    y = 30
    flat.draw.text((34, y), random.choice(language.people), fill=(40, 40, 48), font=load_font(file, size + 12))
    y += size + 34
    lines = random.randint(5, 14)
    for _ in range(lines):
        text = fill_line(random.choice(language.plain), language, random)
        flat.draw.text((34, y), text, fill=(58, 58, 66), font=load_font(file, size))
        y += size + random.randint(6, 12)
        if y > 440:
            break
    left, right = 110 + random.randint(-60, 20), 400 + random.randint(-20, 70)
    flatly = ((left, 20), (right, 20), (right, 492), (left, 492))
    corners: list[Point] = [(x + random.randint(-18, 18), y + random.randint(-14, 14)) for x, y in flatly]
    sheet.spread(flat.rgb, corners)
    others = [other.name for other in LANGUAGES.values() if other is not language]
    claims = [
        change_one("The text is in {}.", language.name, random.choice(others)),
        change_one("The picture shows a {}.", "page of text", "landscape"),
    ]
    return Scene(sheet, UNRELATED, f"page/{code}", f"A page of text in {language.name} on {surface}.", claims)


def _draw_landscape(random: Random) -> Scene:
    """Sky, hills, a meadow and some trees."""
    sheet = Sheet()
    name = random.choice(sorted(_SKIES))
    upper, lower = (np.array(vary(colour, random), np.float32) for colour in _SKIES[name])
    share = np.linspace(0, 1, SHEET_PX, dtype=np.float32)[:, None, None]
    clouds = np.clip(cut_texture("cloud", SHEET_PX, SHEET_PX, random) - random.uniform(0.2, 1.6), 0, 1)[..., None]
    sky = (upper * (1 - share) + lower * share) * (1 - clouds) + 236 * clouds
    sheet.rgb = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    horizon = random.randint(220, 340)
    for depth in range(random.randint(1, 3)):
        _raise_hill(sheet, random, horizon - 70 + 40 * depth, 0.55 + 0.2 * depth)
    meadow = paint(vary(random.choice(_LEAVES), random), SHEET_PX, SHEET_PX - horizon, random, "rough", 0.18)
    sheet.rgb.paste(Image.fromarray(meadow), (0, horizon))
    for _ in range(random.randint(0, 4)):
        plant_tree(sheet, random, (random.randint(30, 480), random.randint(horizon, 420)), random.choice(_LEAVES))
    if random.random() < 0.3:
        sheet.stamp(draw_bench(random), (random.randint(120, 400), 430), shadow=0.3)
    sheet.ids = Image.new("L", sheet.size, 0)
    others = [other for other in sorted(_SKIES) if other != name]
    claims = [
        change_one("The landscape lies under {}.", name, random.choice(others)),
        change_one("The picture shows a {}.", "landscape", "page of text"),
    ]
    return Scene(sheet, UNRELATED, "landscape/meadow", f"A landscape with hills under {name}.", claims)


def _raise_hill(sheet: Sheet, random: Random, top: int, light: float) -> None:
    x = np.linspace(0, 2 * np.pi, 24)
    height = np.full_like(x, top)
    for rate in (0.5, 1.0, 2.0):
        height += random.uniform(6, 26) * np.sin(x * rate + random.uniform(0, 6))
    ridge = list(zip((x / x[-1] * SHEET_PX).tolist(), height.tolist(), strict=True))
    green = vary(random.choice(_LEAVES), random)
    shade: Colour = (round(green[0] * light + 60), round(green[1] * light + 60), round(green[2] * light + 70))
    sheet.draw.polygon([(0, SHEET_PX), *ridge, (SHEET_PX, SHEET_PX)], fill=shade)


def _draw_table(random: Random) -> Scene:
    """Keys, coins, mugs and pens in the middle of a table."""
    sheet = Sheet()
    surface = lay_surface(sheet, random)
    shown = random.sample(sorted(EVERYDAY), random.randint(2, min(5, len(EVERYDAY))))
    for place, name in enumerate(shown):
        angle = 2 * np.pi * place / len(shown) + random.uniform(-0.3, 0.3)
        reach = random.uniform(70, 140)
        xy = (256 + reach * float(np.cos(angle)), 256 + reach * float(np.sin(angle)))
        sheet.stamp(turn(EVERYDAY[name](random), random.uniform(0, 360)), xy, shadow=0.45)
    missing = [name for name in sorted(EVERYDAY) if name not in shown]
    claims = [
        change_one("There is a {} on the table.", shown[0], random.choice(missing)),
        change_one("The picture shows {}.", "everyday things", "a landscape"),
    ]
    listed = f"{', '.join(shown[:-1])} and {shown[-1]}"
    return Scene(sheet, UNRELATED, "table/everyday", f"A table with a {listed} on {surface}.", claims)
