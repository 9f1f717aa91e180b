"""The page in a real browser, served by the real ``app.py`` with the bundled models.

``EXHIBIT_SCREENSHOTS=docs/screenshots pytest tests/test_browser_examine.py -k
screenshots`` writes the README's pictures.
"""

import json
import os
import re
import zipfile
from pathlib import Path

import pytest

from explain.bundle import SCHEMA_VERSION
from tests.browsing import (
    FINISHED,
    NEEDS_BROWSER,
    mark_status,
    overflow,
    overlay_address,
    picture,
    press_examine,
    upload,
    wait_for_other_overlay,
)

DETECTIONS = "#detections section"  # comes with the last drawing

pytestmark = NEEDS_BROWSER


def examine(page) -> None:
    press_examine(page)
    page.wait_for_selector(DETECTIONS)


@pytest.fixture(scope="module")
def bus(tmp_path_factory):
    import importlib.util

    folder = Path(importlib.util.find_spec("ultralytics").origin).parent
    return folder / "assets" / "bus.jpg"


def test_upload_verdict_methods_boxes_and_bundle(visit, bus, tmp_path):
    page = visit()
    upload(page, bus)
    examine(page)
    verdict = page.inner_text("#verdict")
    # A street is unlike the faces that they learned from.
    assert "No confident verdict" in verdict
    assert re.search(r"lean to “(fake|real)”, \d+%", verdict)
    assert "What these models know" in verdict
    asked = page.locator("#models input:checked").count()
    assert page.locator("#rows tbody tr").count() == asked >= 2
    assert page.locator("#grid button").count() >= 14
    assert "bus" in page.inner_text("#detections")
    first = overlay_address(page)
    page.locator("#method-shown label", has_text="LayerCAM").click()
    second = wait_for_other_overlay(page, first)
    assert "LayerCAM" in page.inner_text("#legend")
    page.click("#boxes label")
    third = wait_for_other_overlay(page, second)
    page.locator("#grid button[data-pick='bundled-vit|gradcam']").click()
    wait_for_other_overlay(page, third)
    page.wait_for_selector("#grid button[data-pick='bundled-vit|gradcam'][aria-pressed=true]")
    assert page.locator("#model-shown input:checked").get_attribute("value") == "bundled-vit"
    with page.expect_download() as waiting:
        page.click("#download")
    archive = tmp_path / "bundle.zip"
    waiting.value.save_as(archive)
    assert waiting.value.suggested_filename.startswith("exhibit-")
    with zipfile.ZipFile(archive) as packed:
        (manifest,) = [name for name in packed.namelist() if name.endswith("/manifest.json")]
        assert json.loads(packed.read(manifest))["schema_version"] == SCHEMA_VERSION
        original = next(name for name in packed.namelist() if "/original" in name)
        assert packed.read(original) == bus.read_bytes()


def test_bad_file_is_one_line_and_what_was_there_stays(visit, tmp_path):
    page = visit()
    good = picture(tmp_path / "good.png", 1)
    upload(page, good)
    examine(page)
    verdict = page.inner_text("#verdict section")
    bad = tmp_path / "bad<b>.jpg"
    bad.write_text("this is text")
    page.set_input_files("#picture input[type=file]", bad)
    page.wait_for_selector("#status [role=alert]")
    line = page.inner_text("#status .status")
    assert "not an image" in line
    assert "\n" not in line.strip()
    assert page.inner_text("#verdict section") == verdict
    assert "good.png" in page.inner_text("#facts")
    examine(page)  # and goes on working


def test_two_visitors_at_once_get_their_own_answers(visit, tmp_path):
    pages = [visit(), visit()]
    files = [picture(tmp_path / f"visitor-{seed}.png", seed) for seed in (11, 12)]
    alone = []
    for page, file in zip(pages, files, strict=True):
        upload(page, file)
        examine(page)
        alone.append(page.inner_text("#rows td.share >> nth=0"))
    assert alone[0] != alone[1]
    for page in pages:
        mark_status(page)
        page.click("#examine")
    for page, expected in zip(pages, alone, strict=True):
        page.wait_for_function(FINISHED)
        assert page.inner_text("#rows td.share >> nth=0") == expected
    sources = [page.get_attribute("#viewer img >> nth=0", "src") for page in pages]
    assert sources[0] != sources[1]


def test_narrow_window_has_one_column_and_no_sideways_scroll(visit, bus):
    page = visit(width=390, height=844)
    assert overflow(page) <= 0
    upload(page, bus)
    examine(page)
    page.wait_for_selector("#viewer img")
    assert overflow(page) <= 0
    asked, found = (page.locator(column).bounding_box() for column in ("#asked", "#found"))
    assert found["y"] >= asked["y"] + asked["height"]


