"""The Compare tab without a browser: saved reports, strangers' uploads, and numbers that are those of the reports."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from models.report_comparison import compare_reports
from models.reports import PICTURES as PICTURES_FILE
from models.reports import REPORT, ReportError, read_report, write_report
from tests.saved_reports import PICTURES, answer_rows, label_rows, make_report, save_reports
from ui import compare_gallery
from ui.compare_charts import draw_confusion, draw_loss, draw_reliability
from ui.compare_listeners import MAX_COMPARED, MAX_UPLOADS, CompareListeners, Wanted, name_sides
from ui.compare_shelf import Shelf, find_evaluations
from ui.compare_table import show_difference, show_figure, show_p_value
from ui.listeners import Listeners
from ui.services import Services
from ui.text import LANGUAGES, say
from ui.updates import merge

EVIL = "<img src=x onerror=alert(1)>\"'&${alert(2)}{{value}}`"


class Table(HTMLParser):
    """Every cell of a page with its words and its value, every tag, and what can be pressed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.values: list[str] = []
        self.tags: list[str] = []
        self.picks: list[str] = []
        self.words = ""
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        told = dict(attrs)
        if tag in ("td", "th"):
            self.cells.append("")
            self._inside = True
        if tag == "td" and "data-value" in told:
            self.values.append(told["data-value"])
        if "data-pick" in told and "disabled" not in told:
            self.picks.append(told["data-pick"])

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        self.words += data + " "
        if self._inside:
            self.cells[-1] += data + " "


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_reports(tmp_path / "reports")


