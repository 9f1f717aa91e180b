"""Things on a table from above: substances, and kitchens, sweets and medicine that look like them.

What decides: powder, crystals or dried herb in a press-seal bag, in lines or on a pocket scale, stamped tablets loose
or bagged, and tablet strips without print are a substance; the same stuff in a bowl, a printed packet, a tea tin or
beside its medicine carton is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from PIL import Image, ImageDraw

from training.scenes_common import (
    COLOURS,
    SUBSTANCE,
    Claim,
    Colour,
    Scene,
    Sheet,
    change_one,
    darken,
    find_fonts,
    load_font,
    turn,
    vary,
)
from training.scenes_sprites import (
    blank,
    blister,
    carton,
    crystals,
    herb,
    light_up,
    powder,
    sweet,
    tablet,
    zip_bag,
)
from training.scenes_surfaces import lay_surface
from training.scenes_words import GOODS

_PALE = ("white", "yellow", "brown", "pink")
_TABLETS = ("white", "blue", "green", "yellow", "pink", "orange", "purple")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_CODES = ("en", "pl", "ko")  # in the order of the words in GOODS
Drawn = tuple[str, str, list[Claim]]


def draw_things(label: int, random: Random) -> Scene:
    """Things on a surface, seen from above.

    Args:
        label: ``SUBSTANCE``, or ``UNRELATED`` for what only looks like it.
        random: decides everything else.
    """
    sheet = Sheet()
    surface = lay_surface(sheet, random)
    _scatter_clutter(sheet, random)
    choices = _SUBSTANCES if label == SUBSTANCE else _LOOKALIKES
    what, where, claims = random.choice(choices)(sheet, random)
    if random.random() < 0.3:
        _lay_ruler(sheet, random)
    others = [
        name for name in ("a wooden table", "a cloth", "tiles", "a carpet", "a marble counter") if name != surface
    ]
    claims.append(change_one("The things lie on {}.", surface, random.choice(others)))
    return Scene(sheet, label, f"things/{where}", f"{what[0].upper()}{what[1:]} on {surface}.", claims)


def _other(names: tuple[str, ...], name: str, random: Random) -> str:
    return random.choice([other for other in names if other != name])


def _places(
    count: int, reach: float, random: Random, middle: tuple[float, float] = (256, 256)
) -> list[tuple[float, float]]:
    """Centres that keep ``reach`` px apart, within 150 px of the middle where there is room."""
    found: list[tuple[float, float]] = []
    for attempt in range(count * 40):
        span = 60 + 110 * min(1.0, attempt / (count * 12))
        x, y = middle[0] + random.uniform(-span, span), middle[1] + random.uniform(-span, span)
        if all(math.hypot(x - a, y - b) > reach for a, b in found):
            found.append((x, y))
        if len(found) == count:
            break
    return found


def _scatter_clutter(sheet: Sheet, random: Random) -> None:
    """Everyday things near the edge, the same for every class."""
    for _ in range(random.randint(0, 3)):
        angle = random.uniform(0, math.tau)
        x, y = 256 + 235 * math.cos(angle), 256 + 235 * math.sin(angle)
        sprite = EVERYDAY[random.choice(sorted(EVERYDAY))](random)
        sheet.stamp(turn(sprite, random.uniform(0, 360)), (x, y), shadow=0.45)


def _coin(random: Random) -> Image.Image:
    return tablet(vary(random.choice(((196, 170, 96), (176, 178, 182), (168, 110, 70))), random), 46, random, "star")


def _key(random: Random) -> Image.Image:
    sprite, draw = blank(120, 44)
    metal = vary((176, 170, 150), random, 20)
    draw.ellipse((2, 2, 42, 42), fill=metal)
    draw.ellipse((12, 14, 24, 28), fill=(0, 0, 0, 0))
    draw.rectangle((38, 17, 114, 26), fill=darken(metal, 0.9))
    for tooth in range(4):
        draw.rectangle((76 + 10 * tooth, 24, 81 + 10 * tooth, 28 + 3 * (tooth % 3)), fill=darken(metal, 0.85))
    return sprite


def _lighter(random: Random) -> Image.Image:
    mask = Image.new("L", (40, 128), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 39, 127), 10, fill=255)
    sprite = light_up(mask, vary(COLOURS[random.choice(sorted(COLOURS))], random), random, 0.5, 0.02)
    ImageDraw.Draw(sprite).rectangle((2, 2, 37, 34), fill=(168, 170, 174))
    return sprite


def _note(random: Random) -> Image.Image:
    mask = Image.new("L", (190, 86), 255)
    colour = vary(random.choice(((150, 176, 150), (196, 170, 140), (160, 150, 190))), random)
    sprite = light_up(mask, colour, random, 0.1, 0.06)
    draw, ink = ImageDraw.Draw(sprite), darken(colour, 0.66)
    draw.rectangle((6, 6, 183, 79), outline=ink, width=2)
    draw.ellipse((110, 14, 166, 72), outline=ink, width=4)
    font = load_font(find_fonts("en")[1], 24)
    draw.text((20, 20), random.choice(("50", "100", "5000", "20")), fill=ink, font=font)
    return sprite


def _mug(random: Random) -> Image.Image:
    colour = vary(COLOURS[random.choice(sorted(COLOURS))], random)
    sprite = tablet(colour, 150, random)
    draw = ImageDraw.Draw(sprite)
    draw.ellipse((16, 16, 134, 134), fill=darken(colour, 0.7))
    draw.ellipse((20, 24, 130, 132), fill=vary((74, 44, 26), random))
    return sprite


def _pen(random: Random) -> Image.Image:
    mask = Image.new("L", (180, 18), 0)
    ImageDraw.Draw(mask).polygon([(0, 9), (24, 2), (176, 2), (178, 16), (24, 16)], fill=255)
    return light_up(mask, vary(COLOURS[random.choice(sorted(COLOURS))], random), random, 0.5, 0.02)


EVERYDAY: dict[str, Callable[[Random], Image.Image]] = {
    "coin": _coin,
    "key": _key,
    "lighter": _lighter,
    "banknote": _note,
    "mug": _mug,
    "pen": _pen,
}
"""Things that lie on anybody's table, by name."""


