"""Set saved reports against each other: ``comparison.json``, plots, and a page with the pictures won and lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from models.intervals import RESAMPLES
from models.report_comparison import Comparison, Contrast, Disagreement, Side, compare_reports
from models.report_figures import FIGURE_TITLES
from models.reports import Report, ReportError, read_pictures, read_report
from training.page import make_table, show_pictures, show_plots, write_estimate, write_page
from training.plots import save_confusion, save_reliability, save_sides
from training.report_page import describe_generated

COMPARISON = "comparison.json"
MOST_PICTURES = 24


def compare(folders: Sequence[Path], out: Path, *, seed: int = 0, resamples: int = RESAMPLES) -> Comparison:
    """Compare reports and write ``comparison.json`` (last), plots and ``report.html``.

    Args:
        folders: of the reports, two or more.
        out: folder to write.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        ReportError: a report cannot be read, they are not of the same rows, or ``out`` is one of them.
    """
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise ReportError(f"{out}: is one of the reports; give another --out.")
    reports = [read_report(folder) for folder in folders]
    comparison = compare_reports(reports, seed=seed, resamples=resamples)
    thumbnails: dict[str, bytes] = {}
    for folder in folders:
        thumbnails |= read_pictures(folder if folder.is_dir() else folder.parent)
    out.mkdir(parents=True, exist_ok=True)
    plots = list(_draw(comparison, reports, out))
    _write(comparison, thumbnails, plots, out / "report.html")
    (out / COMPARISON).write_text(comparison.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return comparison


def describe_comparison(comparison: Comparison) -> str:
    """The comparison as a short table for people."""
    lines = [f"{comparison.rows} {comparison.kind}, {len(comparison.disagreements)} disagreements"]
    for name, *cells in _list_sides(comparison):
        lines.append("   ".join([f"{name:<26}", *cells]))
    for contrast in comparison.contrasts:
        lines.append(_describe_test(comparison, contrast))
        lines += [f"  {name:<26}{value}" for name, value in _list_differences(contrast)]
    return "\n".join(lines)


def _draw(comparison: Comparison, reports: Sequence[Report], out: Path) -> Iterator[tuple[Path, str]]:
    save_sides(comparison, out / "figures.png")
    yield out / "figures.png", "Figures of all with their 95 % intervals"
    numbered = list(enumerate(zip(comparison.sides, reports, strict=True)))
    for number, (side, report) in numbered:
        if report.confusion:
            file = out / f"confusion-{number}.png"
            save_confusion(report.confusion, file)
            yield file, f"Confusion matrix of {side.name}"
    for number, (side, report) in numbered:
        if report.calibration:
            file = out / f"reliability-{number}.png"
            save_reliability(report.calibration, file)
            yield file, f"Reliability of {side.name}"


def _write(
    comparison: Comparison, thumbnails: Mapping[str, bytes], plots: Sequence[tuple[Path, str]], path: Path
) -> None:
    names = [side.name for side in comparison.sides]
    what = "questions" if comparison.kind == "answers" else "pictures"
    data = ", ".join(one.file for one in comparison.data)
    parts = [
        describe_generated(comparison.generated),
        f"<p>The same {comparison.rows:,} {what} of {escape(data)}, asked of each.</p>",
        make_table(("name", "model", "weights", "asked"), map(_describe_side, comparison.sides)),
        "<h2>Figures</h2>",
        make_table(("figure", *names), _list_sides(comparison), numbers=len(names)),
        '<p class="quiet">In brackets the 95 % interval of a bootstrap over the pictures.</p>',
        show_plots(plots),
    ]
    parts.extend(_show_contrast(comparison, contrast, thumbnails) for contrast in comparison.contrasts)
    write_page(path, f"{', '.join(names)} compared", "".join(parts))


def _describe_side(side: Side) -> tuple[str, str, str, str]:
    asked = f"{side.question} ({side.style or 'plain'})" if side.question else ""
    return side.name, side.model, "without its fine-tuning" if side.base else side.status, asked


def _list_sides(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for name in comparison.sides[0].figures:
        cells = (write_estimate(side.figures.get(name), digits=1 if name == "bleu" else 3) for side in comparison.sides)
        yield FIGURE_TITLES.get(name, name), *cells


def _list_differences(contrast: Contrast) -> Iterator[tuple[str, str]]:
    for name, one in contrast.differences.items():
        yield FIGURE_TITLES.get(name, name), write_estimate(one, digits=1 if name == "bleu" else 3, signed=True)


def _describe_test(comparison: Comparison, contrast: Contrast) -> str:
    one, other = comparison.sides[contrast.one].name, comparison.sides[contrast.other].name
    chance = "below 0.0001" if contrast.p_value < 1e-4 else f"{contrast.p_value:.4f}"
    return (
        f"{one} against {other}: both right {contrast.both_right:,}, only {one} {contrast.wins:,}, only {other} "
        f"{contrast.losses:,}, both wrong {contrast.both_wrong:,}; McNemar's exact test p {chance}"
    )


def _show_contrast(comparison: Comparison, contrast: Contrast, thumbnails: Mapping[str, bytes]) -> str:
    one, other = comparison.sides[contrast.one].name, comparison.sides[contrast.other].name
    won = [row for row in comparison.disagreements if row.right[contrast.one] and not row.right[contrast.other]]
    lost = [row for row in comparison.disagreements if row.right[contrast.other] and not row.right[contrast.one]]
    return "".join(
        (
            f"<h2>{escape(one)} against {escape(other)}</h2>",
            f"<p>{escape(_describe_test(comparison, contrast))}.</p>",
            make_table((f"{one} less {other}", "difference"), _list_differences(contrast), numbers=1),
            '<p class="quiet">In brackets the 95 % interval of a paired bootstrap; where it holds 0, the two may be '
            "equally good. The test counts each question as one trial.</p>",
            _show_rows(f"Only {one} is right", comparison, won, thumbnails),
            _show_rows(f"Only {other} is right", comparison, lost, thumbnails),
        )
    )


def _show_rows(
    title: str, comparison: Comparison, rows: Sequence[Disagreement], thumbnails: Mapping[str, bytes]
) -> str:
    if not rows:
        return f"<h2>{escape(title)}: never</h2>"
    shown = rows[:MOST_PICTURES]
    names = [side.name for side in comparison.sides]
    captions = [
        " ".join(
            part
            for part in (
                row.question,
                f"True: {row.truth}.",
                *(f"{name}: {given}." for name, given in zip(names, row.given, strict=True)),
            )
            if part
        )
        for row in shown
    ]
    pictures = show_pictures((thumbnails.get(row.sha256), text) for row, text in zip(shown, captions, strict=True))
    return f"<h2>{escape(title)}: {len(rows):,}, of which {len(shown):,} here</h2>{pictures}"
