"""The Verify tab's answer, claims and evidence as accessible HTML. All text in it is somebody else's and escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from PIL import Image

from explain.schema import WordAttribution
from rag.schema import ClaimVerdict, Evidence, Reliability
from ui.markup import escape, render_empty, render_heading
from ui.markup_vlm import render_word_scale, shade_words
from ui.pictures import data_uri
from ui.text import say, say_or

MARKS: Final = MappingProxyType({"supported": "✓", "refuted": "✗", "not_enough_evidence": "?"})
"""Of a verdict, beside its colour and its words."""
_MOST_TEXT = 400
_LEAST_BAR = 1e-6


def render_evidence(language: str, evidence: Sequence[Evidence]) -> str:
    """The gallery: number, picture or passage, source, and why each was found."""
    heading = render_heading(say(language, "verify.evidence"), say(language, "verify.evidence_note"))
    return f"{heading}{_gallery(language, evidence)}" if evidence else ""


def render_similar(language: str, claim: str, region: Image.Image, found: Sequence[Evidence]) -> str:
    """The pictures of an index that look like the best region of a claim, with the region itself.

    Args:
        language: of the page.
        claim: whose region it is.
        region: cut out of the picture.
        found: best first.
    """
    heading = render_heading(say(language, "verify.similar_heading"), say(language, "verify.similar_note"))
    wanted = (
        f'<figure class="region"><img src="{data_uri(region)}" alt="{escape(say(language, "verify.similar_region"))}">'
        f"<figcaption>{escape(claim)}</figcaption></figure>"
    )
    none = render_empty(say(language, "verify.similar_none"))
    return f"{heading}{wanted}{_gallery(language, found) if found else none}"


def _gallery(language: str, evidence: Sequence[Evidence]) -> str:
    cards = "".join(_card(language, number, one) for number, one in enumerate(evidence, 1))
    return f'<ol class="evidence">{cards}</ol>'


def _card(language: str, number: int, one: Evidence) -> str:
    chunk = one.chunk
    page = say(language, "verify.page", page=chunk.page) if chunk.page else ""
    where = " · ".join(filter(None, (chunk.source.id, page, chunk.heading)))
    text = chunk.text if len(chunk.text) <= _MOST_TEXT else chunk.text[:_MOST_TEXT].rstrip() + " …"
    picture = ""
    if chunk.picture:
        uri = f"data:image/jpeg;base64,{base64.b64encode(chunk.picture).decode('ascii')}"
        picture = f'<img src="{uri}" alt="{escape(chunk.text or chunk.source.id)}" loading="lazy">'
    found = ", ".join(say_or(language, f"verify.by.{name}", name) for name in one.found_by)
    why = f"{escape(_scores(language, one))}<br>{escape(say(language, 'verify.found_by', names=found))}"
    return (
        f'<li><p class="source"><strong>[{number}]</strong> {escape(where)}</p>{picture}'
        f'<p class="passage">{escape(text)}</p>'
        f'<p class="note">{why}</p></li>'
    )


def _scores(language: str, one: Evidence) -> str:
    """What the evidence was ranked by; a single search ranks by the cosine, which is not said twice."""
    scores = []
    if one.similarity is None or one.score != one.similarity:
        scores.append(say(language, "verify.score", score=f"{one.score:.4f}"))
    if one.similarity is not None:
        scores.append(say(language, "verify.similarity", score=f"{one.similarity:.3f}"))
    if one.words is not None:
        scores.append(say(language, "verify.words", score=f"{one.words:.2f}"))
    return " · ".join(scores)


def render_answer(language: str, text: str, verdicts: Sequence[ClaimVerdict]) -> str:
    """The answer, every claim a button with its verdict in colour, sign and words.

    Args:
        language: of the page.
        text: the answer, of which the claims' spans are.
        verdicts: in the order of their spans; where two overlap, the later stands behind the answer.
    """
    parts: list[str] = []
    behind: list[str] = []
    at = 0
    for number, verdict in enumerate(verdicts):
        claim = verdict.claim
        if claim.start < at:
            behind.append(_claim(language, number, verdict, claim.text))
            continue
        parts.append(escape(text[at : claim.start]))
        parts.append(_claim(language, number, verdict, text[claim.start : claim.end]))
        at = claim.end
    parts.append(escape(text[at:]))
    heading = render_heading(say(language, "verify.claims"), say(language, "verify.claims_note"))
    further = f'<p class="answer">{" ".join(behind)}</p>' if behind else ""
    return f'{heading}<p class="answer">{"".join(parts)}</p>{further}'


def _claim(language: str, number: int, verdict: ClaimVerdict, words: str) -> str:
    said = say(language, f"verify.{verdict.verdict}")
    return (
        f'<button type="button" class="claim {verdict.verdict}" data-pick="{number}" aria-pressed="false">'
        f'<span class="mark" aria-hidden="true">{MARKS[verdict.verdict]}</span>{escape(words)}'
        f'<span class="tag">{escape(said)} {verdict.support:.0%}</span></button>'
    )


def render_reliability(language: str, found: Reliability, note: str, readers: Sequence[str] = ()) -> str:
    """How many claims are supported, with the interval, and the weakest by name.

    Args:
        language: of the page.
        found: of the claims.
        note: why nothing is settled, where that is so.
        readers: names of the models that held the claims against the picture.
    """
    if found.share is None or found.weakest is None:
        return ""
    line = say(
        language,
        "verify.reliability",
        supported=found.supported,
        claims=found.claims,
        low=f"{found.low:.0%}",
        high=f"{found.high:.0%}",
    )
    weakest = say(language, "verify.weakest", claim=found.weakest.claim.text, support=f"{found.weakest.support:.0%}")
    extra = f'<p class="note">{escape(note)}</p>' if note else ""
    said = [say(language, "verify.read_by", names=", ".join(readers))] if readers else []
    limits = f'<p class="note">{escape(" ".join([*said, say(language, "verify.limits")]))}</p>'
    return f'<p class="reliability"><strong>{escape(line)}</strong> {escape(weakest)}</p>{extra}{limits}'


def render_claim(language: str, verdict: ClaimVerdict, picture: Image.Image, problem: str, words: str = "") -> str:
    """One claim: its heatmap with the best region, its words, its foils, and what each signal did.

    Args:
        language: of the page.
        verdict: on the claim.
        picture: under the claim's heat.
        problem: why it bears none, where that is so.
        words: markup of what its words did.
    """
    said = f"{MARKS[verdict.verdict]} {say(language, f'verify.{verdict.verdict}')} {verdict.support:.0%}"
    bar = _thresholds(language, verdict.thresholds) if verdict.thresholds else ""
    region = say(language, "verify.region") if verdict.region_xyxy else say(language, "verify.no_region")
    caption = " ".join(filter(None, (say(language, "verify.heatmap"), region, problem)))
    figure = (
        f'<figure><img src="{data_uri(picture)}" alt="{escape(verdict.claim.text)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
    beside = f"{words}{_read(language, verdict)}{_foils(language, verdict)}{_signals(language, verdict)}"
    return (
        f'{render_heading(verdict.claim.text, said)}<p class="note">{escape(bar)}</p>'
        f'<div class="why">{figure}<div>{beside}</div></div>'
    )


def _thresholds(language: str, thresholds: tuple[float, float]) -> str:
    """From where a claim is settled; a precision that calibration never reached leaves a side out (``rag.fusion``)."""
    low, high = thresholds
    refuted = say(language, "verify.refuted_below", low=f"{low:.0%}") if low > 0 else say(language, "verify.refuted_no")
    supported = say(language, "verify.supported_from", high=f"{high:.0%}")
    return f"{refuted} {supported if high <= 1 else say(language, 'verify.supported_no')}"


def render_claim_words(language: str, words: WordAttribution, reader: str, bar_uri: str) -> str:
    """What each word of a claim did for its similarity with the picture, and the scale of the colours.

    Args:
        language: of the page.
        words: of the claim.
        reader: name of the image-text model.
        bar_uri: ``pictures.words_uri``.
    """
    strongest = max((abs(score) for score in words.scores.tolist()), default=0.0)
    note = say(language, "verify.claim_words_note", reader=reader, strongest=f"{strongest:.3f}")
    return (
        f'<section class="words"><h3>{escape(say(language, "verify.claim_words"))}</h3>'
        f'<div class="reading">{shade_words(words)}</div>{render_word_scale(language, bar_uri)}'
        f'<p class="note">{escape(note)}</p></section>'
    )


def _read(language: str, verdict: ClaimVerdict) -> str:
    """What was read in the picture where the claim's quotation would stand."""
    if "quotes" not in verdict.signals:
        return ""
    said = say(language, "verify.read", text=verdict.read) if verdict.read else say(language, "verify.read_nothing")
    return f'<p class="note read">{escape(said)}</p>'