def _lay_ruler(sheet: Sheet, random: Random) -> None:
    """A scale bar along an edge, as investigators and shops alike put beside small things."""
    sprite, draw = blank(400, 44)
    draw.rectangle((0, 0, 399, 43), fill=random.choice(((240, 238, 228), (230, 200, 90), (40, 40, 40))))
    ink = (20, 20, 20) if sprite.getpixel((5, 40)) != (40, 40, 40, 255) else (230, 230, 230)
    for tick in range(41):
        draw.line((tick * 10, 0, tick * 10, 20 if tick % 5 == 0 else 11), fill=ink, width=2)
    sheet.stamp(sprite, (256, random.choice((24, 488))), shadow=0.4)


def _stuff(random: Random, size: int) -> tuple[str, str, Image.Image]:
    """Name, colour name and sprite of a loose substance."""
    name = random.choice(("powder", "crystals", "dried herb"))
    if name == "dried herb":
        return name, "green", herb(size, round(size * 0.8), random)
    colour = random.choice(_PALE if name == "powder" else ("white", "blue", "yellow"))
    shade = vary(COLOURS[colour], random, 8)
    make = powder(shade, size, random, 0.85) if name == "powder" else crystals(shade, size, round(size * 0.8), random)
    return name, colour, make


def _bags(sheet: Sheet, random: Random) -> Drawn:
    count = random.randint(1, 4)
    name, colour, _ = _stuff(random, 16)
    width = {1: 220, 2: 160, 3: 130, 4: 118}[count] + random.randint(-14, 14)
    seal = vary(COLOURS[random.choice(("red", "blue", "green", "white"))], random)
    name, colour, content = _stuff(random, width)
    spots = _places(count, width * 1.16, random)
    for spot in spots:
        bag = zip_bag(
            turn(content, random.choice((0, 180))), width, round(width * random.uniform(1.2, 1.4)), random, seal
        )
        sheet.stamp(turn(bag, random.uniform(-50, 50)), spot, sheet.add_part(f"bag of {name}"), 0.4)
    number = _NUMBERS[len(spots)]
    noun = "press-seal bag" if len(spots) == 1 else "press-seal bags"
    claims = [
        change_one(
            "The press-seal bags hold {}.",
            f"{colour} {name}",
            f"{_other(('white', 'blue', 'brown'), colour, random)} {name}",
        ),
        change_one("The number of press-seal bags is {}.", number, _other(_NUMBERS[1:6], number, random)),
    ]
    return f"{number} {noun} of {colour} {name}", "bags", claims