def test_wide_window_has_two_columns(visit):
    page = visit()
    asked, found = (page.locator(column).bounding_box() for column in ("#asked", "#found"))
    assert found["x"] >= asked["x"] + asked["width"]
    assert abs(found["y"] - asked["y"]) < 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_accent_stand_out_in_light_and_dark(visit, scheme):
    page = visit(scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = sum(_channels(background)) < 3 * 128
    assert dark == (scheme == "dark")
    for selector in ("#title h1", "#title p", "#facts", "#status p", "#verdict .empty", "#task label span"):
        ink = page.evaluate("s => getComputedStyle(document.querySelector(s)).color", selector)
        assert _contrast(ink, background) >= 4.5, selector
    button = page.evaluate(
        "(s => [getComputedStyle(s).color, getComputedStyle(s).backgroundColor])(document.querySelector('#examine'))"
    )
    assert _contrast(*button) >= 4.5


def _channels(colour: str) -> list[float]:
    return [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""
    lights = []
    for colour in (one, other):
        linear = [
            (c / 255 / 12.92) if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in _channels(colour)
        ]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_language_follows_the_browser_and_changes_at_run_time(visit, tmp_path):
    page = visit(locale="ko-KR")
    page.wait_for_function("document.querySelector('#examine').innerText.includes('검사하기')")
    upload(page, picture(tmp_path / "한국.png", 5))
    examine(page)
    assert "판정" in page.inner_text("#verdict")
    numbers = re.findall(r"\d+\.\d%", page.inner_text("#rows"))
    page.locator("#language label", has_text="Polski").click()
    page.wait_for_function("document.querySelector('#examine').innerText.includes('Zbadaj')")
    assert "Werdykt" in page.inner_text("#verdict")
    assert re.findall(r"\d+\.\d%", page.inner_text("#rows")) == numbers
    assert page.get_attribute("html", "lang") == "pl"


def test_every_control_has_a_name_and_the_verdict_is_announced(visit, tmp_path):
    page = visit()
    upload(page, picture(tmp_path / "any.png", 6))
    examine(page)
    page.click("#settings button")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, summary, [role=slider]')]
          .filter((e) => e.offsetParent !== null)
          .filter((e) => {
            const labels = [...(e.labels ?? [])].map((l) => l.innerText).join('');
            const group = e.closest('fieldset, [role=listbox]')?.innerText ?? '';
            const by = (e.getAttribute('aria-labelledby') ?? '').split(' ')
              .map((id) => document.getElementById(id)?.innerText ?? '').join('');
            const own = e.getAttribute('aria-label') || e.getAttribute('title') || e.innerText || labels || by;
            return !(own || (e.type === 'radio' && group)).toString().trim();
          }).map((e) => e.outerHTML.slice(0, 160))"""
    )
    assert nameless == []
    assert page.get_attribute("#verdict [aria-live]", "aria-live") == "polite"


def test_page_works_by_keyboard_alone(visit, tmp_path):
    page = visit()
    upload(page, picture(tmp_path / "keys.png", 7))
    mark_status(page)
    page.focus("#examine")
    page.keyboard.press("Enter")
    page.wait_for_function(FINISHED)
    page.wait_for_selector(DETECTIONS)
    former = overlay_address(page)
    page.focus("#method-shown input:checked")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    former = wait_for_other_overlay(page, former)
    page.focus("#grid button:last-of-type")
    page.keyboard.press("Enter")
    wait_for_other_overlay(page, former)


def test_picture_can_be_pasted(visit):
    page = visit()
    page.evaluate(
        """async () => {
          const canvas = document.createElement('canvas');
          canvas.width = 64; canvas.height = 48;
          canvas.getContext('2d').fillRect(4, 4, 30, 30);
          const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
          const data = new DataTransfer();
          data.items.add(new File([blob], 'pasted.png', { type: 'image/png' }));
          document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
        }"""
    )
    page.wait_for_function("document.querySelector('#facts').innerText.includes('pasted.png')")
    assert "64 × 48 px" in page.inner_text("#facts")


def test_format_that_browsers_cannot_show_is_shown_and_examined(visit, tmp_path):
    page = visit()
    upload(page, picture(tmp_path / "scan.tiff", 8))
    assert "TIFF" in page.inner_text("#facts")
    page.wait_for_function("() => document.querySelector('#picture img')?.naturalWidth > 0")
    examine(page)
    assert page.locator("#rows tbody tr").count() >= 2


def test_changing_the_question_names_what_is_missing(visit, tmp_path):
    page = visit()
    page.locator("#task label", has_text="generated").click()
    page.wait_for_selector("#unavailable summary")
    upload(page, picture(tmp_path / "any.png", 9))
    mark_status(page)
    page.click("#examine")
    page.wait_for_function(FINISHED)
    assert "No model is chosen" in page.inner_text("#status .status")


def test_stop_ends_the_examination_and_frees_the_queue(visit, bus):
    page = visit()
    upload(page, bus)
    mark_status(page)
    # Pressed by the page itself the moment it can be: a test that asks from outside may come too late.
    page.evaluate(
        """() => {
          const stop = document.querySelector('#stop');
          const press = new MutationObserver(() => { if (!stop.disabled) { press.disconnect(); stop.click(); } });
          press.observe(stop, { attributes: true });
          document.querySelector('#examine').click();
        }"""
    )
    page.wait_for_function("() => document.querySelector('#status .status').innerText.includes('Stopped')")
    examine(page)
    assert "Done in" in page.inner_text("#status .status")


@pytest.mark.skipif("EXHIBIT_SCREENSHOTS" not in os.environ, reason="set EXHIBIT_SCREENSHOTS=FOLDER to write pictures")
def test_screenshots_for_the_readme(visit):
    folder = Path(os.environ["EXHIBIT_SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, height, scheme, locale, example in (
        ("examine", 1600, 1000, "light", "en-US", "astronaut"),
        ("examine-dark", 1600, 1000, "dark", "en-US", "bus"),
        ("examine-narrow", 390, 844, "light", "en-US", "astronaut"),
        ("examine-korean", 1600, 1000, "light", "ko-KR", "astronaut"),
    ):
        page = visit(width, height, scheme, locale)
        page.click(f"#examples button[data-pick={example}]")
        page.wait_for_selector("#facts .hash")
        examine(page)
        page.wait_for_selector("#badge .trust")
        page.wait_for_selector("#trust-curves .js-plotly-plot .legend")
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
