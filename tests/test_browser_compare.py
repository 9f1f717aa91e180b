"""The Compare tab in a real browser: two saved reports, their table and diagrams, and a picture opened in Examine."""

import pytest

from models.reports import REPORT, write_report
from tests.browsing import NEEDS_BROWSER, overflow
from tests.saved_reports import label_rows, make_report

pytestmark = NEEDS_BROWSER
# Presses the tab in the very moment in which it is painted, before Gradio listens to it.
PRESS_AT_ONCE = """new MutationObserver((_, watcher) => {
  const button = document.querySelector("#compare-tab-button");
  if (button) { watcher.disconnect(); button.click(); }
}).observe(document, { childList: true, subtree: true });"""
# What the press tells the server never arrives.
LOSE_PRESS = """const real = window.fetch;
window.fetch = (address, options) => {
  const tab = window.gradio_config.components.find((each) => each.props.elem_id === "compare-tab");
  const joins = String(address?.url ?? address).includes("queue/join");
  if (!window.lost && joins && JSON.parse(options.body).trigger_id === tab.id) {
    window.lost = true;
    return new Promise(() => {});
  }
  return real(address, options);
};"""
PICTURE = "#compare-gallery button[data-pick='open|0']"


def open_compare(page) -> None:
    page.get_by_role("tab").nth(2).click()
    page.wait_for_selector("#compare-figures table")
    page.wait_for_selector("#confusion-1 .main-svg")


def words_of(page, selector: str) -> str:
    return " ".join(page.inner_text(selector).split())


def test_two_reports_are_set_side_by_side_and_a_disagreement_opens_in_examine(visit):
    page = visit()
    open_compare(page)
    figures = words_of(page, "#compare-figures")
    assert "tuned" in figures
    assert "91.7%" in figures
    assert "58.3%" in figures
    # What sets them apart comes in a second step.
    page.wait_for_function("document.querySelectorAll('#compare-gallery img').length === 4")
    contrast = words_of(page, "#compare-contrasts")
    assert "tuned minus zero-shot" in contrast
    assert "0.12" in contrast
    assert "generated pictures" in words_of(page, "#compare-about")
    counts = page.locator("#confusion-0 .scatterlayer text").all_text_contents()
    assert sorted(counts) == ["0", "0", "0", "1", "5", "6"]
    assert page.locator("#reliability-1 .scatterlayer .point").count() > 3
    page.wait_for_selector("#compare-loss .main-svg")
    page.wait_for_function("document.querySelector('#compare-gallery img').naturalWidth === 96")
    page.focus(PICTURE)
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#facts').innerText.includes('small copy from a report')")
    page.wait_for_function("document.activeElement.id === 'examine'")
    assert "set.parquet row 1" in page.inner_text("#facts")
    ticked = page.locator("#models input:checked").evaluate_all("all => all.map((each) => each.name || each.value)")
    assert len(ticked) == 1  # the compared model alone
    page.wait_for_selector("#picture img")


@pytest.mark.parametrize("locale", ["en-US", "pl-PL"])
def test_tab_that_is_pressed_before_the_page_is_wired_is_filled_all_the_same(visit, locale):
    page = visit(script=PRESS_AT_ONCE, locale=locale)
    page.wait_for_selector("#compare-figures table")
    page.wait_for_selector("#confusion-1 .main-svg")
    word = {"en-US": "Confusion matrix", "pl-PL": "Macierz pomyłek"}[locale]
    page.wait_for_function("word => document.querySelector('#compare-columns').innerText.includes(word)", arg=word)


def test_tab_whose_press_was_lost_is_filled_all_the_same(visit):
    page = visit(script=LOSE_PRESS + PRESS_AT_ONCE)
    page.wait_for_selector("#compare-figures table")
    page.wait_for_selector("#confusion-1 .main-svg")
    assert page.evaluate("window.lost")


