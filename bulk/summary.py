"""``summary.html``: a whole run on one page. Self-contained, printable, no script, nothing from the network."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bulk.groups import find_groups
from bulk.results import DISTANCE, Place, Run
from bulk.shortlist import Listed
from bulk.sources import Reader
from explain.report import CAUTION
from explain.signing import EVIDENCE, MANIFEST
from models.errors import BadImageError
from models.imaging import read_image

BINS = 20
# Of a claim's verdict, with its words, since a mark alone says nothing to who does not know it.
MARKS = MappingProxyType(
    {
        "supported": "<b>\u2713 supported:</b>",
        "refuted": "<b>\u2717 refuted:</b>",
        "not_enough_evidence": "<b>? not settled:</b>",
    }
)
UNSURE = "none that is confident: unlike what the models have seen"
GROUPS = 12
GROUP_PICTURES = 6
TOP_PICTURES = 48
SIDE_PX = 192
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem;border-bottom:1px solid #c8ccd2}
table{border-collapse:collapse}td,th{text-align:left;padding:.25rem 1rem .25rem 0;vertical-align:top}
th{font-weight:600}.num{font-variant-numeric:tabular-nums;text-align:right}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:1rem}
figure{margin:0;break-inside:avoid}figure img{width:100%;height:8rem;object-fit:contain;background:#eef0f2}
figure.two img{width:50%}
figcaption{font-size:.8rem;color:#4a525c;overflow-wrap:anywhere}svg{width:100%;max-width:34rem;height:auto}
.warn{border-left:4px solid #b35900;padding-left:.75rem}code{font-size:.85em;overflow-wrap:anywhere}
"""


@dataclass
class Counts:
    """What a run found, counted part by part.

    Attributes:
        images: rows.
        failed: rows with an error.
        verdicts: rows by verdict; those of pictures unlike what the models have seen under ``UNSURE``.
        flags: rows by what else is told of them.
        histograms: column to counts in ``BINS`` equal bins of [0, 1].
    """

    images: int = 0
    failed: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def count_rows(run: Run) -> Counts:
    """Count a run without keeping its rows."""
    columns = [*(f"verdict:{label}" for label in run.labels), "disagreement"]
    counts = Counts(histograms={name: np.zeros(BINS, np.int64) for name in columns})
    flags = ("c2pa_signature", "c2pa_ai_generated", "out_of_distribution", "unfamiliar", "exif_make")
    for _, table in run.read(["error", "verdict", *flags, *columns]):
        counts.images += table.num_rows
        counts.failed += table.num_rows - table.column("error").null_count
        verdicts = zip(table["verdict"].to_pylist(), table["out_of_distribution"].to_pylist(), strict=True)
        counts.verdicts.update(UNSURE if strange else label for label, strange in verdicts if label is not None)
        counts.flags["camera named in EXIF"] += table.num_rows - table.column("exif_make").null_count
        signatures = table.column("c2pa_signature").to_pylist()
        counts.flags.update(f"content credentials: {one}" for one in signatures if one is not None)
        counts.flags["content credentials say: made by AI"] += sum(filter(None, table["c2pa_ai_generated"].to_pylist()))
        for unfamiliar in filter(None, table["unfamiliar"].to_pylist()):
            counts.flags.update(f"unlike the training pictures of {model_id}" for model_id in unfamiliar.split(", "))
        for name in columns:
            values = np.array([value for value in table.column(name).to_pylist() if value is not None], np.float64)
            counts.histograms[name] += np.histogram(values, BINS, (0.0, 1.0))[0]
    return counts


