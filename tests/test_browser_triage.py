"""The Triage tab in a real browser: pictures are brought, scored, narrowed down, and one opens in Examine."""

import zipfile

import pytest

from tests.browsing import NEEDS_BROWSER, overflow, picture

pytestmark = NEEDS_BROWSER
READY = "() => document.querySelector('#triage-news .status') && !document.querySelector('#triage-news progress')"


def bring(page, tmp_path, count=3):
    """Score a zip of a few pictures and a broken one."""
    path = tmp_path / "seized.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            archive.write(picture(tmp_path / f"{number}.png", number, (96, 96)), f"{number}.png")
        archive.writestr("broken.jpg", b"no picture")
    page.get_by_role("tab").filter(has_text=TAB[page.evaluate("document.documentElement.lang")]).click()
    page.set_input_files("#triage-files input[type=file]", path)
    page.wait_for_function("() => document.querySelector('#triage-files').innerText.includes('seized')")
    ticked = page.locator("#triage-models input:checked")
    for number in reversed(range(1, ticked.count())):
        ticked.nth(number).uncheck()  # one small model is enough here
    page.click("#triage-start")
    page.wait_for_selector("#triage-table table, #triage-news [role=alert]")


TAB = {"en": "Triage", "ko": "분류", "pl": "Segregacja"}


def test_archive_is_scored_sorted_and_a_row_opens_in_examine(visit, tmp_path):
    page = visit()
    bring(page, tmp_path)
    assert "4 pictures" in page.inner_text("#triage-news")
    assert "1 could not be scored" in page.inner_text("#triage-news")
    page.click("#triage-histogram button[data-pick='bar|0.00']")
    page.wait_for_function("document.querySelectorAll('#triage-table tbody tr').length === 3")
    page.click("#triage-table button[data-pick='sort|name']")
    page.wait_for_function("document.querySelector('#triage-table tbody th').innerText.endsWith('!2.png')")
    assert page.get_attribute("#triage-table th:has(button[data-pick='sort|name'])", "aria-sort") == "descending"
    page.fill("#triage-find input, #triage-find textarea", "1.png")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#triage-table tbody tr').length === 1")
    page.focus("#triage-table button[data-pick='open|0']")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#facts').innerText.includes('1.png')")
    page.wait_for_function("document.activeElement.id === 'examine'")


@pytest.mark.parametrize(("width", "scheme", "locale"), [(390, "dark", "ko-KR"), (1600, "light", "pl-PL")])
def test_triage_tab_fits_and_every_control_has_a_name(visit, tmp_path, width, scheme, locale):
    page = visit(width=width, scheme=scheme, locale=locale)
    bring(page, tmp_path)
    assert overflow(page) <= 0
    assert {"ko-KR": "판정", "pl-PL": "Werdykt"}[locale] in page.inner_text("#triage-table")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('#triage-tab button, #triage-tab input')]
          .filter((e) => e.offsetParent !== null)
          .filter((e) => {
            const labels = [...(e.labels ?? [])].map((l) => l.innerText).join('');
            return !(e.getAttribute('aria-label') || e.innerText || e.title || labels || '').trim();
          }).map((e) => e.outerHTML.slice(0, 160))"""
    )
    assert nameless == []
