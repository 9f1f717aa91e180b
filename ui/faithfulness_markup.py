"""How far to believe a map, as accessible HTML: a sign and words, never colour alone."""

from __future__ import annotations

from explain.difference import DifferenceMap
from explain.examination import Examination
from explain.faithfulness_schema import MapFaithfulness
from models.loading import BASE_SUFFIX
from ui.doubt_markup import read_stability
from ui.faithfulness import find_faithfulness
from ui.markup import escape, grid_key, render_empty, render_heading
from ui.pictures import Map
from ui.text import say

GOOD, BAD = "✓", "✗"


def render_mark(language: str, found: MapFaithfulness | None) -> str:
    """The badge of a map as it stands beside it; empty while there is none."""
    badge = found.badge if found else None
    if badge is None:
        return ""
    beaten = {"count": badge.better_than, "of": len(badge.random)}
    if badge.trusted:
        line = f"<strong>{GOOD} {escape(say(language, 'trust.better', **beaten))}</strong>"
    else:
        line = (
            f"<strong>{BAD} {escape(say(language, 'trust.chance'))}</strong> "
            f"<span>{escape(say(language, 'trust.count', **beaten))}</span>"
        )
    blind = f'<p class="note">{escape(say(language, "trust.blind"))}</p>' if badge.class_blind else ""
    return f'<div class="trust{"" if badge.trusted else " doubt"}"><p>{line}</p>{blind}</div>'


def cell_marks(language: str, examination: Examination) -> dict[str, str]:
    """The short badges below the small maps of the grid, by ``grid_key``."""
    marks = {}
    for one in examination.faithfulness:
        if one.badge is None:
            continue
        key = "trust.cell_better" if one.badge.trusted else "trust.cell_chance"
        words = say(language, key, count=one.badge.better_than, of=len(one.badge.random))
        blind = f" · {say(language, 'trust.blind_short')}" if one.badge.class_blind else ""
        marks[grid_key(one.model_id, one.method)] = f"{GOOD if one.badge.trusted else BAD} {words}{blind}"
    return marks


def render_trust(language: str, examination: Examination, shown: Map | None, *, small: bool) -> str:
    """The panel's words: what was measured of the map shown, and what that means.

    Args:
        language: of the page.
        examination: with or without figures.
        shown: the map in the viewer.
        small: whether the model behind the map is measured without being asked for.
    """
    return f"<section>{render_heading(say(language, 'trust'), say(language, 'trust.note'))}" + (
        _reading(language, examination, shown, small) + "</section>"
    )


def _reading(language: str, examination: Examination, shown: Map | None, small: bool) -> str:
    if isinstance(shown, DifferenceMap) or (shown is not None and _is_base(examination, shown.model_id)):
        return render_empty(say(language, "trust.base"))
    found = find_faithfulness(examination, shown.model_id, shown.method) if shown else None
    if found is None or found.badge is None:
        note = "" if small else f" {say(language, 'trust.large')}"
        return render_empty(say(language, "trust.unmeasured") + note)
    badge = found.badge
    sentences = [
        say(language, "trust.good" if badge.trusted else "trust.bad"),
        say(language, "trust.beats_centre" if badge.beats_centre else "trust.centre"),
        *([say(language, "trust.blind")] if badge.class_blind else []),
        read_stability(language, examination, found.model_id, found.method),
    ]
    figures = say(
        language,
        "trust.figures",
        insertion=f"{found.insertion.auc:.3f}",
        deletion=f"{found.deletion.auc:.3f}",
    )
    words = " ".join(filter(None, sentences))
    return f'<p class="reading">{escape(words)}</p><p class="note">{escape(figures)}</p>'


def render_check(language: str, examination: Examination, model_id: str, method: str) -> str:
    """Whether a map changes with the model's weights, in a sentence; empty while it was not checked."""
    wanted = (model_id, method)
    found = next((one for one in examination.checks if (one.model_id, one.method) == wanted), None)
    if found is None:
        return ""
    figures = {"rank": f"{found.rank_correlations[-1]:.2f}", "ssim": f"{found.ssim[-1]:.2f}"}
    sign, key = (BAD, "check.survived") if found.survived else (GOOD, "check.passed")
    doubt = " doubt" if found.survived else ""
    return f'<div class="trust{doubt}"><p>{sign} {escape(say(language, key, **figures))}</p></div>'


def _is_base(examination: Examination, model_id: str) -> bool:
    return model_id.endswith(BASE_SUFFIX) and model_id not in examination.settings.models