def _foils(language: str, verdict: ClaimVerdict) -> str:
    """What would be false if the claim is true, with its cosine beside the claim's own."""
    if not verdict.foils:
        return f'<p class="note">{escape(say(language, "verify.no_foils"))}</p>'
    own = verdict.signals.get("whole")
    rows = [] if own is None else [(verdict.claim.text, own, True)]
    rows += [(foil.text, foil.score, False) for foil in verdict.foils]
    body = "".join(
        f'<tr{" class=own" if mine else ""}><th scope="row">{escape(text)}</th><td class="number">{score:.3f}</td></tr>'
        for text, score, mine in rows
    )
    return _table(language, "foils", ("foil", "cosine"), body)


def _signals(language: str, verdict: ClaimVerdict) -> str:
    """A bar for each signal: to the right what speaks for the claim, to the left what speaks against it."""
    if not verdict.signals:
        return f'<p class="note">{escape(say(language, "verify.unread"))}</p>'
    widest = max((abs(value) for value in verdict.contributions.values()), default=0.0)
    names = sorted(verdict.signals, key=lambda name: -abs(verdict.contributions.get(name, 0.0)))
    body = "".join(_signal(language, name, verdict, max(widest, _LEAST_BAR)) for name in names)
    return _table(language, "signals", ("signal", "value", "contribution"), body) + _doubts(language, verdict)


