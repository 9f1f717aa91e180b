"""How far to believe a map and what if, in a real browser with the bundled models: one page load each."""

import re

import pytest

from tests.browsing import NEEDS_BROWSER, overflow, picture, press_examine, upload

pytestmark = NEEDS_BROWSER
MEASURED = "() => /Maps measured: \\d+/.test(document.querySelector('#measured')?.innerText ?? '')"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return picture(tmp_path_factory.mktemp("photo") / "photo.png", 3)


def test_badges_come_after_the_maps_and_curves_follow_the_map_shown(visit, photo):
    page = visit()
    upload(page, photo)
    press_examine(page)
    page.wait_for_selector("#viewer img")
    page.wait_for_function(MEASURED)
    page.wait_for_selector("#badge .trust")
    assert page.locator("#grid .mark").count() == page.locator("#grid button").count() >= 14
    page.wait_for_selector("#trust-curves .js-plotly-plot .legend")
    first = page.inner_text("#trust .reading")
    assert "centre" in first
    assert page.is_hidden("#measure")
    page.locator("#method-shown label", has_text=re.compile(r"^\s*Eigen-CAM\s*$")).click()
    page.wait_for_function("() => document.querySelector('#badge').innerText.includes('Class-blind')")
    page.wait_for_function("() => document.querySelector('#trust .reading').innerText.includes('Class-blind')")
    assert page.locator("#grid .mark", has_text="class-blind").count() >= 2
    assert page.locator("#grid button[aria-pressed=true]").count() == 1
    page.set_viewport_size({"width": 390, "height": 844})
    assert overflow(page) <= 0


def test_what_if_asks_again_and_finds_the_smallest_evidence(visit, photo):
    page = visit()
    upload(page, photo)
    press_examine(page)
    page.wait_for_selector("#whatif-ask")
    page.click("#whatif-ask")
    page.wait_for_selector("#whatif-found table")
    asked = page.locator("#models input:checked").count()
    assert page.locator("#whatif-found tbody tr").count() == asked + 1
    assert page.locator("#whatif-found figure img").count() == 2
    assert "10.0%" in page.inner_text("#whatif-news")
    page.locator("#whatif-kind label", has_text="a box").click()
    page.fill("#whatif-corners textarea, #whatif-corners input", "over there")
    page.click("#whatif-ask")
    page.wait_for_selector("#whatif-news [role=alert]")
    assert "four numbers" in page.inner_text("#whatif-news")
    page.locator("#whatif-kind label", has_text="painted").click()
    page.wait_for_selector("#whatif-brush canvas")
    page.wait_for_timeout(1000)
    canvas = page.locator("#whatif-brush canvas").first.bounding_box()
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 20, steps=8)
    page.mouse.up()
    page.wait_for_timeout(1500)
    page.click("#whatif-ask")
    page.wait_for_function("() => document.querySelector('#whatif-news').innerText.includes('taken away')")
    page.click("#whatif-evidence")
    page.wait_for_function("() => document.querySelector('#whatif-news').innerText.includes('Found with')")
    assert "%" in page.inner_text("#whatif-found") or "nothing of the picture left" in page.inner_text("#whatif-found")
    assert overflow(page) <= 0