@pytest.fixture
def uploads(tmp_path, monkeypatch) -> Path:
    """Where files of visitors are kept."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return tmp_path / "gradio"


@pytest.fixture
def shelf(folder, tmp_path) -> Shelf:
    return Shelf(folder, bundled=tmp_path / "bundled")


@pytest.fixture
def services(shelf, tiny_loader, uploads) -> Services:
    return Services(zoo=tiny_loader.zoo, loader=tiny_loader, examples=(), reports=shelf)


@pytest.fixture
def listeners(services) -> CompareListeners:
    return CompareListeners(services)


def two(shelf: Shelf) -> Wanted:
    """The fine-tuned model and its base."""
    saved = [each for each in shelf.list_saved() if each.report.kind == "labels"]
    return Wanted(saved[0].evaluation, tuple(each.key for each in saved))


def plot(drawn) -> dict:
    return json.loads(drawn.plot)


def words_of(updates) -> str:
    """All HTML of the tab."""
    places = ("news", "about", "figures", "contrasts", "diagrams", "numbers", "gallery_heading", "gallery", "unread")
    return "".join(updates[name]["value"] for name in places)


# Numbers


def test_figures_on_the_page_are_those_of_the_reports(listeners, shelf, folder):
    table = Table(listeners.show("en", (), two(shelf))["figures"]["value"])
    names = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "ece")
    reports = [read_report(folder / name) for name in ("tuned", "zero-shot")]
    assert [float(value) for value in table.values] == [
        report.figures[name].value for report in reports for name in names
    ]
    assert "91.7%" in table.words  # 11 of 12
    assert "58.3%" in table.words  # 7 of 12
    for report in reports:
        for name in names:
            found = report.figures[name]
            assert f"{show_figure(name, found.low)} – {show_figure(name, found.high)}" in table.words


def test_differences_are_those_of_the_comparison(listeners, shelf, folder):
    words = Table(listeners.show("en", (), two(shelf))["contrasts"]["value"]).words
    reports = [read_report(folder / name) for name in ("tuned", "zero-shot")]
    (contrast,) = compare_reports(reports).contrasts
    assert (contrast.wins, contrast.losses, contrast.p_value) == (4, 0, pytest.approx(0.125))  # 2 * 0.5 ** 4
    assert "tuned minus zero-shot" in words
    assert "+33.3 points" in words
    assert "Neither is shown" in words
    assert " 0.12 " in words
    for name, found in contrast.differences.items():
        assert f"{show_difference(name, found.low)} … {show_difference(name, found.high)}" in words


def test_clear_winner_is_named(services, folder, shelf):
    write_report(make_report("tuned", label_rows()), folder / "tuned", {})
    write_report(make_report("zero-shot", label_rows(wrong=range(11))), folder / "zero-shot", {})
    words = Table(CompareListeners(services).show("en", (), two(shelf))["contrasts"]["value"]).words
    assert "tuned is right more often." in words
    assert "< 0.001" in words  # 2 * 0.5 ** 11


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (show_figure("accuracy", 0.96341), "96.3%"),
        (show_figure("bleu", 41.26), "41.3"),
        (show_figure("ece", 0.0314), "0.031"),
        (show_difference("accuracy", -0.0525), "−5.2"),
        (show_difference("rouge1", 0.0125), "+0.013"),
        (show_p_value(0.0314), "0.031"),
        (show_p_value(0.0001), "< 0.001"),
    ],
)
def test_figures_read_well(shown, expected):
    assert shown == expected


def test_diagrams_hold_the_reports_numbers(folder):
    report = read_report(folder / "zero-shot")
    heatmap, *texts = plot(draw_confusion("en", report))["data"]
    assert heatmap["z"] == [[4 / 6, 1 / 6, 1 / 6], [3 / 6, 3 / 6, 0.0]]
    shown = {(y, x): text for trace in texts for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True)}
    counts = report.confusion.counts
    assert shown == {(row, column): str(counts[row][column]) for row in range(2) for column in range(3)}
    _, curve = plot(draw_reliability("en", report, 0))["data"]
    assert list(zip(curve["x"], curve["y"], strict=True)) == [(b.confidence, b.accuracy) for b in report.calibration]
    training, validation = plot(draw_loss("en", [read_report(folder / "tuned"), report]))["data"]
    assert (training["x"], training["y"]) == ([0, 1, 2, 3, 4], [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    assert (validation["x"], validation["y"]) == ([4], [0.4])
    assert draw_loss("en", [report]) is None


def test_numbers_behind_the_diagrams_can_be_read_without_them(listeners, shelf, folder):
    words = Table(listeners.show("en", (), two(shelf))["numbers"]["value"]).cells
    cells = [" ".join(cell.split()) for cell in words]
    for report in (read_report(folder / name) for name in ("tuned", "zero-shot")):
        for each in report.per_class.values():
            assert f"{each.precision:.3f}" in cells
        for row in report.confusion.counts:
            assert {str(count) for count in row} <= set(cells)


def test_reports_of_free_answers_have_figures_and_no_matrix(listeners, shelf):
    saved = next(each for each in shelf.list_saved() if each.report.kind == "answers")
    updates = listeners.show("en", (), Wanted(saved.evaluation, (saved.key,)))
    assert Table(updates["figures"]["value"]).values[:3] == [repr(11 / 12), repr(11 / 12), "0.0"]
    assert "ROUGE-L" in updates["figures"]["value"]
    assert updates["column_0"] == {"visible": False}
    assert updates["contrasts"]["value"] == ""
    assert "only report of this evaluation" in updates["figures"]["value"]
    mistakes = Table(updates["gallery"]["value"])
    assert "What is bar 2?" in mistakes.words
    assert "<b>many</b>" in mistakes.words  # as text
    assert mistakes.picks == ["open|0"]


# What is shown


def test_nothing_saved_says_how_to_make_a_report(tiny_loader, tmp_path):
    services = Services(
        zoo=tiny_loader.zoo, loader=tiny_loader, examples=(), reports=Shelf(bundled=tmp_path / "nothing")
    )
    updates = CompareListeners(services).show("en", (), Wanted())
    assert "python -m training evaluate" in updates["about"]["value"]
    assert updates["evaluation"]["visible"] is False


def test_ticking_none_or_too_many_says_so(listeners, shelf, folder):
    assert "Choose two or more" in listeners.show("en", (), replace(two(shelf), keys=()))["news"]["value"]
    for number in range(4):
        write_report(make_report("same name", label_rows(wrong=(number,))), folder / f"more{number}", {})
    wanted = two(shelf)
    assert len(wanted.keys) == 6
    updates = listeners.show("en", (), wanted)
    assert "At most four" in updates["news"]["value"]
    assert len(updates["reports"]["value"]) == MAX_COMPARED
    shown = [name for name, _ in updates["reports"]["choices"]]
    assert len(set(shown)) == 6
    assert "same name (reports/more0)" in shown
    chosen = [each.report for each in shelf.list_saved() if each.key in updates["reports"]["value"]]
    assert name_sides(chosen) == [side.name for side in compare_reports(chosen, resamples=1).sides]
    assert len(Table(updates["contrasts"]["value"]).cells) == 9 + 6 * 9  # six pairs under one heading


def test_figures_come_before_the_seconds_of_resampling_and_those_come_once(listeners, shelf, monkeypatch):
    first, last = listeners.steps("en", (), two(shelf))
    assert "Comparing 2 reports" in first["news"]["value"]
    assert first["figures"] == last["figures"]
    assert first["contrasts"]["value"] == ""
    assert "tuned minus zero-shot" in last["contrasts"]["value"]
    monkeypatch.setattr("ui.compare_listeners.compare_reports", None)
    listeners.show("ko", (), two(shelf))
    listeners.turn("en", (), two(shelf))


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_generated_pictures_are_called_so_wherever_they_stand(language, listeners, shelf):
    updates = listeners.translate(language, (), two(shelf))
    badge = say(language, "compare.generated")
    for name in ("about", "gallery_heading"):
        assert badge in updates[name]["value"]
    assert badge in updates["evaluation"]["choices"][0][0]
    assert updates["tab"]["label"] == say(language, "tab.compare")


def test_tab_that_nobody_opened_is_not_filled_by_a_change_of_language(listeners):
    assert set(listeners.translate("ko", (), Wanted())) == {"tab", "upload", "evaluation", "reports", "which"}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_nothing_from_a_report_becomes_markup(language, services, folder, shelf):
    for kind, rows in (("labels", label_rows(wrong=(1,), labels=(EVIL, "<i>b"))), ("answers", answer_rows(wrong=(1,)))):
        for name in ("one", "two"):
            told = [row.model_copy(update={"source": EVIL, "answer": EVIL, "question": EVIL}) for row in rows]
            report = make_report(EVIL, told, model=EVIL, status=EVIL, command=EVIL, question=EVIL)
            write_report(report, folder / f"{kind}-{name}", PICTURES)
    listeners = CompareListeners(services)
    for evaluation in find_evaluations(shelf.list_saved()):
        updates = listeners.show(language, (), Wanted(evaluation))
        html = words_of(updates)
        assert "img" not in Table(html.replace('<img src="data:', '<x src="data:')).tags
        assert not set("{}$`") & set(html)
        for name in ("confusion_0", "reliability_0", "loss"):
            drawn = updates[name]["value"]
            assert drawn is None or ("<img" not in drawn.plot and "<i>" not in drawn.plot)


def test_labels_in_hangul_stay_as_they_are(folder):
    labels = ("진짜 사진", "만든 사진")
    axes = plot(draw_confusion("ko", make_report("모델", label_rows(labels=labels))))["layout"]
    assert axes["xaxis"]["ticktext"] == ["진짜 사진", "만든 사진", "답 없음"]
    assert axes["yaxis"]["ticktext"] == ["진짜 사진", "만든 사진"]


# Pictures


def test_disagreements_show_truth_and_every_answer(listeners, shelf):
    wanted = two(shelf)
    updates = listeners.show("en", (), wanted)
    table = Table(updates["gallery"]["value"])
    assert table.picks == ["open|0", "open|1", "open|2", "open|3"]  # 1, 5, 6 and the silent 8; 3 is wrong for both
    assert table.words.count("no answer") == 1
    assert "set.parquet row 8" in table.words
    assert "/home/someone" not in table.words
    assert updates["which"]["choices"] == [
        ("All (4)", "all"),
        ("Only tuned is right (4)", "0"),
        ("Only zero-shot is right (0)", "1"),
        ("Nobody is right (0)", "nobody"),
    ]
    none = listeners.turn("en", (), replace(wanted, which="1"))
    assert "the models agree here" in none["gallery"]["value"]


def test_pages_of_disagreements_are_turned(listeners, shelf, monkeypatch):
    monkeypatch.setattr(compare_gallery, "PAGE_SIZE", 3)
    first = Table(listeners.turn("en", (), two(shelf))["gallery"]["value"])
    assert first.picks == ["open|0", "open|1", "open|2", "page|1"]
    last = Table(listeners.turn("en", (), two(shelf), 1)["gallery"]["value"])
    assert last.picks == ["open|3", "page|0"]
    assert "Page 2 of 2" in last.words
    assert Table(listeners.turn("en", (), two(shelf), 99)["gallery"]["value"]).picks == last.picks


def test_reports_without_pictures_say_so_and_name_the_sources(listeners, shelf, folder):
    for name in ("tuned", "zero-shot"):
        (folder / name / PICTURES_FILE).unlink()
        (folder / name / REPORT).touch()
    updates = listeners.show("en", (), two(shelf))
    assert "came without their pictures" in updates["gallery_heading"]["value"]
    table = Table(updates["gallery"]["value"])
    assert table.picks == []
    assert "set.parquet row 1" in table.words


def test_picture_opens_as_it_is_kept_and_says_what_it_is(listeners, services, shelf):
    wanted = two(shelf)
    opening = listeners.open("en", (), wanted, 1)
    digest = list(PICTURES)[5]
    assert opening.source.original == PICTURES[digest]
    assert opening.source.name == "set.parquet row 5"
    assert any(digest in note for note in opening.source.notes)
    assert any("no photograph" in note for note in opening.source.notes)
    updates = Listeners(services).open("en", replace(opening, style="informed", question="Real?"))
    assert updates["task"]["value"] == "deepfake"
    assert updates["models"]["value"] == ["bundled-vit"]
    assert updates["asked"]["value"] == "Real?"
    assert updates["adapter"]["value"] == "both"  # the same model, taught and not
    assert updates["chosen"]["value"].source is opening.source
    for number in (-1, 4):
        with pytest.raises(ReportError, match="no longer there"):
            listeners.open("en", (), wanted, number)


def test_picture_of_an_unknown_model_leaves_the_question_as_it_is(services, listeners, shelf):
    opening = replace(listeners.open("en", (), two(shelf), 0), models=("somebody/elses",))
    assert set(Listeners(services).open("en", opening)) == {"chosen", "picture", "facts", "status"}


# Reports that visitors bring


def test_brought_report_is_shown_beside_its_own_kind(listeners, shelf, folder, tmp_path):
    brought = make_report("brought", label_rows(wrong=(0,)))
    write_report(brought, tmp_path / "brought", {})
    file = {"path": str(tmp_path / "brought" / REPORT), "orig_name": "<b>my.json"}
    updates = merge(*listeners.add("en", (), two(shelf), file))
    assert "brought was read: 12 rows." in updates["news"]["value"]
    assert len(updates["reports"]["value"]) == 3
    kept = updates["uploads"]["value"]
    assert [each.report for each in kept] == [brought]
    again = merge(*listeners.add("en", kept, two(shelf), file))
    assert [each.key for each in again["uploads"]["value"]] == [each.key for each in kept]  # once is enough
    write_report(make_report("apart", label_rows(labels=("one", "two"))), tmp_path / "apart", {})
    apart = merge(*listeners.add("en", kept, two(shelf), {"path": str(tmp_path / "apart" / REPORT)}))
    assert "stands alone" in apart["news"]["value"]
    assert len(apart["reports"]["value"]) == 1


def test_oldest_upload_gives_way(listeners, shelf, tmp_path):
    kept = ()
    for number in range(MAX_UPLOADS + 1):
        write_report(make_report(f"mine {number}", label_rows()), tmp_path / str(number), {})
        updates = merge(*listeners.add("en", kept, two(shelf), {"path": str(tmp_path / str(number) / REPORT)}))
        kept = updates["uploads"]["value"]
    assert [each.report.name for each in kept] == [f"mine {number}" for number in range(1, MAX_UPLOADS + 1)]
    assert "the oldest gave way" in updates["news"]["value"]
    assert f"mine {MAX_UPLOADS}" in updates["figures"]["value"]
