"""Foils change one word, whatever the claim; words and numbers are read as people mean them."""

import pytest

from rag.foils import KINDS, content_words, is_english, load_words, make_foils, stated_number


def test_every_kind_of_word_is_swapped_once_before_any_is_swapped_twice() -> None:
    foils = make_foils("Two black dogs run behind it.", most=5)
    assert {foil.kind for foil in foils} == set(KINDS)
    assert len({foil.removed for foil in foils}) == 5


def test_a_foil_differs_in_the_named_word_only_and_keeps_its_form() -> None:
    claim = "Two black dogs run behind a fence."
    for foil in make_foils(claim, most=40):
        assert foil.text == claim.replace(foil.removed, foil.put, 1)
        assert foil.kind in KINDS
    plural = [foil.put for foil in make_foils(claim, most=40) if foil.removed == "dogs"]
    assert "cats" in plural
    assert "cat" not in plural


def test_capitals_and_articles_follow_the_new_word() -> None:
    swapped = {foil.text for foil in make_foils("Red shoes and a dog.", most=40)}
    assert "Green shoes and a dog." in swapped
    assert "Red shoes and an elephant." in swapped
    assert "A banana." in {foil.text for foil in make_foils("An apple.", most=40)}


def test_the_longest_name_is_taken() -> None:
    removed = {foil.removed for foil in make_foils("A bin in front of the locker room.", most=40)}
    assert removed == {"bin", "in front of", "locker room"}


def test_foils_are_the_same_every_time_and_no_more_than_asked() -> None:
    claim = "A small dog and a big cat run over green grass."
    assert make_foils(claim) == make_foils(claim)
    assert len(make_foils(claim, most=3)) == 3


@pytest.mark.parametrize("claim", ["One message says “a red dog”.", 'It says "two blue cats".', "Quite so.", ""])
def test_quotations_and_unknown_words_are_left_alone(claim: str) -> None:
    assert make_foils(claim) == ()


def test_the_lists_hold_every_kind_and_no_word_can_become_itself() -> None:
    words = load_words()
    assert {kind for kind, _ in words.swaps.values()} == set(KINDS)
    assert all(form not in {other.lower() for other in others} for form, (_, others) in words.swaps.items())


def test_content_words_are_those_a_picture_can_show() -> None:
    assert content_words("There is a small dog and the dog is on a “blue sign”.") == ("small", "dog")


@pytest.mark.parametrize(
    ("claim", "number"),
    [
        ("two large brown dogs and a cat", 2),
        ("two men and a dog", 1),
        ("12 dogs", 12),
        ("There is one dog.", 1),
        ("dogs everywhere", None),
        ("two men watch dogs", None),
    ],
)
def test_the_stated_number_is_that_of_the_thing_itself(claim: str, number: int | None) -> None:
    assert stated_number(claim, ("dog", "dogs")) == number


@pytest.mark.parametrize(
    ("claim", "english"),
    [
        ("A café.", True),
        ("One message says “좋은 아침”.", True),
        ("개가 달린다.", False),
        ("Pies biegnie żwawo.", False),
    ],
)
def test_what_an_english_model_cannot_read_is_told(claim: str, english: bool) -> None:
    assert is_english(claim) is english