def test_tab_that_nobody_opens_is_not_filled(visit):
    page = visit()
    page.wait_for_timeout(3000)
    assert page.evaluate("document.querySelector('#compare-figures')?.innerText ?? ''").strip() == ""


def test_rows_are_sorted_by_a_press_and_said_to_be(visit):
    page = visit()
    open_compare(page)
    button = "#compare-figures button[data-sort='1']"
    for order, first in (("descending", "tuned"), ("ascending", "zero-shot")):
        page.focus(button)
        page.keyboard.press("Enter")
        assert (
            page.get_attribute(f"#compare-figures th:has({button[len('#compare-figures ') :]})", "aria-sort") == order
        )
        assert page.inner_text("#compare-figures tbody tr:first-child th b") == first


def test_evaluation_is_chosen_and_one_report_stands_alone(visit):
    page = visit()
    open_compare(page)
    page.click("#compare-evaluation input")
    page.get_by_role("option").filter(has_text="set.parquet").nth(1).click()
    page.wait_for_function("document.querySelector('#compare-figures').innerText.includes('ROUGE-L')")
    assert "only report of this evaluation" in words_of(page, "#compare-figures")
    page.wait_for_selector("#confusion-0", state="hidden")
    assert "What is bar 2?" in words_of(page, "#compare-gallery")


def test_report_is_brought_and_a_bad_one_is_one_line(visit, tmp_path):
    page = visit()
    open_compare(page)
    write_report(make_report("my own", label_rows(wrong=(0, 2))), tmp_path, {})
    page.set_input_files("#compare-tab input[type=file]", tmp_path / REPORT)
    page.wait_for_function("document.querySelector('#compare-news').innerText.includes('my own was read')")
    page.wait_for_selector("#confusion-2 .main-svg")
    assert page.locator("#compare-figures tbody tr").count() == 3
    bad = tmp_path / "bad.json"
    bad.write_text("<b>{")
    page.set_input_files("#compare-tab input[type=file]", bad)
    page.wait_for_selector("#compare-news [role=alert]")
    assert "bad.json: no report that Exhibit can read" in page.inner_text("#compare-news")
    assert page.locator("#compare-figures tbody tr").count() == 3
    page.locator("#compare-reports label", has_text="my own").click()
    page.wait_for_function("document.querySelectorAll('#compare-figures tbody tr').length === 2")


@pytest.mark.parametrize(("width", "scheme", "locale"), [(390, "dark", "ko-KR"), (1600, "light", "pl-PL")])
def test_compare_tab_fits_narrow_and_wide_windows_in_every_language(visit, width, scheme, locale):
    page = visit(width=width, scheme=scheme, locale=locale)
    open_compare(page)
    assert overflow(page) <= 0
    assert {"ko-KR": "혼동 행렬", "pl-PL": "Macierz pomyłek"}[locale] in page.inner_text("#compare-columns")
    dark = page.evaluate("getComputedStyle(document.querySelector('#reliability-0 .xtick text')).fill")
    light = sum(int(part) for part in dark.removeprefix("rgb(").removesuffix(")").split(","))
    assert (light > 3 * 128) == (scheme == "dark")  # ink on its own page
    one, other = (page.locator(f"#confusion-{number}").bounding_box() for number in (0, 1))
    assert (other["y"] > one["y"] + one["height"] - 2) == (width == 390)


def test_every_control_of_the_compare_tab_has_a_name(visit):
    page = visit()
    open_compare(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('#compare-tab button, #compare-tab input, #compare-tab summary')]
          .filter((e) => e.offsetParent !== null)
          .filter((e) => {
            const labels = [...(e.labels ?? [])].map((l) => l.innerText).join('');
            return !(e.getAttribute('aria-label') || e.innerText || labels || '').trim();
          }).map((e) => e.outerHTML.slice(0, 160))"""
    )
    assert nameless == []
    assert page.get_attribute("#compare-news [aria-live]", "aria-live") == "polite"
