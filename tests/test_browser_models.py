"""Vision-language models and the Models tab in a real browser, on the same served page as the other browser tests."""

import pytest

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

pytestmark = NEEDS_BROWSER
ID = "tiny-paligemma"
ROW = f"#zoo tr[data-model='{ID}']"


@pytest.fixture
def page(visit, tmp_path):
    """A visitor who chose the tiny model's question and a picture."""
    opened = visit()
    opened.locator("#task label", has_text="tiny-question").click()
    opened.wait_for_selector("#vlm-panel textarea")
    upload(opened, picture(tmp_path / "asked.png", 4, (96, 64)))
    return opened


def open_models(page) -> None:
    page.get_by_role("tab").nth(1).click()
    page.wait_for_selector(ROW)


def test_models_tab_lists_every_entry_and_loads_and_unloads_one(visit):
    page = visit()
    open_models(page)
    for model_id in ("bundled-resnet", "wild-fake", ID):
        assert page.is_visible(f"#zoo tr[data-model='{model_id}']")
    assert "Private" in page.inner_text("#zoo tr[data-model=wild-fake]")
    button = f"{ROW} button"
    if page.inner_text(button) == "Unload":  # another test used it
        page.click(button)
    page.click(f"{ROW} button[data-pick='load|{ID}']")
    page.wait_for_selector(f"{ROW} button[data-pick='unload|{ID}']")
    page.wait_for_function("id => document.activeElement?.dataset.pick === `unload|${id}`", arg=ID)  # still there
    assert "Tiny PaliGemma is loaded" in page.inner_text("#zoo-news")
    page.click(f"{ROW} .weights summary")
    digest = page.inner_text(f"{ROW} .weights p").removeprefix("SHA-256 ")
    assert len(digest) == 64
    page.focus(button)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{ROW} button[data-pick='load|{ID}']")
    assert "is unloaded" in page.inner_text("#zoo-news")


def test_model_that_cannot_be_loaded_says_so_in_one_line(visit):
    page = visit()
    open_models(page)
    page.click("#zoo button[data-pick='load|wild-fake']")
    page.wait_for_selector("#zoo-news [role=alert]")
    assert "wild-fake" in page.inner_text("#zoo-news")
    assert page.get_attribute("#zoo button[data-pick='load|wild-fake']", "aria-disabled") == "false"


@pytest.mark.parametrize(("width", "scheme", "locale"), [(390, "dark", "ko-KR"), (1600, "light", "pl-PL")])
def test_models_tab_fits_narrow_and_wide_windows(visit, width, scheme, locale):
    page = visit(width=width, scheme=scheme, locale=locale)
    open_models(page)
    assert overflow(page) <= 0
    card, button = (page.locator(selector).bounding_box() for selector in (ROW, f"{ROW} button"))
    assert button["x"] + button["width"] <= card["x"] + card["width"] + 1
    assert button["height"] >= (44 if width == 390 else 24)


def test_question_is_changed_and_answered(page):
    press_examine(page)
    page.wait_for_selector("#words ruby")
    assert "Is this image made by AI?" in page.inner_text("#rows")
    own = page.inner_text("#rows td.share")
    page.fill("#asked-text textarea", "Was it drawn by a machine?")
    press_examine(page)
    page.wait_for_function("() => document.querySelector('#rows').innerText.includes('Was it drawn by a machine?')")
    words = page.locator("#words ruby").all_inner_texts()
    assert words[0].startswith("Was")
    assert words[1].startswith("it")
    assert page.inner_text("#rows td.share") != own


def test_free_text_is_seen_to_grow(page):
    page.evaluate(
        """() => { window.seen = new Set();
          new MutationObserver(() => window.seen.add(document.querySelector('#written .text')?.innerText))
            .observe(document.querySelector('#written'), { childList: true, subtree: true, characterData: true }); }"""
    )
    mark_status(page)
    page.click("#write")
    page.wait_for_selector("#written .means")
    page.wait_for_function(FINISHED)
    assert page.evaluate("window.seen.size") > 3
    assert "asked.png" in page.inner_text("#written")


def test_base_and_fine_tuned_stand_side_by_side_with_their_difference(page):
    page.locator("#adapter label", has_text="side by side").click()
    press_examine(page)
    page.wait_for_selector(f"#grid button[data-pick='{ID}@difference|layercam']")
    assert page.locator("#rows tbody tr").count() == 2
    assert page.locator("#grid button").count() % 3 == 0
    former = overlay_address(page)
    page.click(f"#grid button[data-pick='{ID}@difference|layercam']")
    wait_for_other_overlay(page, former)
    page.wait_for_selector("#legend .signed")
    legend = page.inner_text("#legend")
    assert "what fine-tuning changed" in legend
    assert "−" in legend
    assert "+" in legend
    assert page.is_disabled("#shared input")
