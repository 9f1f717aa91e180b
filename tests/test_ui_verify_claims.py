"""The Verify tab's models, words and regions, without a browser: who checks a claim, and what is shown of one."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PIL import Image

from explain.attribution import attribute_claim
from explain.schema import WordAttribution
from models.errors import ExhibitError
from tests.test_ui_markup import Reader
from tests.tiny_rag import striped
from tests.verifying import (
    CLIP,
    EVIL,
    LOST_CLIP,
    OTHER_CLIP,
    VLM,
    built_index,
    checked_region,
    make_services,
    open_uploads,
    uploaded,
    wish,
    write_zoo,
)
from ui import verify_markup
from ui.errors import guard
from ui.text import say
from ui.verify_api import VerifyEndpoints
from ui.verify_desk import MOST_WORDS, VerifyDesk
from ui.verify_listeners import NO_VLM, OWN_INDEX, Verifying


@pytest.fixture(autouse=True)
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return open_uploads(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def zoo_file(tiny_vlm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("verify-zoo"), tiny_vlm("paligemma"))


@pytest.fixture(scope="module")
def desk(zoo_file: Path) -> VerifyDesk:
    return VerifyDesk(make_services(zoo_file))


@pytest.fixture
def verifying(desk: VerifyDesk) -> Verifying:
    return Verifying(desk)


def test_programs_choose_models_and_search_by_region(
    verifying: Verifying, tmp_path: Path, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = built_index(verifying, uploads)
    monkeypatch.setattr(VerifyDesk, "indexes", lambda _: {"mine": own})
    striped("red", "white").save(tmp_path / "a.png")
    endpoints = VerifyEndpoints(verifying.desk)
    told, files = endpoints.verify(str(tmp_path / "a.png"), "A red car.", model=CLIP, vlm=VLM, index="mine")
    (claim,) = told["claims"]
    assert files == []
    assert "vqa" in claim["signals"]
    assert (told["model"], told["vlm"]) == (CLIP, VLM)
    assert {one["source"] for one in claim["similar"]} == {"car.png", "tree.png", "plain.png"}
    assert {tuple(one["found_by"]) for one in claim["similar"]} == {("region",)}
    # The answer is given although the model that should check it cannot be had.
    asked = endpoints.ask("Whose is the red car?", str(tmp_path / "a.png"), "mine", model=LOST_CLIP)
    assert "Kowalski" in asked["answer"]
    assert asked["check"] is None
    assert LOST_CLIP in asked["problem"]


def test_any_model_of_the_zoo_can_be_chosen_and_a_missing_one_is_marked(verifying: Verifying) -> None:
    words = verifying.translate("en")
    clips = {model_id: name for name, model_id in words["clip"]["choices"]}
    specs = verifying.services.zoo.specs.values()
    assert set(clips) == {spec.id for spec in specs if spec.kind == "clip"}
    assert clips[CLIP] == "Tiny CLIP"
    assert clips[LOST_CLIP] == "Lost CLIP (unavailable)"
    vlms = [model_id for _, model_id in words["vlm"]["choices"]]
    assert vlms[0] == NO_VLM
    assert set(vlms[1:]) == {spec.id for spec in specs if spec.kind == "vlm"}


def test_the_chosen_model_reads_the_claims_and_draws_them(verifying: Verifying, uploads: Path) -> None:
    picture = uploaded(uploads, "asked.png", striped("red", "white"))
    found = {}
    for clip in (CLIP, OTHER_CLIP):
        *_, last = verifying.check("en", wish(picture=picture, text="A red car.", clip=clip))
        checked = last["checked"]["value"]
        assert checked.judges.clip == clip
        name = verifying.services.zoo.get(clip).name
        assert f"Checked by {name}." in last["claims"]["value"]
        assert f"{clip} has no calibration" in last["claims"]["value"]
        words = verifying.desk.attribute_words(checked, 0)
        assert words is not None
        assert words.model_id == clip
        found[clip] = checked.verdicts[0].signals["whole"]
    assert found[CLIP] != found[OTHER_CLIP]


def test_a_vision_language_model_adds_what_it_says_of_each_claim(verifying: Verifying, uploads: Path) -> None:
    photo = striped("red", "white")
    asked = wish(picture=uploaded(uploads, "asked.png", photo), text="A red car. A dog runs.", vlm=VLM)
    *_, last = verifying.check("en", asked)
    signals = [one.signals["vqa"] for one in last["checked"]["value"].verdicts]
    view = verifying.services.loader.load(VLM).asking(answers={"Yes": "yes", "No": "no"})
    questions = [f"Does this figure show '{claim}'?" for claim in ("A red car", "A dog runs")]
    expected = [one.logits["yes"] - one.logits["no"] for one in view.ask(photo, questions)]
    assert signals == pytest.approx(expected, abs=1e-4)
    *_, shown = verifying.choose("en", last["checked"]["value"], "0")
    assert "a vision-language model, asked" in shown["claim"]["value"]
    *_, plain = verifying.check("en", wish(picture=asked.picture, text=asked.text))
    assert "vqa" not in plain["checked"]["value"].verdicts[0].signals
    assert "Checked by Tiny CLIP, Tiny VLM." in last["claims"]["value"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"clip": LOST_CLIP}, "lost-clip: "),
        ({"clip": VLM}, "tiny-vlm is no image-text model"),
        ({"vlm": CLIP}, "tiny-clip is no vision-language model"),
        ({"vlm": "no-such"}, "no-such"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line_and_the_answer_stays(
    verifying: Verifying, uploads: Path, chosen: dict[str, str], message: str
) -> None:
    asked = wish(picture=uploaded(uploads, "asked.png", striped("red", "white")), text="A red car.", **chosen)
    delivered = []
    for listener in (
        lambda spoken: verifying.load(spoken, asked, None, Event()),
        lambda spoken: verifying.check(spoken, asked),
    ):

        def steps(spoken: str, listener=listener):
            yield from listener(spoken)

        delivered += list(guard(steps, verifying.fail, lambda updates: updates)("en"))
    assert all(set(step) <= {"news", "stop"} for step in delivered)
    assert message in delivered[-1]["news"]["value"]
    assert 'role="alert"' in delivered[-1]["news"]["value"]
    assert delivered[-1]["stop"] == {"interactive": False}


def test_models_are_loaded_before_the_check_with_news_and_can_be_stopped(zoo_file: Path) -> None:
    services = make_services(zoo_file)
    verifying = Verifying(VerifyDesk(services))
    stopped = Event()
    stopped.set()
    assert len(list(verifying.load("en", wish(vlm=VLM), None, stopped))) == 1
    assert services.loader.loaded == ()
    steps = list(verifying.load("en", wish(vlm=VLM), None, Event()))
    assert "Loading the models." in steps[0]["news"]["value"]
    assert steps[0]["stop"] == {"interactive": True}
    assert {CLIP, VLM} <= set(services.loader.loaded)


def test_a_check_that_was_stopped_while_loading_does_not_begin(verifying: Verifying, uploads: Path) -> None:
    stopped = Event()
    stopped.set()
    asked = wish(picture=uploaded(uploads, "asked.png", striped("red", "white")), text="A car.", question="What?")
    (step,) = verifying.check("en", asked, stopped)
    assert "Stopped" in step["news"]["value"]
    assert step["stop"] == {"interactive": False}


def test_the_words_of_a_claim_are_scored_beside_its_heatmap(verifying: Verifying, uploads: Path) -> None:
    photo = striped("red", "white")
    picture = uploaded(uploads, "asked.png", photo)
    *_, last = verifying.check("en", wish(picture=picture, text="A red car stands here."))
    first, second = verifying.choose("en", last["checked"]["value"], "0")
    assert say("en", "verify.claim_words_wait") in first["claim"]["value"]
    reader = Reader(second["claim"]["value"])
    expected = attribute_claim(verifying.services.loader.load(CLIP), photo, "A red car stands here.")
    assert [attrs["class"] for tag, attrs in reader.tags if tag == "ruby"] == [
        "for" if share > 0 else "against" if share < 0 else "neither" for share in expected.shares.tolist()
    ]
    for word, share in zip(expected.words, expected.shares.tolist(), strict=True):
        assert f"{word}{share:+.2f}".replace("-", "−") in reader.text
    assert "Tiny CLIP; Shapley value" in reader.text


def test_words_that_cannot_be_scored_say_why_and_cost_nothing_else(verifying: Verifying, uploads: Path) -> None:
    picture = uploaded(uploads, "asked.png", striped("red", "white"))
    long = "A red car " + "and a dog " * MOST_WORDS + "stand here."
    *_, last = verifying.check("en", wish(picture=picture, text=long))
    *_, shown = verifying.choose("en", last["checked"]["value"], "0")
    assert f"up to {MOST_WORDS} are scored" in shown["claim"]["value"]
    assert "whole claim" in shown["claim"]["value"]
    *_, last = verifying.check("en", wish(picture=picture, text="빨간 자동차가 있습니다."))
    (only,) = verifying.choose("en", last["checked"]["value"], "0")
    assert "<ruby" not in only["claim"]["value"]
    assert say("en", "verify.unread") in only["claim"]["value"]


def test_words_of_a_claim_are_text() -> None:
    claim = f"A {EVIL} car"
    words = WordAttribution(claim, ((2, 2 + len(EVIL)),), np.array([-0.5], np.float32), "similarity:x", EVIL)
    html = verify_markup.render_claim_words("en", words, EVIL, "data:,")
    reader = Reader(html)
    assert [tag for tag, _ in reader.tags].count("img") == 1  # the scale
    assert f"A {EVIL}−1.00 car" in reader.text
    assert "${" not in html


def test_the_best_region_finds_what_it_looks_like_in_the_index(verifying: Verifying, uploads: Path) -> None:
    own = built_index(verifying, uploads)
    photo = Image.new("RGB", (300, 200), "gray")
    photo.paste(striped("blue", "yellow").resize((64, 64)), (100, 50))
    # The region is in pixels of the original, twice as large as the photo that is kept.
    checked = checked_region(photo, (200, 100, 328, 228), size_wh=(600, 400))
    region, found = verifying.desk.find_similar(checked, 0, own)
    assert region.size == (64, 64)
    assert found[0].chunk.source.id == "plain.png"
    steps = list(verifying.find_similar("en", checked, 0, OWN_INDEX, own))
    html = steps[-1]["found"]["value"]
    reader = Reader(html)
    assert [tag for tag, _ in reader.tags].count("img") == 4  # the region and three pictures
    assert f"cosine {found[0].score:.3f}" in reader.text
    assert "rank score" not in reader.text
    assert "looks like the region" in reader.text
    assert "Pictures found: 3." in steps[-1]["news"]["value"]


def test_an_index_is_searched_with_the_model_that_built_it(verifying: Verifying, uploads: Path) -> None:
    own = built_index(verifying, uploads, OTHER_CLIP)
    checked = checked_region(striped("red", "white"), (0, 0, 48, 64))
    _, found = verifying.desk.find_similar(checked, 0, own)
    assert len(found) == 3
    assert verifying.desk.retrieve("red car", None, own)


@pytest.mark.parametrize(
    ("box", "number", "name", "message"),
    [
        ((0.0, 0.0, 48.0, 64.0), 0, "", "choose an index first"),
        ((0.0, 0.0, 48.0, 64.0), 0, "own", "no longer here"),
        ((0.0, 0.0, 48.0, 64.0), None, "own", "no longer kept"),
        ((0.0, 0.0, 48.0, 64.0), 7, "own", "no longer kept"),
    ],
)
def test_what_a_region_search_lacks_is_said(verifying: Verifying, box, number, name: str, message: str) -> None:
    checked = checked_region(striped("red", "white"), box)
    with pytest.raises(ExhibitError, match=message):
        list(verifying.find_similar("en", checked, number, name, None))
    with pytest.raises(ExhibitError, match="No region"):
        verifying.desk.find_similar(checked_region(striped("red", "white"), None), 0, Path("anywhere"))


def test_the_search_is_offered_only_where_a_region_stands_out(verifying: Verifying) -> None:
    assert verifying.translate("en")["similar"]["visible"] is False
    for box in ((0.0, 0.0, 48.0, 64.0), None):
        first, *_ = verifying.choose("en", checked_region(striped("red", "white"), box), "0")
        assert first["similar"]["visible"] is (box is not None)
        assert first["found"]["value"] == ""
        assert first["chosen"]["value"] == 0