def _lines(sheet: Sheet, random: Random) -> Drawn:
    colour = random.choice(_PALE[:3])
    shade, count = vary(COLOURS[colour], random, 8), random.randint(2, 4)
    mirror, pen = blank(360, 280)
    pen.rounded_rectangle(
        (0, 0, 359, 279), 8, fill=(*vary(random.choice(((50, 60, 70), (24, 24, 26), (150, 170, 180))), random), 255)
    )
    pen.line((30, 270, 190, 10), fill=(255, 255, 255, 40), width=40)
    lean = random.uniform(-30, 30)
    sheet.stamp(turn(mirror, lean), (256, 256), shadow=0.45)
    for row in range(count):
        line = powder(shade, random.randint(170, 220), random, 0.16)
        offset = (row - (count - 1) / 2) * 50
        xy = 256 + offset * math.sin(math.radians(lean)) - 20, 256 + offset * math.cos(math.radians(lean))
        sheet.stamp(turn(line, lean + random.uniform(-4, 4)), xy, sheet.add_part("line of powder"), 0.2)
    card = Image.new("L", (150, 94), 0)
    ImageDraw.Draw(card).rounded_rectangle((0, 0, 149, 93), 9, fill=255)
    sprite = light_up(card, vary(COLOURS[random.choice(sorted(COLOURS))], random), random, 0.08, 0.02)
    ImageDraw.Draw(sprite).rectangle((0, 14, 150, 32), fill=(30, 30, 34))
    sheet.stamp(turn(sprite, random.uniform(0, 180)), (390, 380), shadow=0.4)
    number = _NUMBERS[count]
    claims = [
        change_one("The number of powder lines is {}.", number, _other(_NUMBERS[2:6], number, random)),
        change_one("A {} lies beside the powder.", "card", "spoon"),
    ]
    return f"{number} lines of {colour} powder and a card", "lines", claims


def _tablets(sheet: Sheet, random: Random) -> Drawn:
    colour, stamp = random.choice(_TABLETS), random.choice(("score", "cross", "star", "smile"))
    count, size = random.randint(3, 10), random.randint(52, 78)
    shade = vary(COLOURS[colour], random, 8)
    spots = _places(count, size * 1.08, random)
    for spot in spots:
        sprite = turn(tablet(shade, size, random, stamp), random.uniform(0, 360))
        sheet.stamp(sprite, spot, sheet.add_part("tablet"), 0.5)
    number = _NUMBERS[len(spots)]
    claims = [
        change_one("The number of loose tablets is {}.", number, _other(_NUMBERS[2:], number, random)),
        change_one("The loose tablets are {}.", colour, _other(_TABLETS, colour, random)),
    ]
    return f"{number} stamped {colour} tablets", "tablets", claims


def _bagged_tablets(sheet: Sheet, random: Random) -> Drawn:
    colour, stamp = random.choice(_TABLETS), random.choice(("cross", "star", "smile"))
    shade, width = vary(COLOURS[colour], random, 8), random.randint(190, 240)
    content, _ = blank(width, width)
    for x, y in _places(random.randint(7, 14), 38, random, (width / 2, width / 2)):
        pill = turn(tablet(shade, 44, random, stamp), random.uniform(0, 360))
        content.alpha_composite(pill, (round(min(max(x - 30, 0), width - 66)), round(min(max(y - 30, 0), width - 66))))
    bag = zip_bag(content, width, round(width * 1.3), random, vary(COLOURS["blue"], random))
    spot = _places(1, 1, random)[0]
    sheet.stamp(turn(bag, random.uniform(-60, 60)), spot, sheet.add_part("bag of tablets"), 0.4)
    claims = [change_one("The tablets in the bag are {}.", colour, _other(_TABLETS, colour, random))]
    return f"a press-seal bag of {colour} tablets", "tablets in a bag", claims


