"""The Verify tab without a browser: what is escaped, who may read what, and what each press answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from models.errors import ExhibitError
from rag.endpoint import EndpointSettings
from rag.schema import Chunk, Evidence, Foil, Source, measure_reliability
from tests.tiny_rag import striped
from tests.verifying import CLIP, EVIL, checked_region, make_services, open_uploads, uploaded, verdict, wish, write_zoo
from ui import verify_markup
from ui.verify_api import VerifyEndpoints
from ui.verify_desk import EXTRACTIVE, VerifyDesk
from ui.verify_listeners import OWN_INDEX, Verifying, Wish


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


def test_files_become_an_index_that_answers_and_the_answer_is_checked(verifying: Verifying, uploads: Path) -> None:
    files = [
        uploaded(uploads, "note.txt", f"The red car belongs to Kowalski. {EVIL}".encode()),
        uploaded(uploads, "car.png", striped("red", "white")),
        uploaded(uploads, "car.txt", b"A red car stands on a street."),
        uploaded(uploads, "bad.jpg", b"<b>no picture"),
    ]
    built = list(verifying.build("en", files, Event(), CLIP))
    own = built[-1]["own"]["value"]
    assert "2 files; 1 could not be read" in built[-1]["news"]["value"]
    assert "bad.jpg" in built[-1]["unread"]["value"]
    assert any("progress" in one["news"]["value"] for one in built[:-1])
    assert built[-1]["index"]["value"] == OWN_INDEX

    picture = uploaded(uploads, "asked.png", striped("red", "white"))
    asked = wish(picture=picture, question="Whose is the red car?", index=OWN_INDEX)
    steps = list(verifying.ask("en", asked, own, Event()))
    gallery = next(one["evidence"]["value"] for one in steps if "evidence" in one)
    assert "note.txt" in gallery
    assert "<img src=x" not in gallery
    assert "data:image/jpeg;base64," in gallery
    texts = [one["text"]["value"] for one in steps if "text" in one]
    assert "The red car belongs to Kowalski." in texts[-1]
    checked = steps[-1]["checked"]["value"]
    assert 'data-pick="0"' in steps[-1]["claims"]["value"]
    assert "not settled" in steps[-1]["claims"]["value"]

    first, last = verifying.choose("en", checked, "0")
    assert first["claims"]["shown"] == "0"
    for step in (first, last):
        assert "data:image/jpeg;base64," in step["claim"]["value"]
        assert "whole claim" in step["claim"]["value"]
    for language in ("ko", "pl"):
        shown = verifying.translate(language, own, checked)
        assert shown["claims"]["value"] != steps[-1]["claims"]["value"]
        assert len(shown["index"]["choices"]) == 2


def test_a_pasted_answer_is_checked_and_escaped(verifying: Verifying, uploads: Path) -> None:
    picture = uploaded(uploads, "asked.png", striped("red", "white"))
    *_, last = verifying.check("en", wish(picture=picture, text=f"A red car is {EVIL} here. Two dogs run."))
    assert "<img" not in last["claims"]["value"]
    assert "${" not in last["claims"]["value"]
    assert len(last["checked"]["value"].verdicts) == 2


def test_an_answer_goes_to_the_server_for_splitting_only_where_the_server_answers(
    verifying: Verifying, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = '[{"claim": "The car is red.", "quote": "red car"}]'
    sent: list[str] = []

    def complete(_: object, prompt: str) -> str:
        sent.append(prompt)
        return reply

    monkeypatch.setattr("rag.endpoint.EndpointAnswerer.complete", complete)
    monkeypatch.setattr(verifying.desk, "_endpoint", EndpointSettings("http://127.0.0.1:9/v1", "m"))
    picture = uploaded(uploads, "asked.png", striped("red", "white"))
    for answerer, expected in ((EXTRACTIVE, "A red car is here."), ("endpoint", "The car is red.")):
        asked = wish(picture=picture, text="A red car is here.", answerer=answerer)
        *_, last = verifying.check("en", asked)
        assert [one.claim.text for one in last["checked"]["value"].verdicts] == [expected]
    assert len(sent) == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (wish(), "question"),
        (wish(question="What?"), "nothing to answer from"),
        (wish(question="What?", index="own"), "no longer here"),
        (wish(question="What?", index="../etc"), "no longer here"),
    ],
)
def test_what_is_missing_is_said(verifying: Verifying, asked: Wish, message: str) -> None:
    with pytest.raises(ExhibitError, match=message):
        list(verifying.ask("en", asked, None, Event()))


def test_only_uploaded_files_are_read(verifying: Verifying, tmp_path: Path) -> None:
    striped("red", "white").save(tmp_path / "private.png")
    forged = {"path": str(tmp_path / "private.png"), "orig_name": "a.png"}
    with pytest.raises(ExhibitError, match="not uploaded"):
        list(verifying.check("en", wish(picture=forged, text="A car.")))
    with pytest.raises(ExhibitError, match="not uploaded"):
        list(verifying.build("en", [forged], Event()))
    with pytest.raises(ExhibitError, match="check it again"):
        list(verifying.choose("en", None, "0"))


def test_names_of_uploads_lead_nowhere_else(verifying: Verifying, uploads: Path) -> None:
    one = uploaded(uploads, "a.txt", b"The first.")
    files = [one | {"orig_name": name} for name in ("../../x.txt", "x.txt", "C:\\y\\x.txt", ".x.txt")]
    built = list(verifying.build("en", files, Event(), CLIP))[-1]
    assert "4 files; 0 could not be read" in built["news"]["value"]


def test_verdicts_differ_by_more_than_colour_and_keep_the_answer_s_words() -> None:
    text = "Yes. A car <b>. A dog? A cat."
    verdicts = [
        verdict("A car <b>.", 5, 15),
        verdict("A dog", 16, 21, "refuted"),
        verdict("A cat.", 23, 29, "not_enough_evidence"),
        verdict("cat", 25, 28),
    ]
    shown = verify_markup.render_answer("en", text, verdicts)
    for mark, word in (("✓", "supported 90%"), ("✗", "refuted 90%"), ("?", "not settled 90%")):
        assert f'aria-hidden="true">{mark}</span>' in shown
        assert word in shown
    assert "A car &lt;b&gt;." in shown
    assert shown.count("<button") == 4  # the overlapping one stands behind


def test_a_claim_shows_foils_and_a_bar_for_each_signal() -> None:
    one = verdict(
        EVIL, 0, 5, signals={"whole": 0.3, "count": -1.0, "odd": 2.0}, contributions={"whole": 1.5, "count": -0.5},
        foils=(Foil(f"no {EVIL}", 0.25),), region_xyxy=(1, 2, 30, 20), thresholds=(0.2, 0.8),
    )  # fmt: skip
    shown = verify_markup.render_claim("en", one, striped("red", "blue"), "")
    assert "<img src=x" not in shown
    assert 'class="for" style="width:50.0%"' in shown
    assert 'class="against" style="width:16.7%"' in shown
    assert "not weighed" in shown
    assert "Refuted below 20%. Supported from 80%." in shown
    never = verify_markup.render_claim("en", replace(one, thresholds=(0.0, 1.01)), striped("red", "blue"), "")
    assert "101%" not in never
    assert "None is refuted" in never
    assert "None is supported" in never
    assert shown.index("whole claim") < shown.index("number of objects")
    assert "If the claim is false" not in shown
    two = replace(one, doubts={"replaced": 0.2, EVIL: 0.8})
    doubted = verify_markup.render_claim("en", two, striped("red", "blue"), "")
    assert "80%; one word of it is wrong 20%." in doubted
    assert "<img src=x" not in doubted


def test_what_was_read_stands_beside_a_quotation_and_is_escaped() -> None:
    one = verdict("It says “stop”.", 0, 15)
    picture = striped("red", "blue")
    assert "Read there" not in verify_markup.render_claim("en", one, picture, "")
    quoted = replace(one, signals={"quotes": 0.4}, read=EVIL)
    shown = verify_markup.render_claim("en", quoted, picture, "")
    assert "Read there" in shown
    assert "<img src=x" not in shown
    assert "No text like the quotation" in verify_markup.render_claim("en", replace(quoted, read=""), picture, "")


def test_evidence_and_reliability_are_escaped() -> None:
    chunk = Chunk(Source(f"{EVIL}.md", "markdown", "0"), 0, EVIL, EVIL, 3)
    shown = verify_markup.render_evidence("en", [Evidence(chunk, 0.03, 0.5, 1.2, ("sentence", EVIL))])
    reliability = verify_markup.render_reliability("en", measure_reliability([verdict(EVIL, 0, 3)]), EVIL, [EVIL])
    for html in (shown, reliability):
        assert "<img" not in html
        assert "${" not in html
    assert "page 3" in shown
    assert verify_markup.render_evidence("en", []) == ""


def test_the_region_is_outlined_where_it_lies_in_the_original(verifying: Verifying) -> None:
    photo = Image.new("RGB", (400, 200), "gray")
    checked = checked_region(photo, (0, 0, 400, 400), size_wh=(800, 400))
    drawn, _ = verifying.desk.draw_claim(checked, 0)
    assert drawn.size == (640, 320)  # enlarged to be looked at; the region ends in its middle
    changed = [drawn.getpixel((318, y)) != drawn.getpixel((480, y)) for y in range(20, 300)]
    assert all(changed)


def test_programs_get_the_same_as_json(verifying: Verifying, tmp_path: Path) -> None:
    striped("red", "white").save(tmp_path / "a.png")
    endpoints = VerifyEndpoints(verifying.desk)
    told, files = endpoints.verify(str(tmp_path / "a.png"), "A red car. A dog runs.", heatmaps=True, model=CLIP)
    assert [claim["claim"] for claim in told["claims"]] == ["A red car.", "A dog runs."]
    assert told["note"] == f"{CLIP} has no calibration for photographs: signals are shown, nothing is settled"
    assert [Path(file).name for file in files] == ["claim-1.png", "claim-2.png"]
    assert [word["word"] for word in told["claims"][0]["words"]] == ["A", "red", "car"]
    assert "similar" not in told["claims"][0]
    with pytest.raises(ExhibitError, match="photographs"):
        endpoints.verify(str(tmp_path / "a.png"), "A car.", domain="moon")
    with pytest.raises(ExhibitError, match="no index"):
        endpoints.ask("What?", index="/etc")
    with pytest.raises(ExhibitError, match="no index"):
        endpoints.verify(str(tmp_path / "a.png"), "A car.", index="/etc")
    with pytest.raises(ExhibitError, match="answers nothing here"):
        endpoints.ask("What?", str(tmp_path / "a.png"), answerer="endpoint")
