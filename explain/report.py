"""``report.html``: the examination on paper. Self-contained, printable, no script, nothing from the network."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from PIL import Image

from explain import render
from explain.catalog import CATALOG
from explain.faithfulness_metrics import METRICS

if TYPE_CHECKING:
    from explain.examination import Examination

PICTURE_SIDE_PX = 480
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #c8ccd2}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.25rem .75rem .25rem 0;vertical-align:top}
th{font-weight:600}.num{font-variant-numeric:tabular-nums;text-align:right}
.maps{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1rem}
figure{margin:0;break-inside:avoid}figure img{width:100%}figcaption{font-size:.8rem;color:#4a525c}
.words{font-size:1.05rem;line-height:2}.words span{padding:.15em .1em;border-radius:.2em}
code{font-size:.85em;overflow-wrap:anywhere}.warn{border-left:4px solid #b35900;padding-left:.75rem}
"""
CHANGE_WORDS = MappingProxyType(
    {"jpeg": "JPEG quality 70", "halved": "half size", "blur": "slight blur", "crop": "5 % cut off each side"}
)
SIGNATURE_WORDS = MappingProxyType(
    {
        "valid": "signed, and neither the picture nor what is said of it was changed since",
        "invalid": "the picture or what is said of it was changed since, or it was badly signed",
        "unreadable": "there are some, but damaged",
        "elsewhere": "the file only names an address; nothing was fetched from there",
    }
)
AI_WORDS: Mapping[bool | None, str] = MappingProxyType(
    {True: "yes, wholly or in part, says its history", False: "its history does not say so", None: "cannot be read"}
)
CAUTION = (
    "A heatmap shows where the model's answer is sensitive, not that the answer is right. A detector is no better than "
    "chance on pictures made by generators it was not trained on."
)


