"""Messenger screens: many looks, three languages; what is written decides whether they show a drug deal."""

from __future__ import annotations

from random import Random
from typing import Literal

from PIL import Image

from training.scenes_common import (
    CHAT,
    PLACE,
    SHEET_PX,
    SUBSTANCE,
    UNRELATED,
    Claim,
    Scene,
    Sheet,
    change_one,
    vary,
)
from training.scenes_messenger import LOOKS, Look, Message, Screen, vary_look
from training.scenes_ordinary import draw_ordinary
from training.scenes_places import draw_place
from training.scenes_surfaces import lay_surface
from training.scenes_things import draw_things
from training.scenes_words import LANGUAGES, Language, fill_line

CHAT_LINES, TALK_LINES = (4, 6), (9, 12)  # messages at least and at most, as far as they fit
WITH_PHOTO = 0.6  # of all chats, whatever they are about


def draw_chat(label: int, random: Random) -> Scene:
    """A messenger as a screenshot or photographed on a phone.

    Args:
        label: ``CHAT`` for a drug deal, ``UNRELATED`` for harmless talk.
        random: decides everything else.
    """
    return _draw_chat(label, random)


def draw_album(label: int, random: Random) -> Scene:
    """A messenger with two or three photos before the words, as far as they fit: to learn from what is sent."""
    return _draw_chat(label, random, "album")


def draw_talk(label: int, random: Random) -> Scene:
    """A messenger full of words, without photos, header or keyboard: to learn from what is written."""
    return _draw_chat(label, random, "talk")


def _draw_chat(label: int, random: Random, kind: Literal["chat", "album", "talk"] = "chat") -> Scene:
    code = random.choice(sorted(LANGUAGES))
    language, look = LANGUAGES[code], vary_look(random.choice(LOOKS), random)
    on_phone = random.random() < 0.4
    messages = _choose_messages(label, language, random, TALK_LINES if kind == "talk" else CHAT_LINES)
    if kind == "album":
        messages = [*(_send_photo(label, random) for _ in range(random.choice((2, 2, 3)))), *messages]
    elif kind == "chat" and random.random() < WITH_PHOTO:
        messages.insert(random.randrange(2), _send_photo(label, random))
    screen = Screen(code, look, random.randint(380, 440) if on_phone else SHEET_PX, random)
    shown = screen.fill(messages, bare=kind == "talk")
    sheet = _lay_phone(screen.sheet, look, random) if on_phone else screen.sheet
    about, other_topic = ("a drug deal", "everyday things")[:: 1 if label == CHAT else -1]
    theme, other_theme = ("dark", "light")[:: 1 if look.dark else -1]
    caption = f"A chat in {language.name} about {about} in a {theme} messenger{' on a phone' if on_phone else ''}."
    others = [one.name for key, one in sorted(LANGUAGES.items()) if key != code]
    claims = [
        change_one("The messages are written in {}.", language.name, random.choice(others)),
        change_one("The messenger has a {} theme.", theme, other_theme),
        change_one("The chat is about {}.", about, other_topic),
        *(_claim_photo(one.photo, random) for one in shown if one.photo),
        *(_claim_message(one, messages, language, random) for one in _choose_written(shown, random)),
    ]
    return Scene(sheet, label, f"chat/{code}", caption, claims)


def _choose_written(shown: list[Message], random: Random) -> list[Message]:
    """One of the messages in words, if there are any."""
    written = [message for message in shown if message.photo is None]
    return [random.choice(written)] if written else []


def _send_photo(label: int, random: Random) -> Message:
    """What a dealer sends, the goods or where they lie; or what anybody does, which may look much like it."""
    if label == CHAT:
        goods = random.random() < 0.5
        scene = draw_things(SUBSTANCE, random) if goods else draw_place(PLACE, random)
        return Message("", "deal photo", scene)
    draw = random.choice((draw_ordinary, draw_things, draw_place))
    return Message("", "harmless photo", draw(UNRELATED, random))


def _claim_photo(scene: Scene, random: Random) -> Claim:
    claim = random.choice(scene.claims)
    true, false = (f"In the photo sent, {text[0].lower()}{text[1:]}" for text in (claim.true, claim.false))
    return Claim(true, false)


def _claim_message(said: Message, messages: list[Message], language: Language, random: Random) -> Claim:
    """One message that is there, against one of the same kind that is not."""
    pool = language.deal if said.part == "deal message" else language.plain
    there = {message.text for message in messages}
    absent = [line for line in (fill_line(line, language, random) for line in pool) if line not in there]
    return change_one("One message says “{}”.", said.text, random.choice(absent))


def _choose_messages(label: int, language: Language, random: Random, lines: tuple[int, int]) -> list[Message]:
    """Messages in order; harmless talk is decided by all of it, a deal by the lines that name it."""
    count = random.randint(*lines)
    plain = random.sample(language.plain, count)
    if label == UNRELATED:
        for place, line in zip(random.sample(range(count), 2), random.sample(language.near, 2), strict=True):
            plain[place] = line if random.random() < 0.6 else plain[place]
        return [Message(fill_line(line, language, random), "harmless message") for line in plain]
    deals = random.sample(language.deal, count)
    # Mostly about the deal, and within the first two lines, since a small screen may show no more.
    chosen = {random.randrange(2), *random.sample(range(count), random.randint(count // 2, count))}
    return [
        Message(fill_line(deals[i], language, random), "deal message")
        if i in chosen
        else Message(fill_line(plain[i], language, random), "")
        for i in range(count)
    ]


def _lay_phone(screen: Sheet, look: Look, random: Random) -> Sheet:
    """The screen in a phone's frame on a table, seen from slightly aside."""
    table = Sheet()
    lay_surface(table, random)
    edge = random.randint(8, 16)
    width, height = screen.size[0] + 2 * edge, SHEET_PX + 2 * edge
    body = Sheet(width, height, vary((30, 30, 34) if look.dark else (60, 60, 66), random))
    body.rgb.paste(screen.rgb, (edge, edge))
    body.ids.paste(screen.ids, (edge, edge))
    body.word_ids.paste(screen.word_ids, (edge, edge))
    body.parts, body.words = screen.parts, screen.words
    left, top = random.uniform(16, 496 - width), random.uniform(-30, 0)
    square = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    corners = [(x + random.uniform(-12, 12), y + random.uniform(-8, 8)) for x, y in square]
    table.spread(Image.new("RGBA", body.size, (0, 0, 0, 110)), [(x + 10, y + 8) for x, y in corners])
    table.adopt(body, corners)
    return table
