"""The Verify tab in a real browser, on the same served page as the other browser tests."""

import os
from pathlib import Path

import pytest

from tests.browsing import NEEDS_BROWSER, ROOT, overflow
from tests.tiny_rag import striped, write_corpus

pytestmark = [
    *NEEDS_BROWSER,
    pytest.mark.skipif(
        not list((ROOT / "assets" / "bundled" / "openclip-small").glob("*.safetensors")),
        reason="the bundled image-text model is not in assets/bundled",
    ),
]
WRITTEN = "text => document.querySelector('#verify-text textarea').value.includes(text)"
NEWS = "text => document.querySelector('#verify-news').innerText.includes(text)"


def open_verify(page) -> None:
    tab = page.get_by_role("tab", name="Verify")
    if not tab.is_visible():  # on a telephone the last tabs are in a menu
        page.click(".overflow-menu > button")
        tab = page.locator(".overflow-dropdown button", has_text="Verify")
    tab.click()
    page.wait_for_selector("#verify-ask")


def choose(page, dropdown: str, name: str) -> None:
    page.click(f"{dropdown} input")
    page.locator("[role=option]", has_text=name).click()


def keep(page, name: str) -> None:
    """A picture of the page for whoever asks for one."""
    folder = os.environ.get("EXHIBIT_VERIFY_PICTURES")
    if folder:
        page.wait_for_timeout(500)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_files_are_indexed_asked_and_each_claim_shows_why(visit, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    page = visit()
    open_verify(page)
    page.click("#verify-building button")
    files = [path for path in sorted(corpus.rglob("*")) if path.is_file()]
    page.set_input_files("#verify-files input[type=file]", files)
    page.click("#verify-build")
    page.wait_for_function(NEWS, arg="Index ready: 6 chunks of 5 files")
    page.set_input_files("#verify-picture input[type=file]", corpus / "photos" / "car.png")
    page.fill("#verify-question textarea", "What stands on the street?")
    assert page.input_value("#verify-clip input") == "Exhibit OpenCLIP"
    choose(page, "#verify-vlm", "Tiny PaliGemma")
    page.click("#verify-ask")
    page.wait_for_selector("#verify-claims button.claim")
    page.wait_for_function(WRITTEN, arg="A red car stands on a street.")
    assert page.locator("#verify-evidence li").count() >= 3
    page.click("#verify-claims button.claim >> nth=0")
    page.wait_for_selector("#verify-claim .signals")
    assert page.get_attribute("#verify-claims button.claim >> nth=0", "aria-pressed") == "true"
    page.wait_for_selector("#verify-claim figure img")
    assert "a vision-language model, asked" in page.inner_text("#verify-claim .signals")
    page.wait_for_selector("#verify-claim .words ruby")
    words = page.locator("#verify-claim .words ruby")
    assert words.count() == 7  # A red car stands on a street
    assert all(any(sign in text for sign in "+−") for text in words.locator("rt").all_inner_texts())
    page.click("#verify-similar")
    page.wait_for_selector("#verify-found-alike .evidence li")
    assert page.locator("#verify-found-alike .evidence img").count() == 3
    assert "cosine" in page.inner_text("#verify-found-alike")
    keep(page, "wide")
    assert overflow(page) <= 0


def test_a_model_that_cannot_be_had_is_said_and_the_answer_stays(visit, tmp_path):
    page = visit()
    open_verify(page)
    striped("red", "white").save(tmp_path / "a.png")
    page.set_input_files("#verify-picture input[type=file]", tmp_path / "a.png")
    page.wait_for_selector("#verify-picture img")
    page.fill("#verify-text textarea", "A red car stands here.")
    page.click("#verify-check")
    page.wait_for_function(NEWS, arg="Claims checked: 1")
    choose(page, "#verify-clip", "CLIP ViT-L/14 (OpenAI)")
    page.click("#verify-check")
    page.wait_for_selector("#verify-news [role=alert]")
    assert "clip-vit-large: " in page.inner_text("#verify-news")
    assert page.input_value("#verify-text textarea") == "A red car stands here."
    assert page.locator("#verify-claims button.claim").count() == 1


def test_a_pasted_answer_is_checked_on_a_telephone_and_is_no_markup(visit, tmp_path):
    page = visit(width=390, height=844, scheme="dark")
    open_verify(page)
    page.click("#verify-check")
    page.wait_for_selector("#verify-news [role=alert]")
    striped("red", "white").save(tmp_path / "a.png")
    page.set_input_files("#verify-picture input[type=file]", tmp_path / "a.png")
    page.fill("#verify-text textarea", "A man rides a <img src=x onerror='document.title=1'> horse. Two dogs run.")
    page.wait_for_selector("#verify-picture img")
    page.click("#verify-check")
    page.wait_for_function(NEWS, arg="Claims checked: 2")
    assert page.locator("#verify-claims img").count() == 0
    page.focus("#verify-claims button.claim >> nth=1")
    page.keyboard.press("Enter")
    page.wait_for_selector("#verify-claim figure img")
    keep(page, "narrow")
    assert overflow(page) <= 0