def _doubts(language: str, verdict: ClaimVerdict) -> str:
    """How the claim would be false, if it is; said only where the calibration knows more than one way."""
    if len(verdict.doubts) < 2:
        return ""
    ways = sorted(verdict.doubts, key=lambda way: -verdict.doubts[way])
    said = "; ".join(f"{say_or(language, f'verify.doubt.{way}', way)} {verdict.doubts[way]:.0%}" for way in ways)
    return f'<p class="note">{escape(say(language, "verify.doubts", ways=said))}</p>'


def _table(language: str, name: str, columns: Sequence[str], body: str) -> str:
    """A table of the tab; name and columns are keys of its words."""
    head = "".join(f'<th scope="col">{escape(say(language, f"verify.{column}"))}</th>' for column in columns)
    return (
        f'<table class="rows {name}"><caption>{escape(say(language, f"verify.{name}"))}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _signal(language: str, name: str, verdict: ClaimVerdict, widest: float) -> str:
    value, given = verdict.signals[name], verdict.contributions.get(name)
    word = say_or(language, f"verify.signal.{name}", name)
    if given is None:
        bar = f'<td class="none">{escape(say(language, "verify.unweighed"))}</td>'
    else:
        side, width = ("against" if given < 0 else "for"), 50 * abs(given) / widest
        fill = f'<div class="track"><span class="{side}" style="width:{width:.1f}%"></span></div>'
        bar = f'<td class="bar">{fill}<em>{given:+.2f}</em></td>'
    return f'<tr><th scope="row">{escape(word)}</th><td class="number">{value:.3f}</td>{bar}</tr>'