def write_summary(run: Run, listed: Sequence[Listed], task: str) -> Counts:
    """Write ``summary.html`` into a run.

    Args:
        run: with all its parts.
        listed: pictures to show, highest first; with overlays where they have evidence bundles.
        task: the question.

    Returns:
        What was counted.
    """
    counts = count_rows(run)
    groups = find_groups(run)
    body = "".join(
        (
            f"<h1>{counts.images} pictures: {escape(task)}</h1>",
            f'<p class="warn">{escape(CAUTION)}</p>',
            _count_table(counts, groups, _count_claims(run, listed)),
            "<h2>Distributions</h2>",
            *(draw_histogram(name, values) for name, values in counts.histograms.items()),
            _top(run, listed),
            _groups(run, groups),
        )
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>Triage: {escape(task)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
    draft = run.folder / ".summary.html"
    draft.write_text(page, encoding="utf-8")
    draft.replace(run.folder / "summary.html")
    return counts


def _count_claims(run: Run, listed: Sequence[Listed]) -> Counter[str]:
    """Claims about the pictures of the short list, by verdict."""
    bundles = (_read_manifest(run.folder / EVIDENCE / one.name) for one in listed)
    return Counter(verdict.replace("_", " ") for manifest in bundles for _, verdict in _claims(manifest))


def _count_table(counts: Counts, groups: Sequence[Sequence[Place]], claims: Counter[str]) -> str:
    rows = {"pictures": counts.images, "could not be scored": counts.failed}
    rows |= {f"verdict: {label}": number for label, number in sorted(counts.verdicts.items())}
    rows |= dict(sorted(counts.flags.items()))
    rows["in groups of near duplicates"] = sum(map(len, groups))
    rows |= {f"claims about the short list: {verdict}": number for verdict, number in sorted(claims.items())}
    cells = "".join(f'<tr><th>{escape(name)}</th><td class="num">{number}</td></tr>' for name, number in rows.items())
    return f"<h2>Counts</h2><table>{cells}</table>"


def draw_histogram(name: str, values: Sequence[int] | NDArray[np.int64]) -> str:
    """Counts in equal bins of [0, 1] as a picture of bars that every reader can name."""
    highest = max(1, int(max(values)))
    width = 600 / len(values)
    bars = "".join(
        f'<rect x="{number * width + 1:.1f}" y="{120 - 110 * value / highest:.1f}" width="{width - 2:.1f}" '
        f'height="{110 * value / highest:.1f}" fill="#3d6b99"><title>{number / len(values):.2f} to '
        f"{(number + 1) / len(values):.2f}: {value}</title></rect>"
        for number, value in enumerate(map(int, values))
    )
    ticks = "".join(
        f'<text x="{600 * share:.0f}" y="138" font-size="13" text-anchor="{anchor}">{share:g}</text>'
        for share, anchor in ((0, "start"), (0.5, "middle"), (1, "end"))
    )
    said = escape(f"{name}: {sum(map(int, values))} pictures, at most {highest} in one bar")
    return (
        f'<figure><svg viewBox="0 0 600 142" role="img" aria-label="{said}">{bars}'
        f'<line x1="0" y1="120" x2="600" y2="120" stroke="#777"/>{ticks}</svg><figcaption>{said}</figcaption></figure>'
    )


def _top(run: Run, listed: Sequence[Listed]) -> str:
    if not listed:
        return ""
    shown = listed[:TOP_PICTURES]
    places, thresholds = [one.place for one in shown], run.thresholds
    figures = []
    for one, plain, row in zip(shown, _thumbnails(run, places), run.rows(places), strict=True):
        pictures, told = plain, _strange(row, thresholds)
        bundle = run.folder / EVIDENCE / one.name
        manifest = _read_manifest(bundle)
        overlay, caption = _overlay(bundle, manifest)
        if overlay:
            pictures, told = pictures + overlay, f"{told}<br>{caption}"
        told += "".join(f"<br>{MARKS[verdict]} {escape(claim)}" for claim, verdict in _claims(manifest))
        kind = ' class="two"' if overlay else ""
        figures.append(
            f"<figure{kind}>{pictures}<figcaption>{one.value:.1%} {escape(one.path)}{told}<br>"
            f"<code>{one.sha256[:16]}</code></figcaption></figure>"
        )
    more = f"<p>The first {len(shown)} of {len(listed)} in shortlist.json.</p>" if len(listed) > len(shown) else ""
    return f'<h2>Short list</h2>{more}<div class="grid">{"".join(figures)}</div>'


def _strange(row: Mapping[str, Any], thresholds: Mapping[str, float]) -> str:
    """What keeps a verdict from being believed: which models have not seen such pictures, and how far off it lies."""
    if not row["unfamiliar"]:
        return ""
    said = [
        f"{model_id} (distance {row[DISTANCE + model_id]:.2f}, threshold {thresholds[model_id]:.2f})"
        if model_id in thresholds
        else model_id
        for model_id in row["unfamiliar"].split(", ")
    ]
    verdict = "<br><strong>No confident verdict.</strong>" if row["out_of_distribution"] else ""
    return f"{verdict}<br>Unlike the training pictures of {escape('; '.join(said))}"


def _read_manifest(bundle: Path) -> dict[str, Any]:
    """What a bundle says of itself; empty where there is none."""
    try:
        manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _claims(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The claims of a bundle with the picture's verdict on each."""
    return [(one["claim"], one["verdict"]) for one in (manifest.get("claims") or {"claims": ()})["claims"]]


def _overlay(bundle: Path, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """One heatmap of a bundle as a picture, and what it is; empty where there is none."""
    try:
        first = next(iter(manifest["heatmaps"]), None)
        if first is None:
            return "", ""
        with Image.open(bundle / first["overlay"]) as overlay:
            picture = _embed(overlay.convert("RGB"), f"heatmap of {first['model_id']}")
    except (OSError, ValueError, KeyError):
        return "", ""
    badges = [one["badge"] for one in manifest.get("faithfulness", []) if one.get("badge")]
    said = f"; {badges[0].get('text', '')}" if badges else ""
    return picture, escape(f"{first['model_id']}, {first['method']}{said}")


def _groups(run: Run, groups: Sequence[Sequence[Place]]) -> str:
    if not groups:
        return ""
    parts = []
    for group in groups[:GROUPS]:
        shown = group[:GROUP_PICTURES]
        figures = "".join(
            f"<figure>{picture}<figcaption>{escape(str(row['path']))}</figcaption></figure>"
            for picture, row in zip(_thumbnails(run, shown), run.rows(shown), strict=True)
        )
        parts.append(f'<h3>{len(group)} pictures</h3><div class="grid">{figures}</div>')
    more = f"<p>The {GROUPS} largest of {len(groups)} groups.</p>" if len(groups) > GROUPS else ""
    return f"<h2>Near duplicates</h2>{more}{''.join(parts)}"


def _thumbnails(run: Run, places: Sequence[Place]) -> list[str]:
    reader = Reader()
    found = []
    for item in run.items(places):
        try:
            found.append(_embed(read_image(reader.read(item), name=item.path).rgb, item.path))
        except BadImageError as error:
            found.append(f"<p>{escape(str(error))}</p>")
    reader.close()
    return found


def _embed(image: Image.Image, alt: str) -> str:
    small = image.copy()
    small.thumbnail((SIDE_PX, SIDE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{data}">'
