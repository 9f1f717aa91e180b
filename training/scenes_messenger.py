"""The screen of a messenger, drawn in one of many looks: bubbles, photos sent, header, message box, keyboard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.scenes_common import (
    SHEET_PX,
    Colour,
    Scene,
    Sheet,
    cut_texture,
    darken,
    find_fonts,
    load_font,
    vary,
)
from training.scenes_words import LANGUAGES

INK_DARK, INK_LIGHT = (24, 24, 28), (238, 238, 242)


@dataclass(frozen=True)
class Look:
    """Colours and shapes of one messenger.

    Attributes:
        dark: dark theme.
        ground: behind the bubbles.
        theirs: bubbles on the left.
        mine: bubbles on the right.
        bar: header and message box.
        radius: of the bubbles in px.
        avatars: draw a face beside bubbles on the left.
        pattern: strength of a wallpaper's pattern.
    """

    dark: bool
    ground: Colour
    theirs: Colour
    mine: Colour
    bar: Colour
    radius: int
    avatars: bool
    pattern: float


LOOKS = (
    Look(False, (178, 199, 217), (255, 255, 255), (250, 226, 64), (172, 193, 212), 14, True, 0.0),
    Look(False, (236, 228, 216), (255, 255, 255), (214, 246, 196), (8, 110, 96), 10, False, 0.05),
    Look(False, (255, 255, 255), (232, 232, 236), (22, 130, 250), (246, 246, 248), 26, False, 0.0),
    Look(False, (150, 190, 140), (255, 255, 255), (226, 252, 200), (255, 255, 255), 18, False, 0.12),
    Look(False, (250, 248, 252), (236, 230, 246), (120, 80, 200), (250, 248, 252), 22, True, 0.0),
    Look(True, (12, 20, 26), (32, 44, 52), (0, 92, 76), (30, 42, 50), 10, False, 0.25),
    Look(True, (0, 0, 0), (40, 40, 44), (10, 110, 240), (22, 22, 24), 26, False, 0.0),
    Look(True, (24, 34, 48), (36, 50, 68), (60, 98, 150), (32, 44, 60), 16, True, 0.15),
    Look(True, (48, 50, 58), (48, 50, 58), (48, 50, 58), (40, 42, 48), 0, True, 0.0),
    Look(True, (40, 26, 52), (70, 50, 86), (168, 76, 148), (40, 26, 52), 24, True, 0.1),
    Look(False, (252, 238, 232), (255, 255, 255), (242, 132, 110), (252, 226, 216), 20, True, 0.0),
    Look(True, (40, 44, 40), (62, 66, 60), (232, 196, 60), (30, 32, 30), 12, True, 0.0),
)


@dataclass(frozen=True)
class Message:
    """One message; ``part`` names it where it decides the class, and is empty where it does not.

    A photo has no text but the scene that was photographed.
    """

    text: str
    part: str
    photo: Scene | None = None


def vary_look(look: Look, random: Random) -> Look:
    """A look with its colours and corners a little changed."""
    return replace(
        look,
        ground=vary(look.ground, random),
        theirs=vary(look.theirs, random, 8),
        mine=vary(look.mine, random),
        bar=vary(look.bar, random, 8),
        radius=max(1, look.radius + random.randint(-4, 4)) if look.radius else 0,
    )


def _ink(ground: Colour) -> Colour:
    return INK_DARK if sum(ground) > 390 else INK_LIGHT


class Screen:
    """A messenger's screen being drawn: sheet, look, fonts and language together."""

    def __init__(self, code: str, look: Look, width: int, random: Random) -> None:
        self.sheet = Sheet(width, SHEET_PX, look.ground)
        self.look, self.language, self.random = look, LANGUAGES[code], random
        path = random.choice(find_fonts(code))
        broad = any(word in path.name for word in ("Mono", "Serif", "Sans-Bold"))
        size = round((random.randint(23, 26) if width < SHEET_PX else random.randint(25, 31)) * (0.88 if broad else 1))
        self.font, self.small = load_font(path, size), load_font(path, max(14, round(size * 0.62)))

    def fill(self, messages: list[Message], *, bare: bool = False) -> list[Message]:
        """Draw everything, or the messages alone; those that stand on the screen whole."""
        sheet, look, random = self.sheet, self.look, self.random
        width, bottom = sheet.size
        if look.pattern:
            bold = cut_texture("cloud", width, bottom, random) > random.uniform(0.2, 1.2)
            sheet.shade(1 + np.float32(look.pattern * (1.6 if look.dark else -0.6)) * bold.astype(np.float32))
        keyboard = not bare and random.random() < 0.25
        if keyboard:
            bottom -= self._draw_keyboard()
        if keyboard or (not bare and random.random() < 0.6):
            bottom -= self._draw_box(bottom)
        y = self._draw_header() if not bare and random.random() < 0.7 else random.randint(2, 24)
        y += random.randint(4, 14)
        if random.random() < 0.35:
            date = f"{random.randint(1, 28)}.{random.randint(1, 12)}.2025"
            sheet.draw.text((width / 2, y + 10), date, fill=self._faint(look.ground), font=self.small, anchor="mm")
            y += 26
        shown: list[Message] = []
        mine = random.random() < 0.5
        for message in messages:
            used = self._draw_message(message, mine, y, bottom - 2)
            if not used and message.photo is None:
                break
            if not used:
                continue
            shown.append(message)
            y += used + random.randint(4, 14)
            mine = mine if random.random() < 0.35 else not mine
        return shown

    def _faint(self, ground: Colour) -> Colour:
        ink = _ink(ground)
        red, green, blue = (round(0.62 * a + 0.38 * b) for a, b in zip(ink, ground, strict=True))
        return red, green, blue

    def _draw_photo(self, scene: Scene, part: str, mine: bool, y: int, bottom: int) -> int:
        """Draw a sent photo; its height in px, or 0 where it would not fit below others."""
        look, sheet, random = self.look, self.sheet, self.random
        photo = _crop(scene.sheet.rgb, random)
        on_right = mine and look.radius > 0
        side = 46 if look.avatars and not on_right else 12
        room = (bottom - y) / photo.height  # a keyboard leaves little; below a quarter of the screen nothing is seen
        zoom = min(sheet.size[0] * random.uniform(0.48, 0.64) / photo.width, room)
        width, height = round(photo.width * zoom), round(photo.height * zoom)
        if width < sheet.size[0] / 4:
            return 0
        left = sheet.size[0] - width - 12 if on_right else side
        shape = Image.new("L", (width, height), 0)
        ImageDraw.Draw(shape).rounded_rectangle((0, 0, width, height), min(look.radius, 20), fill=255)
        sheet.rgb.paste(photo.resize((width, height), Image.Resampling.BILINEAR), (left, y), shape)
        if side > 12:
            self._draw_face(22, y + 18, 16)
        ImageDraw.Draw(sheet.ids).rectangle((left, y, left + width, y + height), fill=sheet.add_part(part))
        return height

    def _draw_message(self, message: Message, mine: bool, y: int, bottom: int) -> int:
        """Draw one bubble; its height in px, or 0 where it would not fit below others."""
        if message.photo is not None:
            return self._draw_photo(message.photo, message.part, mine, y, bottom)
        look, draw, width = self.look, self.sheet.draw, self.sheet.size[0]
        listed = look.radius == 0  # no bubbles: every message on the left with its writer's face
        on_right = mine and not listed
        side = 46 if look.avatars and not on_right else 12
        rows = _wrap(message.text, self.font, width * 0.76 - side)
        line = round(self.font.size * 1.28)
        box_width = round(max(self.font.getlength(row) for row in rows)) + 26
        box_height = line * len(rows) + 14
        if y + box_height > bottom and y > 120:
            return 0
        left = width - box_width - 12 if on_right else side
        area = (left, y, left + box_width, y + box_height)
        fill = look.mine if mine else look.theirs
        if side > 12:
            self._draw_face(22, y + 18, 16)
        if not listed:
            draw.rounded_rectangle(area, min(look.radius, box_height // 2), fill=fill)
        if message.part:
            ImageDraw.Draw(self.sheet.ids).rectangle(area, fill=self.sheet.add_part(message.part))
        for number, row in enumerate(rows):
            self.sheet.write((left + 13, y + 6 + number * line), row, self.font, _ink(fill))
        if not listed and self.random.random() < 0.7:
            clock = f"{self.random.randint(0, 23):02d}:{self.random.randint(0, 59):02d}"
            beside = (left - 6 if on_right else left + box_width + 6, y + box_height - 6)
            anchor = "rs" if on_right else "ls"
            draw.text(beside, clock, fill=self._faint(look.ground), font=self.small, anchor=anchor)
        return box_height

    def _draw_face(self, x: int, y: int, radius: int) -> None:
        draw, shade = self.sheet.draw, vary((140, 120, 140), self.random, 60)
        light = darken(shade, 1.5)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=shade)
        draw.ellipse((x - radius * 0.4, y - radius * 0.65, x + radius * 0.4, y + radius * 0.15), fill=light)
        draw.chord((x - radius * 0.75, y + radius * 0.2, x + radius * 0.75, y + radius * 1.5), 200, 340, fill=light)

    def _draw_header(self) -> int:
        sheet, look, random = self.sheet, self.look, self.random
        draw, width = sheet.draw, sheet.size[0]
        status = random.random() < 0.75
        top = 28 if status else 0
        height = top + 58
        ink = _ink(look.bar)
        draw.rectangle((0, 0, width, height), fill=look.bar)
        if status:
            self._draw_status(ink)
        middle = top + 28
        draw.line([(24, middle - 10), (14, middle), (24, middle + 10)], fill=ink, width=3, joint="curve")
        self._draw_face(58, middle, 20)
        name = random.choice(self.language.people)
        draw.text((90, middle - 1), name, fill=ink, font=self.font, anchor="ls")
        draw.text((90, middle + 18), self.language.online, fill=self._faint(look.bar), font=self.small, anchor="ls")
        for column in range(random.randint(0, 3)):
            x = width - 30 - 38 * column
            if random.random() < 0.5:
                draw.ellipse((x - 9, middle - 9, x + 9, middle + 9), outline=ink, width=3)
            else:
                draw.rounded_rectangle((x - 11, middle - 7, x + 7, middle + 7), 3, outline=ink, width=3)
        return height

    def _draw_status(self, ink: Colour) -> None:
        draw, width, random = self.sheet.draw, self.sheet.size[0], self.random
        draw.text(
            (16, 15), f"{random.randint(0, 23)}:{random.randint(0, 59):02d}", fill=ink, font=self.small, anchor="lm"
        )
        charge = random.uniform(0.15, 1)
        draw.rounded_rectangle((width - 40, 8, width - 14, 21), 3, outline=ink, width=2)
        draw.rectangle((width - 37, 11, width - 37 + round(20 * charge), 18), fill=ink)
        for bar in range(4):
            shown = ink if bar < random.randint(2, 4) else self._faint(self.look.bar)
            draw.rectangle((width - 74 + 7 * bar, 19 - 3 * bar, width - 70 + 7 * bar, 21), fill=shown)
        draw.pieslice((width - 100, 6, width - 80, 28), 225, 315, fill=ink)

    def _draw_box(self, bottom: int) -> int:
        """Draw the empty message box above ``bottom``; its height."""
        draw, width, look = self.sheet.draw, self.sheet.size[0], self.look
        draw.rectangle((0, bottom - 52, width, bottom), fill=look.bar)
        ink = self._faint(look.bar)
        inside = darken(look.bar, 1.5) if look.dark else darken(look.bar, 0.94)
        draw.rounded_rectangle((44, bottom - 44, width - 56, bottom - 8), 18, fill=inside)
        draw.text((60, bottom - 26), self.language.box, fill=self._faint(inside), font=self.small, anchor="lm")
        draw.line((12, bottom - 26, 32, bottom - 26), fill=ink, width=3)
        draw.line((22, bottom - 36, 22, bottom - 16), fill=ink, width=3)
        right = width - 28
        accent = look.mine if look.radius else (110, 120, 220)
        draw.polygon([(right - 12, bottom - 38), (right + 14, bottom - 26), (right - 12, bottom - 14)], fill=accent)
        return 52

    def _draw_keyboard(self) -> int:
        """Draw a keyboard along the lower edge; its height."""
        draw, (width, height) = self.sheet.draw, self.sheet.size
        ground = (30, 30, 34) if self.look.dark else (208, 211, 218)
        key = (74, 74, 80) if self.look.dark else (252, 252, 254)
        top = height - 180
        draw.rectangle((0, top, width, height), fill=ground)
        pitch = width / 10
        for row, letters in enumerate(self.language.keys):
            start = (width - pitch * len(letters)) / 2
            for column, letter in enumerate(letters):
                x, y = start + column * pitch, top + 8 + row * 44
                draw.rounded_rectangle((x + 3, y, x + pitch - 3, y + 38), 5, fill=key)
                draw.text((x + pitch / 2, y + 19), letter, fill=_ink(key), font=self.small, anchor="mm")
        draw.rounded_rectangle((width * 0.25, top + 140, width * 0.75, top + 174), 5, fill=key)
        return 180


def _crop(photo: Image.Image, random: Random) -> Image.Image:
    """The middle of a square picture: all of it, or a broad or an upright part."""
    width, height = random.choice(((SHEET_PX, SHEET_PX), (SHEET_PX, 400), (420, SHEET_PX)))
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    rows = [""]
    for word in text.split():
        longer = f"{rows[-1]} {word}".strip()
        if rows[-1] and font.getlength(longer) > room:
            rows.append(word)
        else:
            rows[-1] = longer
    return rows
