"""Values to accessible HTML. Every text from outside passes ``escape``; pictures come in as data URIs made here.

Colour never carries meaning alone: each bar, badge and peak also says it in words.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from explain.catalog import CATALOG
from explain.regions import RegionHeat
from explain.schema import Heatmap
from models.schema import LoadState, ModelSpec, ModelStatus, Prediction, Verdict
from ui.text import say, say_or

MIN_GRID_COLUMNS = 5
# A longer list of models that cannot answer is folded, so that it does not push the question away.
MAX_UNFOLDED = 3
# Gradio runs its own templates over HTML values, so their delimiters are data too.
_TEMPLATE_SIGNS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})


@dataclass(frozen=True)
class Thumbnail:
    """One cell of the grid: whose map it is and its picture as a data URI."""

    model_id: str
    method: str
    uri: str


def escape(text: object) -> str:
    """Text that cannot become markup or a template, whatever it holds."""
    return html.escape(str(text), quote=True).translate(_TEMPLATE_SIGNS)


def label_word(language: str, label: str) -> str:
    """A model's label in the language of the page where it is a known word, else as the model says it."""
    return say_or(language, f"label.{label}", label)


def method_title(name: str) -> str:
    """How the literature writes a method."""
    return CATALOG[name].title if name in CATALOG else name


def model_name(specs: Mapping[str, ModelSpec], model_id: str) -> str:
    """What people read for a zoo id."""
    return specs[model_id].name if model_id in specs else model_id


def target_word(language: str, target: str) -> str:
    """``logit:fake`` as the label alone, ``margin:fake-real`` as one over the other, ``similarity:TEXT`` in quotes."""
    kind, _, label = target.partition(":")
    if kind == "logit" and label:
        return label_word(language, label)
    if kind == "similarity":
        return say(language, "target.similarity", text=label)
    first, _, second = label.partition("-")
    # Labels with a hyphen cannot be told apart here, so such a target stays as it is.
    if kind == "margin" and first and second and "-" not in second:
        return say(language, "target.margin", label=label_word(language, first), other=label_word(language, second))
    return target


def render_heading(text: str, note: str = "") -> str:
    """A section's heading, with a muted remark."""
    remark = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(text)}</h2>{remark}"


def render_empty(text: str) -> str:
    """What stands in a place that has nothing to show yet."""
    return f'<p class="empty">{escape(text)}</p>'


def render_status(text: str, done: float | None = None, *, error: bool = False) -> str:
    """The one line that says what happens; an error interrupts a screen reader, progress does not.

    Args:
        text: the line.
        done: share of the work done in [0, 1], for a progress bar.
        error: whether it is an error.
    """
    role = "alert" if error else "status"
    bar = (
        "" if done is None else f'<progress max="100" value="{100 * done:.0f}" aria-label="{escape(text)}"></progress>'
    )
    return f'<div class="status{" error" if error else ""}" role="{role}"><p>{escape(text)}</p>{bar}</div>'


def render_facts(language: str, entries: Sequence[str], sha256: str, exif: Mapping[str, str]) -> str:
    """What is known of the chosen file: entries in a line, its hash, its EXIF entries folded away."""
    facts = f'<p>{" · ".join(escape(entry) for entry in entries)}</p><p class="hash">SHA-256 {escape(sha256)}</p>'
    if not exif:
        return f'<div class="facts">{facts}</div>'
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in exif.items())
    summary = f"{escape(say(language, 'facts.exif'))} ({len(exif)})"
    return f'<div class="facts">{facts}<details><summary>{summary}</summary><dl>{rows}</dl></details></div>'


def render_unavailable(language: str, entries: Sequence[tuple[ModelSpec, ModelStatus]]) -> str:
    """Models that cannot answer here, each with the reason and what to do about it."""
    if not entries:
        return ""
    items = "".join(
        f"<li><details><summary>{escape(spec.name)} {render_badge(language, status)}</summary>"
        f"<p>{escape(status.reason)}</p><p>{escape(status.remedy)}</p></details></li>"
        for spec, status in entries
    )
    title = f"{escape(say(language, 'models.unavailable'))} ({len(entries)})"
    opened = " open" if len(entries) <= MAX_UNFOLDED else ""
    return f'<details class="unavailable"{opened}><summary>{title}</summary><ul>{items}</ul></details>'