def _scale(sheet: Sheet, random: Random) -> Drawn:
    name, colour, stuff = _stuff(random, 120)
    body = vary(random.choice(((44, 44, 48), (190, 192, 196), (226, 226, 226))), random)
    weight = f"{random.uniform(0.3, 30):.2f}"
    sheet.stamp(_weigh(body, weight, random), (256, 262), shadow=0.5)
    sheet.stamp(stuff, (256, 210), sheet.add_part(name), 0.3)
    if random.random() < 0.6:
        bag = zip_bag(stuff, 96, 124, random, vary(COLOURS["red"], random))
        spot = (random.choice((90, 420)), random.randint(140, 380))
        sheet.stamp(turn(bag, random.uniform(-50, 50)), spot, sheet.add_part(f"bag of {name}"), 0.4)
    claims = [
        change_one(
            "On the scale lies {}.", f"{colour} {name}", f"{_other(('white', 'blue', 'brown'), colour, random)} {name}"
        ),
        change_one("The scale shows {} g.", weight, f"{random.uniform(0.3, 30):.2f}"),
    ]
    return f"a pocket scale with {colour} {name}", "scale", claims


def _weigh(body: Colour, text: str, random: Random) -> Image.Image:
    mask = Image.new("L", (230, 320), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 229, 319), 18, fill=255)
    sprite = light_up(mask, body, random, 0.1, 0.02)
    draw = ImageDraw.Draw(sprite)
    draw.rounded_rectangle((18, 18, 211, 196), 10, fill=(182, 184, 188), outline=darken(body, 0.6), width=3)
    draw.rounded_rectangle((40, 216, 190, 262), 5, fill=random.choice(((150, 176, 150), (120, 190, 230), (24, 26, 26))))
    ink = (20, 24, 20) if sprite.getpixel((60, 222))[1] > 100 else (240, 80, 60)  # type: ignore[index]
    draw.text((182, 239), f"{text} g", fill=ink, font=load_font(find_fonts("en")[3], 30), anchor="rm")
    for key in range(3):
        draw.rounded_rectangle((40 + 54 * key, 276, 82 + 54 * key, 302), 5, fill=darken(body, 0.75))
    return sprite


def _strips(sheet: Sheet, random: Random) -> Drawn:
    count, colour = random.randint(2, 4), random.choice(_TABLETS)
    shade = vary(COLOURS[colour], random, 8)
    spots = _places(count, 104, random)
    for spot in spots:
        strip = blister(random.randint(3, 4), 2, random.randint(40, 48), shade, random, random.randint(0, 2))
        sheet.stamp(turn(strip, random.uniform(0, 360)), spot, sheet.add_part("unprinted tablet strip"), 0.45)
    claims = [
        change_one("The tablets in the strips are {}.", colour, _other(_TABLETS, colour, random)),
        change_one("The strips lie {} their carton.", "without", "beside"),
    ]
    return f"unprinted strips of {colour} tablets without a carton", "strips", claims


def _bowl(sheet: Sheet, random: Random) -> Drawn:
    """Sugar, salt or flour in a bowl with a spoon."""
    name, size = random.choice(("sugar", "salt", "flour")), random.randint(220, 280)
    colour = vary(COLOURS[random.choice(sorted(COLOURS))], random)
    bowl = tablet(colour, size, random)
    inner, pad = round(size * 0.84), round(size * 0.08)
    bowl.alpha_composite(tablet(darken(colour, 0.82), inner, random), (pad, pad))
    heap = powder(vary(COLOURS["white"], random, 8), round(size * 0.8), random)
    bowl.alpha_composite(heap, (round(size * 0.1), round(size * 0.1)))
    spot = _places(1, 1, random)[0]
    sheet.stamp(bowl, spot, sheet.add_part(f"bowl of {name}"), 0.5)
    sheet.stamp(turn(_spoon(random), random.uniform(20, 160)), (spot[0] + 60, spot[1] + 20), shadow=0.4)
    claims = [
        change_one("The white powder is in a {}.", "bowl", "bag"),
        change_one("A {} lies beside the powder.", "spoon", "card"),
    ]
    return f"a bowl of {name} with a spoon", "bowl", claims


def _spoon(random: Random) -> Image.Image:
    mask = Image.new("L", (230, 60), 0)
    pen = ImageDraw.Draw(mask)
    pen.ellipse((0, 4, 86, 56), fill=255)
    pen.rounded_rectangle((80, 23, 228, 37), 7, fill=255)
    return light_up(mask, vary(random.choice(((184, 186, 190), (150, 108, 70))), random), random, 0.3, 0.02)


