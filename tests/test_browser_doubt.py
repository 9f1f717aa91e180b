"""How far to believe an answer, in a real browser with the bundled models: one page load."""

import re

import pytest

from tests.browsing import NEEDS_BROWSER, overflow, picture, press_examine, upload

pytestmark = NEEDS_BROWSER
MEASURED = "() => /Maps measured: \\d+/.test(document.querySelector('#measured')?.innerText ?? '')"

STABLE = "() => /keeps its answer|Changes its answer/.test(document.querySelector('#rows').innerText)"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    return picture(tmp_path_factory.mktemp("photo") / "photo.png", 3)


def test_noise_gets_no_confident_verdict_and_a_signed_map_its_own_legend_and_check(visit, photo):
    page = visit()
    upload(page, photo)
    page.click("#settings button")
    page.locator("#methods label", has_text="Integrated gradients").click()
    for wanted in ("Grad-CAM++", "LayerCAM", "Eigen-CAM", "Eigen-Grad-CAM", "HiResCAM", "XGrad-CAM"):
        page.locator("#methods label", has_text=re.compile(rf"^\s*{re.escape(wanted)}\s*$")).click()
    press_examine(page)
    assert "has not seen such pictures" in page.inner_text("#rows")
    assert "Has not seen such pictures" in page.inner_text("#verdict")
    assert "calibrated, raw" in page.inner_text("#rows")
    page.wait_for_function(MEASURED)
    page.wait_for_function(
        "() => /keeps its answer|Changes its answer/.test(document.querySelector('#rows').innerText)"
    )
    page.locator("#method-shown label", has_text="Integrated gradients").click()
    page.wait_for_function("() => document.querySelector('#legend').innerText.includes('blue against it')")
    assert "convergence delta" in page.inner_text("#legend")
    page.click("#check")
    page.wait_for_selector("#checked .trust")
    assert "rank correlation" in page.inner_text("#checked")
    page.set_viewport_size({"width": 390, "height": 844})
    assert overflow(page) <= 0