def write_report(examination: Examination, manifest: dict[str, Any], folder: Path) -> None:
    """Write ``report.html`` into a bundle.

    Args:
        examination: complete.
        manifest: what ``explain.bundle.describe`` says of it.
        folder: the bundle.
    """
    name = escape(examination.source.name)
    body = "".join(
        (
            f"<h1>Examination of {name}</h1><p>{escape(manifest['created_utc'])}</p>",
            f'<p class="warn">{escape(CAUTION)}</p>',
            _verdict(manifest),
            _predictions(manifest),
            _picture(examination),
            _credentials(manifest),
            _claims(manifest),
            _words(examination),
            _heatmaps(examination),
            _faithfulness(examination),
            _checks(examination),
            _stability(examination),
            _differences(examination),
            _detections(manifest),
            _problems(manifest),
            _provenance(manifest),
        )
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>Examination of {name}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _verdict(manifest: dict[str, Any]) -> str:
    verdict = manifest["verdict"]
    task = escape(manifest["settings"]["task"])
    if verdict is None:
        return f"<h2>Verdict</h2><p>No model could answer the task {task}.</p>"
    label, share = verdict["label"], verdict["probabilities"][verdict["label"]]
    against = ", ".join(escape(model) for model in verdict["dissenters"]) or "no model"
    said = f"<strong>{escape(label)}</strong>, mean probability {share:.1%}"
    if not verdict["confident"]:
        said = f"<strong>No confident verdict.</strong> The models lean to {escape(label)} ({share:.1%})"
    strange = ", ".join(escape(model) for model in verdict["unfamiliar"])
    unseen = f'<p class="warn">Has not seen such pictures: {strange}.</p>' if strange else ""
    return (
        f"<h2>Verdict</h2><p>{said} (task {task}). Agreement {verdict['agreement']:.0%}; {against} disagrees; spread "
        f"{verdict['spread']:.1%}. {_expected(verdict['expected'])}</p>{unseen}"
    )


def _expected(expected: dict[str, Any] | None) -> str:
    """How often answers of this confidence were right on held-out pictures."""
    if expected is None:
        return "How often answers this sure are right was not measured."
    return (
        f"Of {expected['pictures']} held-out pictures with a confidence of {expected['low']:.0%} to "
        f"{expected['high']:.0%}, {expected['accuracy']:.1%} were answered rightly."
    )


def _doubt(prediction: dict[str, Any]) -> str:
    """Whether probabilities are calibrated, how often they are right, and whether the model has seen such pictures."""
    if prediction["raw"] is None:
        return "<br>Not calibrated: the network's own probabilities."
    raw = ", ".join(f"{escape(k)} {v:.2%}" for k, v in prediction["raw"].items())
    line = f"<br>Calibrated with temperature {prediction['temperature']:.3f}; raw: {raw}. "
    novelty = prediction["novelty"]
    if novelty is not None:
        unseen = "<strong>has not seen such pictures</strong>" if novelty["unfamiliar"] else "has seen such pictures"
        line += f"It {unseen}: distance {novelty['distance']:.3f}, threshold {novelty['threshold']:.3f}. "
    return line + _expected(prediction["expected"])


def _predictions(manifest: dict[str, Any]) -> str:
    rows = []
    for prediction in (*manifest["predictions"], *manifest["base_predictions"]):
        status = prediction["status"]
        numbers = ", ".join(f"{escape(k)} {v:.2%}" for k, v in prediction["probabilities"].items())
        why = escape(" ".join(part for part in (status["reason"], status["remedy"]) if part))
        rows.append(
            f"<tr><td>{escape(prediction['model_id'])}</td><td>{escape(prediction['label'])}</td>"
            f"<td>{numbers}{_asked(prediction)}{_doubt(prediction)}</td>"
            f"<td>{escape(status['state'])}: {escape(status['loaded_from'])} {why}</td>"
            f'<td class="num">{prediction["latency_s"] * 1000:.0f} ms</td></tr>'
        )
    head = "<tr><th>Model</th><th>Says</th><th>Probabilities</th><th>Weights</th><th>Time</th></tr>"
    return f"<h2>Models</h2><table>{head}{''.join(rows)}</table>"


def _asked(prediction: dict[str, Any]) -> str:
    """What was asked, and what was written, for models that read and write."""
    if prediction["question"] is None:
        return ""
    style = f" ({escape(prediction['style'])})" if prediction["style"] else ""
    text = f"<br>Written: {escape(prediction['text'])}" if prediction["text"] else ""
    return f"<br>Asked{style}: {escape(prediction['question'])}{text}"


def _picture(examination: Examination) -> str:
    image = render.fit(examination.source.rgb, 800)
    if examination.detections is not None:
        image = render.draw_detections(image, examination.detections)
    return f'<h2>Picture</h2><figure><img alt="the examined picture" src="{_data_uri(image)}"></figure>'


def _credentials(manifest: dict[str, Any]) -> str:
    """What the picture's own signed history says."""
    found = manifest["image"]["credentials"]
    if found is None:
        said = "The picture carries no content credentials (C2PA), which says nothing of where it comes from."
        return f"<h2>Content credentials</h2><p>{said}</p>"
    rows = {
        "Signature": f"{found['signature']}: {SIGNATURE_WORDS[found['signature']]}",
        "Issuer": found["issuer"] or "not named",
        "Written by": found["generator"] or "not named",
        "Made by AI": AI_WORDS[found["ai_generated"]],
    }
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(said)}</td></tr>" for name, said in rows.items())
    note = "Anybody can make a certificate: a valid signature shows that nothing was changed since, not who signed."
    return f"<h2>Content credentials</h2><table>{cells}</table><p>{note}</p>"


