"""What the models say without a region, as accessible HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from PIL import Image

from explain import render
from explain.schema import Heatmap
from explain.whatif import Change, Evidence, draw_outline
from explain.whatif_asking import WhatIf
from models.schema import ModelSpec, Verdict
from ui.markup import escape, label_word, method_title, model_name, render_problems
from ui.pictures import data_uri
from ui.text import say

SIDE_PX = 480
Specs = Mapping[str, ModelSpec]


def render_changes(language: str, found: WhatIf, photo: Image.Image, specs: Specs) -> str:
    """A table of changes, what was taken away, and what the models saw.

    Args:
        language: of the page.
        found: what was found.
        photo: the whole picture, RGB, at any scale.
        specs: for the models' names.
    """
    if not found.changes:
        return render_problems(language, [(one.subject, one.message) for one in found.problems])
    axis = found.before.label if found.before else found.changes[0].before.label
    captions = [
        say(language, "rows.model"),
        say(language, "whatif.before"),
        say(language, "whatif.after"),
        say(language, "whatif.change", label=label_word(language, axis)),
    ]
    head = "".join(f'<th scope="col">{escape(caption)}</th>' for caption in captions)
    body = "".join(_row(language, change, axis, specs, captions) for change in found.changes)
    body += _verdict_row(language, found.before, found.after, axis, captions)
    small = render.fit(photo, SIDE_PX)
    figures = _figure(draw_outline(small, found.mask), say(language, "whatif.outlined")) + _figure(
        render.fit(found.picture, SIDE_PX), say(language, "whatif.removed")
    )
    problems = render_problems(language, [(model_name(specs, one.subject), one.message) for one in found.problems])
    return (
        f'<table class="rows changes"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{problems}'
        f'<div class="figures">{figures}</div>'
    )


def render_evidence(language: str, found: Evidence, heatmap: Heatmap, photo: Image.Image, specs: Specs) -> str:
    """The two smallest regions, outlined on the photo with their areas."""
    small, label = render.fit(photo, SIDE_PX), label_word(language, found.label)
    figures = []
    if found.flips is None or found.flipped_to is None:
        figures.append(_remark(say(language, "whatif.flips_none", label=label)))
    else:
        other, share = label_word(language, found.flipped_to), _area(found.flips.mean())
        caption = say(language, "whatif.flips", label=label, other=other, share=share)
        figures.append(_figure(draw_outline(small, found.flips), caption))
    if found.keeps.any():
        caption = say(language, "whatif.keeps", label=label, share=_area(found.keeps_share))
        figures.append(_figure(draw_outline(small, found.keeps), caption))
    else:
        figures.append(_remark(say(language, "whatif.keeps_none", label=label)))
    note = say(
        language,
        "whatif.evidence_note",
        method=method_title(heatmap.method),
        name=model_name(specs, heatmap.model_id),
    )
    return f'<div class="figures">{"".join(figures)}</div><p class="note">{escape(note)}</p>'


def _row(language: str, change: Change, axis: str, specs: Specs, captions: Sequence[str]) -> str:
    shares = (change.before.probabilities.get(axis, 0.0), change.after.probabilities.get(axis, 0.0))
    labels = (change.before.label, change.after.label)
    return _cells(language, model_name(specs, change.before.model_id), labels, shares, captions)


def _verdict_row(
    language: str, before: Verdict | None, after: Verdict | None, axis: str, captions: Sequence[str]
) -> str:
    if before is None or after is None:
        return ""
    shares = (before.probabilities[axis], after.probabilities[axis])
    return _cells(language, say(language, "whatif.verdict"), (before.label, after.label), shares, captions)


def _cells(
    language: str, name: str, labels: tuple[str, str], shares: tuple[float, float], captions: Sequence[str]
) -> str:
    """A row: what was said before and after, and by how many points the probability on the axis changed."""
    said = [f"{label_word(language, label)} {share:.1%}" for label, share in zip(labels, shares, strict=True)]
    moved = f"{100 * (shares[1] - shares[0]):+.1f} pp"
    turned = labels[0] != labels[1]
    what = (
        say(language, "whatif.flipped", label=label_word(language, labels[1]))
        if turned
        else say(language, "whatif.same")
    )
    word = f"<strong>{escape(what)}</strong>" if turned else escape(what)
    return (
        f'<tr><th scope="row">{escape(name)}</th>'
        f'<td data-caption="{escape(captions[1])}">{escape(said[0])}</td>'
        f'<td data-caption="{escape(captions[2])}">{escape(said[1])}</td>'
        f'<td class="number" data-caption="{escape(captions[3])}">{escape(moved)} · {word}</td></tr>'
    )


def _figure(picture: Image.Image, caption: str) -> str:
    return (
        f'<figure><img src="{data_uri(picture)}" alt="{html.escape(caption, quote=True)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _remark(text: str) -> str:
    return f'<p class="empty">{escape(text)}</p>'


def _area(share: float) -> str:
    return f"{share:.1%}"