def render_verdict(
    language: str,
    verdict: Verdict | None,
    predictions: Sequence[Prediction],
    specs: Mapping[str, ModelSpec],
    confidence: str = "",
) -> str:
    """The verdict, how far the models agree, and what they know.

    Args:
        language: of the page.
        verdict: ``None`` where no model could answer.
        predictions: of the models behind it.
        specs: for their names.
        confidence: markup that says how far to believe it.
    """
    if verdict is None:
        return f'<div class="verdict"><p class="empty">{escape(say(language, "verdict.none"))}</p></div>'
    label = label_word(language, verdict.label)
    share = verdict.probabilities[verdict.label]
    agreement = " ".join(_agreement(language, verdict, predictions, specs))
    limits = _limits(language, predictions, specs)
    unit = say(language, "verdict.mean" if len(predictions) > 1 else "verdict.probability")
    word = (
        f'<strong>{escape(label)}</strong> <span class="number">{escape(_rounded(share))}</span> '
        f'<span class="unit">{escape(unit)}</span>'
        if verdict.confident
        else f"<strong>{escape(say(language, 'doubt.none'))}</strong>"
    )
    return (
        f'<div class="verdict"><p class="word">{word}</p>{confidence}'
        f'<p class="agreement{" split" if verdict.dissenters else ""}">{escape(agreement)}</p>{limits}</div>'
    )


def _rounded(share: float) -> str:
    """Whole percent; what is not certain is not rounded up to certainty."""
    return "> 99%" if 0.995 <= share < 1 else f"{share:.0%}"


def _agreement(
    language: str, verdict: Verdict, predictions: Sequence[Prediction], specs: Mapping[str, ModelSpec]
) -> list[str]:
    """How far the models agree; models behind which the same weights stand are one opinion."""
    opinions: dict[str, list[str]] = {}
    for prediction in predictions:
        weights = prediction.status.weights_sha256 or prediction.model_id
        opinions.setdefault(weights, []).append(model_name(specs, prediction.model_id))
    shared = [
        say(language, "verdict.same_weights", names=", ".join(names)) for names in opinions.values() if len(names) > 1
    ]
    if len(opinions) == 1:
        return [say(language, "verdict.single"), *shared]
    label = label_word(language, verdict.label)
    spread = say(language, "verdict.spread", label=label, points=f"{100 * verdict.spread:.0f}")
    if not verdict.dissenters:
        return [say(language, "verdict.agree", count=len(opinions)), *shared, spread]
    names = ", ".join(model_name(specs, model_id) for model_id in verdict.dissenters)
    split = say(language, f"verdict.split{'_many' if len(verdict.dissenters) > 1 else ''}", names=names)
    return [split, *shared, spread]


def _limits(language: str, predictions: Sequence[Prediction], specs: Mapping[str, ModelSpec]) -> str:
    """What the weights that answered were trained on: after a fallback that is not what was asked for."""
    serving = [specs.get(p.status.loaded_from) or specs.get(p.model_id) for p in predictions]
    known = dict.fromkeys((spec.name, spec.trained_on) for spec in serving if spec and spec.trained_on)
    rows = "".join(f"<li><b>{escape(name)}:</b> {escape(sentence)}</li>" for name, sentence in known)
    return (
        f'<div class="limits"><h3>{escape(say(language, "verdict.limits"))}</h3><ul>{rows}</ul>'
        f"<p>{escape(say(language, 'verdict.chance'))}</p></div>"
    )