def _claims(manifest: dict[str, Any]) -> str:
    """Statements held against the picture."""
    checked = manifest["claims"]
    if checked is None:
        return ""
    rows = []
    for one in checked["claims"]:
        where = ", ".join(f"{edge:.0f}" for edge in one["region_xyxy"] or ())
        rows.append(
            f"<tr><td>{escape(one['claim'])}</td><td>{escape(one['verdict'].replace('_', ' '))}</td>"
            f'<td class="num">{one["support"]:.0%}</td><td>{where}</td></tr>'
        )
    note = f"Judged with {checked['model_id']}, calibrated for {checked['domain']}. {checked['note']}"
    head = "<tr><th>Claim</th><th>The picture</th><th>Support</th><th>Region (x0, y0, x1, y1)</th></tr>"
    return f"<h2>Claims</h2><p>{escape(note)}</p><table>{head}{''.join(rows)}</table>"


def _heatmaps(examination: Examination) -> str:
    photo = render.fit(examination.source.rgb, PICTURE_SIDE_PX)
    shown = []
    for heatmap in examination.heatmaps:
        caption = (
            f"{heatmap.model_id}, {CATALOG[heatmap.method].title}, {heatmap.target}; raw {heatmap.raw_min:.3g} to "
            f"{heatmap.raw_max:.3g} on {heatmap.grid_rc[0]}x{heatmap.grid_rc[1]} cells of {heatmap.layer}"
        )
        if heatmap.signed:
            caption += "; red: for it, blue: against it"
        if heatmap.delta is not None:
            caption += f"; convergence delta {heatmap.delta:.2%}"
        shown.append((render.draw_heatmap(photo, heatmap), caption))
    return f'<h2>Heatmaps</h2><div class="maps">{_figures(shown)}</div>'


def _faithfulness(examination: Examination) -> str:
    """The figures of every measured map, and what its badge says."""
    if not examination.faithfulness:
        return ""
    names = [name for name in METRICS if any(name in one.figures for one in examination.faithfulness)]
    arrows = {"higher": "\u2191", "lower": "\u2193"}
    heads = "".join(f'<th class="num">{escape(METRICS[n].title)} {arrows[METRICS[n].better]}</th>' for n in names)
    rows = []
    for one in examination.faithfulness:
        figures = (f"{one.figures[name]:.3f}" if name in one.figures else "" for name in names)
        cells = "".join(f'<td class="num">{figure}</td>' for figure in figures)
        said = escape(one.badge.text) if one.badge else ""
        rows.append(
            f"<tr><td>{escape(one.model_id)}</td><td>{escape(CATALOG[one.method].title)}</td>{cells}<td>{said}</td></tr>"
        )
    how = examination.faithfulness[0].settings
    note = (
        f"{how.steps} steps; insertion from {how.insertion_baseline}, deletion to {how.deletion_baseline}; random maps "
        "are as smooth as the map they stand beside. An arrow says where a more faithful map lies."
    )
    return (
        f"<h2>How far to believe the heatmaps</h2><p>{escape(note)}</p><table><tr><th>Model</th><th>Method</th>{heads}"
        f"<th>Beside chance</th></tr>{''.join(rows)}</table>"
    )


def _checks(examination: Examination) -> str:
    """Which maps stay when the network knows nothing."""
    lines = "".join(
        f"<li>{escape(one.model_id)}, {escape(CATALOG[one.method].title)}: {escape(one.text)}</li>"
        for one in examination.checks
    )
    return f"<h2>With random weights</h2><ul>{lines}</ul>" if lines else ""


def _stability(examination: Examination) -> str:
    """What small changes of the picture did to every model's answer and maps."""
    if not examination.stability:
        return ""
    rows = []
    for found in examination.stability:
        for one in found.variants:
            turned = f"<strong>{escape(one.label)}</strong>" if one.label != found.label else escape(one.label)
            alike = ", ".join(f"{escape(CATALOG[name].title)} {value:.2f}" for name, value in one.correlations.items())
            rows.append(
                f"<tr><td>{escape(found.model_id)}</td><td>{escape(CHANGE_WORDS[one.change])}</td><td>{turned}</td>"
                f'<td class="num">{one.probability:.1%}</td><td>{alike}</td></tr>'
            )
    note = "Each model asked again about the picture under small changes; maps are compared by their correlation."
    return (
        f"<h2>Stability</h2><p>{note}</p><table><tr><th>Model</th><th>Change</th><th>Says</th>"
        f'<th class="num">Probability of its first answer</th><th>Maps</th></tr>{"".join(rows)}</table>'
    )