def _packet(sheet: Sheet, random: Random) -> Drawn:
    """Flour, sugar or tea with its printed packet."""
    good = random.choice(("flour", "sugar", "tea"))
    which = random.randrange(3)
    colour = vary(COLOURS[random.choice(("blue", "green", "red", "orange", "brown"))], random)
    box = carton(190, 260, colour, GOODS[good][which], random, _CODES[which])
    sheet.stamp(turn(box, random.uniform(-25, 25)), (190, 220), sheet.add_part(f"printed packet of {good}"), 0.5)
    heap = herb(150, 120, random) if good == "tea" else powder(vary(COLOURS["white"], random, 8), 170, random, 0.8)
    sheet.stamp(heap, (random.randint(340, 380), random.randint(300, 360)), sheet.add_part(f"heap of {good}"), 0.2)
    if random.random() < 0.5:
        sheet.stamp(turn(_spoon(random), random.uniform(0, 180)), (330, 420), shadow=0.4)
    claims = [change_one("The printed packet holds {}.", good, _other(("flour", "sugar", "tea"), good, random))]
    return f"a printed packet of {good} and some of it", "packet", claims


def _sweets(sheet: Sheet, random: Random) -> Drawn:
    count, size = random.randint(6, 12), random.randint(50, 66)
    names = random.sample(_TABLETS, 4)
    for spot in _places(count, size * 1.2, random):
        sprite = sweet(vary(COLOURS[random.choice(names)], random), size, random)
        sheet.stamp(turn(sprite, random.uniform(0, 360)), spot, sheet.add_part("sweet"), 0.5)
    claims = [change_one("The coloured things are {}.", "sweets", "tablets")]
    return "glossy sweets of several colours", "sweets", claims


def _medicine(sheet: Sheet, random: Random) -> Drawn:
    which = random.randrange(3)
    colour, pill = vary(COLOURS[random.choice(("blue", "green", "red", "orange"))], random), random.choice(_TABLETS)
    box = carton(250, 130, colour, GOODS["medicine"][which], random, _CODES[which])
    sheet.stamp(turn(box, random.uniform(-20, 20)), (240, 170), sheet.add_part("printed medicine carton"), 0.5)
    strip = blister(4, 2, random.randint(40, 50), vary(COLOURS[pill], random, 8), random, random.randint(0, 4))
    spot = (random.randint(230, 290), random.randint(320, 360))
    sheet.stamp(turn(strip, random.uniform(-40, 40)), spot, sheet.add_part("tablet strip"), 0.45)
    claims = [
        change_one("The tablets in the strip are {}.", pill, _other(_TABLETS, pill, random)),
        change_one("The strip lies {} its carton.", "beside", "without"),
    ]
    return f"a printed medicine carton and its strip of {pill} tablets", "medicine", claims


def _food_scale(sheet: Sheet, random: Random) -> Drawn:
    """A kitchen scale with fruit or a bowl of flour."""
    sheet.stamp(_weigh(vary((220, 220, 222), random), str(random.randint(80, 900)), random), (256, 262), shadow=0.5)
    fruit = random.choice(("apples", "flour"))
    part = sheet.add_part(f"{fruit} on a kitchen scale")
    if fruit == "apples":
        for spot in _places(3, 60, random, (256, 205)):
            sheet.stamp(tablet(vary(COLOURS[random.choice(("red", "green"))], random), 90, random), spot, part, 0.4)
    else:
        bowl = tablet(vary((110, 150, 190), random, 40), 180, random)
        bowl.alpha_composite(powder(COLOURS["white"], 150, random), (15, 15))
        sheet.stamp(bowl, (256, 208), part, 0.4)
    claims = [change_one("The scale holds {}.", fruit, _other(("apples", "flour", "sugar"), fruit, random))]
    return f"a kitchen scale with {fruit}", "kitchen scale", claims


_Draw = Callable[[Sheet, Random], Drawn]
_SUBSTANCES: tuple[_Draw, ...] = (_bags, _bags, _lines, _tablets, _bagged_tablets, _scale, _strips)
_LOOKALIKES: tuple[_Draw, ...] = (_bowl, _packet, _sweets, _medicine, _food_scale)
