"""What vision-language models add to the page, as accessible HTML: words, free text, and what fine-tuning changed.

As in ``ui/markup.py``, colour never carries meaning alone: each word has its figure below it and a line of its
own kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from explain import render
from explain.difference import DifferenceMap
from explain.schema import WordAttribution
from models.schema import ModelSpec
from ui.markup import escape, label_word, method_title, model_name, render_heading, target_word
from ui.text import say


@dataclass(frozen=True)
class Written:
    """What one model wrote about one picture.

    Attributes:
        model_id: zoo id, or ``ID@base``.
        picture: name of the picture.
        question: what it was asked.
        text: so far.
        label: what the text means, where that is clear.
        problem: why it wrote nothing, in one line.
        done: whether more is to come.
    """

    model_id: str
    picture: str
    question: str
    text: str = ""
    label: str | None = None
    problem: str = ""
    done: bool = False


def render_written(language: str, entries: Sequence[Written], specs: Mapping[str, ModelSpec]) -> str:
    """Free text, a paragraph per model; a screen reader is told when it is finished, not at every word."""
    if not entries:
        return ""
    note = say(language, "written.of", name=entries[0].picture)
    busy = str(not all(entry.done for entry in entries)).lower()
    body = "".join(_written(language, entry, specs) for entry in entries)
    heading = render_heading(say(language, "written"), note)
    return f'<section aria-live="polite" aria-busy="{busy}">{heading}{body}</section>'


def _written(language: str, entry: Written, specs: Mapping[str, ModelSpec]) -> str:
    title = f'<h3>{escape(model_name(specs, entry.model_id))}</h3><p class="note">{escape(entry.question)}</p>'
    if entry.problem:
        return f'<div class="written">{title}<p class="reason">{escape(entry.problem)}</p></div>'
    text = escape(entry.text)
    if not entry.done:
        return f'<div class="written">{title}<p class="text">{text}<span class="caret"></span></p></div>'
    if entry.label is not None:
        outcome = say(language, "written.means", label=label_word(language, entry.label))
    else:
        outcome = say(language, "written.unclear" if entry.text else "written.nothing")
    return f'<div class="written">{title}<p class="text">{text}</p><p class="means">{escape(outcome)}</p></div>'


def render_words(language: str, words: Sequence[WordAttribution], specs: Mapping[str, ModelSpec], bar_uri: str) -> str:
    """Each model's question with its words shaded by what they did for the answer, and the scale of the colours."""
    if not words:
        return ""
    body = "".join(_reading(language, each, specs) for each in words)
    heading = render_heading(say(language, "words"), say(language, "words.note"))
    return f"<section>{heading}{body}{render_word_scale(language, bar_uri)}</section>"


def render_word_scale(language: str, bar_uri: str) -> str:
    """What the colours of words mean, from against to for.

    Args:
        language: of the page.
        bar_uri: ``pictures.words_uri``.
    """
    against, favour = escape(say(language, "words.against")), escape(say(language, "words.for"))
    return (
        f'<div class="legend"><div class="scale"><span class="unit">{against}</span><span class="number">−1</span>'
        f'<img src="{bar_uri}" alt=""><span class="number">+1</span><span class="unit">{favour}</span></div></div>'
    )


def _reading(language: str, words: WordAttribution, specs: Mapping[str, ModelSpec]) -> str:
    target = target_word(language, words.target)
    title = say(language, "words.of", name=model_name(specs, words.model_id), target=target)
    return f'<div class="reading"><h3>{escape(title)}</h3>{shade_words(words)}</div>'


def shade_words(words: WordAttribution) -> str:
    """A text as a paragraph, each word in its colour, over a line of its own kind, with its figure below it."""
    shares, pieces, reached = words.shares, [], 0
    colours = render.difference_colours(shares)
    for (start, end), share, colour in zip(words.spans, shares.tolist(), colours, strict=True):
        pieces.append(escape(words.question[reached:start]))
        pieces.append(_word(words.question[start:end], share, colour))
        reached = end
    pieces.append(escape(words.question[reached:]))
    return f"<p>{''.join(pieces)}</p>"


def _word(text: str, share: float, colour: str) -> str:
    side = "for" if share > 0 else "against" if share < 0 else "neither"
    figure = f"{share:+.2f}".replace("-", "−")
    return f'<ruby class="{side}"><span style="background:{colour}">{escape(text)}</span><rt>{figure}</rt></ruby>'


def render_difference_legend(language: str, difference: DifferenceMap, name: str, bar_uri: str) -> str:
    """The diverging scale in raw values, 0 in its middle, and which two maps differ.

    Args:
        language: of the page.
        difference: the map shown.
        name: of the fine-tuned model.
        bar_uri: the colours from -1 to 1 as a data URI.
    """
    tuned, (low, high) = difference.tuned, difference.scale
    title = say(
        language,
        "difference.legend",
        method=method_title(tuned.method),
        target=target_word(language, tuned.target),
        name=name,
    )
    rows, cols = tuned.grid_rc
    facts = (say(language, "legend.grid", rows=rows, cols=cols), say(language, "legend.layer", layer=tuned.layer))
    less, more = escape(say(language, "difference.less")), escape(say(language, "difference.more"))
    return (
        f'<div class="legend signed"><p class="title">{escape(title)}</p>'
        f'<div class="scale"><span class="number">−{high - low:.3g}</span><span class="unit">{less}</span>'
        f'<img src="{bar_uri}" alt=""><span class="unit">{more}</span><span class="number">+{high - low:.3g}</span>'
        f'<span class="unit">{escape(say(language, "legend.raw"))}</span></div>'
        f'<p class="note">{escape(say(language, "difference.note"))}</p>'
        f'<p class="note">{" · ".join(map(escape, facts))}</p></div>'
    )