def _differences(examination: Examination) -> str:
    if not examination.differences:
        return ""
    photo = render.fit(examination.source.rgb, PICTURE_SIDE_PX)
    shown = []
    for difference in examination.differences:
        tuned, (low, high) = difference.tuned, difference.scale
        caption = (
            f"{tuned.model_id} minus {difference.base.model_id}, {CATALOG[tuned.method].title}, {tuned.target}; red: "
            f"relies on it more, blue: less; strongest colour at a raw difference of {high - low:.3g}"
        )
        shown.append((render.draw_difference(photo, difference), caption))
    return f'<h2>What fine-tuning changed</h2><div class="maps">{_figures(shown)}</div>'


def _words(examination: Examination) -> str:
    if not examination.words:
        return ""
    rows = []
    for words in examination.words:
        marked, end = [], 0
        colours = render.difference_colours(words.shares)
        for (start, stop), score, colour in zip(words.spans, words.scores.tolist(), colours, strict=True):
            marked.append(escape(words.question[end:start]))
            text = escape(words.question[start:stop])
            marked.append(f'<span style="background:{colour}" title="{score:+.3g}">{text}</span>')
            end = stop
        marked.append(escape(words.question[end:]))
        told = f"{escape(words.model_id)}, {escape(words.target)}; red: for it, blue: against it"
        rows.append(f'<p class="words">{"".join(marked)}</p><p>{told}</p>')
    return f"<h2>Words that carried the answer</h2>{''.join(rows)}"


def _figures(shown: Iterable[tuple[Image.Image, str]]) -> str:
    """Pictures with their captions."""
    return "".join(
        f'<figure><img alt="{escape(caption)}" src="{_data_uri(image)}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
        for image, caption in shown
    )


def _detections(manifest: dict[str, Any]) -> str:
    found = manifest["detections"]
    if found is None:
        return ""
    rows = "".join(
        f'<tr><td>{escape(o["label"])}</td><td class="num">{o["confidence"]:.0%}</td>'
        f"<td>{', '.join(f'{v:.0f}' for v in o['box_xyxy'])}</td></tr>"
        for o in found["objects"]
    )
    head = "<tr><th>Object</th><th>Confidence</th><th>Box (x0, y0, x1, y1)</th></tr>"
    return f"<h2>Objects ({escape(found['status']['loaded_from'])})</h2><table>{head}{rows}</table>"


def _problems(manifest: dict[str, Any]) -> str:
    if not manifest["problems"]:
        return ""
    rows = "".join(f"<li>{escape(p['subject'])}: {escape(p['message'])}</li>" for p in manifest["problems"])
    return f"<h2>Could not be done</h2><ul>{rows}</ul>"


def _provenance(manifest: dict[str, Any]) -> str:
    image = manifest["image"]
    rows = {
        "File": image["name"],
        "SHA-256": image["sha256"],
        "Format": f"{image['format']}, {image['size_wh'][0]}x{image['size_wh'][1]} px",
        "Decoding": "; ".join(image["notes"]) or "as stored",
        **{f"EXIF {key}": value for key, value in image["exif"].items()},
        **{
            f"Weights of {p['model_id']}": p["status"]["weights_sha256"]
            for p in (*manifest["predictions"], *manifest["base_predictions"])
        },
        "Versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    }
    cells = "".join(f"<tr><th>{escape(k)}</th><td><code>{escape(str(v))}</code></td></tr>" for k, v in rows.items())
    return f"<h2>Provenance</h2><table>{cells}</table>"


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