def render_rows(
    language: str,
    verdict: Verdict | None,
    predictions: Sequence[Prediction],
    specs: Mapping[str, ModelSpec],
    notes: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """One row per model on a common axis: the probability of the verdict's label.

    Args:
        language: of the page.
        verdict: of them all.
        predictions: in the order to show.
        specs: for the names.
        notes: markup below a model's name, by its id.
    """
    if not predictions:
        return ""
    axis = verdict.label if verdict else predictions[0].label
    words = {key: escape(say(language, f"rows.{key}")) for key in ("model", "says", "weights", "time")}
    probability = escape(say(language, "rows.probability", label=label_word(language, axis)))
    head = "".join(
        f'<th scope="col">{text}</th>'
        for text in (words["model"], words["says"], probability, words["weights"], words["time"])
    )
    body = "".join(
        _row(language, prediction, axis, specs, (probability, words["time"]), notes.get(prediction.model_id, ""))
        for prediction in predictions
    )
    return f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _row(
    language: str,
    prediction: Prediction,
    axis: str,
    specs: Mapping[str, ModelSpec],
    captions: tuple[str, str],
    note: str,
) -> str:
    share = prediction.probabilities.get(axis, 0.0)
    own = label_word(language, prediction.label)
    why = _why(language, prediction.status)
    fill = f'<span style="width:{share:.2%}"></span>'
    halved = " halved" if len(prediction.probabilities) == 2 else ""
    bar = f'<span class="bar{halved}" role="img" aria-label="{captions[0]} {share:.1%}">{fill}</span>'
    return (
        f'<tr><th scope="row">{escape(model_name(specs, prediction.model_id))}{_asked(language, prediction)}{note}</th>'
        f'<td class="says">{escape(own)}</td>'
        f'<td class="share">{bar}<span class="number">{share:.1%}</span></td>'
        f'<td class="weights">{render_badge(language, prediction.status)}{why}</td>'
        f'<td class="time number" data-caption="{captions[1]}">{prediction.latency_s * 1000:.0f} ms</td></tr>'
    )


def _asked(language: str, prediction: Prediction) -> str:
    """The question that a vision-language model was asked, and in which style."""
    if not prediction.question:
        return ""
    style = say_or(language, f"style.{prediction.style}", prediction.style or "")
    return f'<span class="note">{escape(" · ".join(filter(None, (prediction.question, style))))}</span>'


def render_problems(language: str, problems: Sequence[tuple[str, str]]) -> str:
    """What could not be done: subject and message of each."""
    if not problems:
        return ""
    items = "".join(f"<li><b>{escape(subject)}:</b> {escape(message)}</li>" for subject, message in problems)
    return f'<div class="problems"><h3>{escape(say(language, "problems"))}</h3><ul>{items}</ul></div>'


def render_legend(language: str, heatmap: Heatmap, name: str, bar_uri: str, scale: tuple[float, float]) -> str:
    """The colour scale with the raw values at its ends, and what the map is a map of."""
    title = say(
        language,
        "legend.of",
        method=method_title(heatmap.method),
        target=target_word(language, heatmap.target),
        model=name,
    )
    target = target_word(language, heatmap.target)
    unit = escape(say(language, "signed.legend", target=target) if heatmap.signed else say(language, "legend.raw"))
    rows, cols = heatmap.grid_rc
    aware = heatmap.method not in CATALOG or CATALOG[heatmap.method].class_aware
    facts = (
        say(language, "heatmap.class_aware" if aware else "heatmap.class_blind"),
        say(language, "legend.grid", rows=rows, cols=cols),
        say(language, "legend.layer", layer=heatmap.layer),
        *([say(language, "signed.delta", delta=f"{heatmap.delta:.1%}")] if heatmap.delta is not None else []),
    )
    return (
        f'<div class="legend"><p class="title">{escape(title)}</p>'
        f'<div class="scale"><span class="number">{scale[0]:.3g}</span><img src="{bar_uri}" alt="">'
        f'<span class="number">{scale[1]:.3g}</span><span class="unit">{unit}</span></div>'
        f'<p class="note">{" · ".join(escape(fact) for fact in facts)}</p></div>'
    )


def render_grid(
    language: str,
    thumbnails: Iterable[Thumbnail],
    specs: Mapping[str, ModelSpec],
    shown: str,
    marks: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """All maps, a row of pictures per model; a press of a picture's button chooses it.

    Args:
        language: of the page.
        thumbnails: in the order to show.
        specs: for the names.
        shown: ``grid_key`` of the map that stands in the viewer.
        marks: further words below a picture, by ``grid_key``.
    """
    by_model: dict[str, list[Thumbnail]] = {}
    for thumbnail in thumbnails:
        by_model.setdefault(thumbnail.model_id, []).append(thumbnail)
    if not by_model:
        return ""
    # As many columns as methods, so that models stand under each other; few pictures do not grow without end.
    columns = max(MIN_GRID_COLUMNS, *(len(cells) for cells in by_model.values()))
    sections = "".join(
        f'<h3>{escape(model_name(specs, model_id))}</h3><div class="maps" style="--columns:{columns}">'
        + "".join(_cell(language, cell, specs, shown, marks) for cell in cells)
        + "</div>"
        for model_id, cells in by_model.items()
    )
    return f'<div class="grid">{sections}</div>'


def _cell(language: str, cell: Thumbnail, specs: Mapping[str, ModelSpec], shown: str, marks: Mapping[str, str]) -> str:
    title = method_title(cell.method)
    spoken = say(language, "grid.cell", method=title, model=model_name(specs, cell.model_id))
    key = grid_key(cell.model_id, cell.method)
    mark = f'<span class="mark">{escape(marks[key])}</span>' if key in marks else ""
    spoken = ", ".join(filter(None, (spoken, marks.get(key))))
    return (
        f'<button type="button" data-pick="{escape(key)}" aria-pressed="{str(key == shown).lower()}" '
        f'aria-label="{escape(spoken)}"><img src="{cell.uri}" alt=""><span>{escape(title)}</span>{mark}</button>'
    )


def grid_key(model_id: str, method: str) -> str:
    """What a cell of the grid is called between page and server; zoo ids hold no ``|``."""
    return f"{model_id}|{method}"


def render_picks(entries: Iterable[tuple[str, str, str]]) -> str:
    """Buttons with a picture each: key, words, data URI."""
    buttons = "".join(
        f'<button type="button" data-pick="{escape(key)}"><img src="{uri}" alt=""><span>{escape(words)}</span></button>'
        for key, words, uri in entries
    )
    return f'<div class="picks">{buttons}</div>'


def render_detections(language: str, regions: Sequence[RegionHeat] | None) -> str:
    """Each detected object and how much of the shown heat lies on it; ``None`` when no detector ran."""
    if regions is None:
        return render_empty(say(language, "detections.off"))
    if not regions:
        return render_empty(say(language, "detections.none"))
    keys = ("object", "confidence", "heat", "area", "density", "peak")
    captions = {key: escape(say(language, f"detections.{key}")) for key in keys}
    head = "".join(f'<th scope="col">{captions[key]}</th>' for key in keys)
    body = "".join(_detection(language, region, captions) for region in regions)
    note = escape(say(language, "detections.caption"))
    return (
        f'<table class="objects"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p class="note">{note}</p>'
    )


def _detection(language: str, region: RegionHeat, captions: Mapping[str, str]) -> str:
    cells = (
        ("confidence", f"{region.confidence:.0%}"),
        ("heat", f"{region.share:.1%}"),
        ("area", f"{region.area_share:.1%}"),
        ("density", f"{region.density:.2f}"),
        ("peak", escape(say(language, "yes" if region.holds_peak else "no"))),
    )
    row = "".join(f'<td class="number" data-caption="{captions[key]}">{value}</td>' for key, value in cells)
    return f'<tr><th scope="row">{escape(region.label)}</th>{row}</tr>'


def render_badge(language: str, status: ModelStatus) -> str:
    """What stands behind a model, as a word in a frame."""
    missing = " missing" if status.state is LoadState.UNAVAILABLE else ""
    return f'<span class="badge{missing}">{escape(say(language, f"state.{status.state.value}"))}</span>'


def _why(language: str, status: ModelStatus) -> str:
    """Why a stand-in answers, and, folded away, what to do about it."""
    if not status.reason:
        return ""
    reason = f'<p class="reason">{escape(status.reason)}</p>'
    if not status.remedy:
        return reason
    summary = escape(say(language, "rows.remedy"))
    return f'{reason}<details class="reason"><summary>{summary}</summary><p>{escape(status.remedy)}</p></details>'
