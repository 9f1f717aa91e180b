"""All HTML that the page builds itself: what comes from outside is text, whatever it holds."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from explain.regions import RegionHeat
from explain.schema import Heatmap, MapPart
from models.credentials import Credentials
from models.schema import LoadState, ModelSpec, ModelStatus, Prediction, Verdict
from ui import markup
from ui.credentials_markup import render_credentials
from ui.text import say

EVIL = "<img src=x onerror=alert(1)>\"'&${alert(2)}{{value}}`"
FINE = ModelStatus(LoadState.BUNDLED, "tiny", weights_sha256="aa")


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def spec(model_id: str, **values) -> ModelSpec:
    fields = {
        "id": model_id, "name": model_id.title(), "task": "deepfake", "kind": "classifier", "source": "bundled:x",
        "licence": "MIT", "size_mb": 1, "memory_mb": 1,
    }  # fmt: skip
    return ModelSpec(**(fields | values))


def prediction(model_id: str, fake: float, status: ModelStatus = FINE) -> Prediction:
    label = "fake" if fake >= 0.5 else "real"
    return Prediction(model_id, label, {"fake": fake, "real": 1 - fake}, {"fake": 0.0, "real": 0.0}, 0.012, status)


def heatmap(method: str = "gradcam") -> Heatmap:
    part = MapPart(np.array([[0.0, 1.0]], np.float32), (0, 0, 8, 4))
    return Heatmap((part,), (8, 4), 0.0, 0.25, method, "logit:fake", "layer.1", "one")


def test_escape_leaves_no_markup_and_no_template_sign():
    escaped = markup.escape(EVIL)
    assert not set("<>\"'{}$`") & set(escaped)
    assert Reader(escaped).text == EVIL


EVIL_STATUS = ModelStatus(LoadState.UNAVAILABLE, EVIL, EVIL, EVIL)
EVIL_SPECS = {"one": spec("one", name=EVIL, trained_on=EVIL)}
EVIL_PREDICTION = Prediction("one", EVIL, {EVIL: 1.0}, {EVIL: 1.0}, 0.1, replace(EVIL_STATUS, loaded_from="one"))


@pytest.mark.parametrize(
    "text",
    [
        markup.render_heading(EVIL, EVIL),
        markup.render_empty(EVIL),
        markup.render_status(EVIL, 0.5),
        markup.render_status(EVIL, error=True),
        markup.render_facts("en", (EVIL, EVIL), EVIL, {EVIL: EVIL}),
        render_credentials("en", Credentials("valid", EVIL, EVIL, True)),
        markup.render_unavailable("en", [(EVIL_SPECS["one"], EVIL_STATUS)]),
        markup.render_verdict("en", Verdict(EVIL, {EVIL: 1.0}, 1.0, (EVIL,), 0.1), [EVIL_PREDICTION] * 2, EVIL_SPECS),
        markup.render_rows("en", Verdict(EVIL, {EVIL: 1.0}, 1.0, (), 0.1), [EVIL_PREDICTION], EVIL_SPECS),
        markup.render_problems("en", [(EVIL, EVIL)]),
        markup.render_legend(
            "en", replace(heatmap(), layer=EVIL, target=EVIL, method=EVIL), EVIL, "data:image/png;base64,AA", (0.0, 1.0)
        ),
        markup.render_grid("en", [markup.Thumbnail(EVIL, EVIL, "data:,")], {}, ""),
        markup.render_picks([(EVIL, EVIL, "data:,")]),
        markup.render_detections("en", [RegionHeat(EVIL, 0.5, (0, 0, 1, 1), 0.1, 0.1, 0.1, holds_peak=False)]),
    ],
)
def test_hostile_text_stays_text(text):
    read = Reader(text)
    assert EVIL in read.text or any(EVIL in (value or "") for _, attrs in read.tags for value in attrs.values())
    assert all(name != "onerror" for _, attrs in read.tags for name in attrs)
    assert not [attrs for tag, attrs in read.tags if tag == "img" and not (attrs["src"] or "").startswith("data:")]
    assert "${" not in text
    assert "{{" not in text


@pytest.mark.parametrize("language", ["en", "ko", "pl"])
@pytest.mark.parametrize("signature", ["valid", "invalid", "unreadable", "elsewhere"])
def test_credentials_say_their_state_and_a_warning_stands_out(language, signature):
    shown = render_credentials(language, Credentials(signature, "Someone", "Camera 1", None))
    assert say(language, f"credentials.{signature}") in Reader(shown).text
    assert ("<strong>" in shown) == (signature == "invalid")
    assert (say(language, "credentials.note") in Reader(shown).text) == (signature == "valid")
    made = Reader(render_credentials(language, Credentials(signature, ai_generated=True)))
    assert say(language, "credentials.ai") in made.text
    assert say(language, "credentials.none") in Reader(render_credentials(language, None)).text


def test_verdict_says_who_disagrees_and_by_how_much():
    specs = {"one": spec("one", trained_on="Faces of 2020."), "two": spec("two")}
    verdict = Verdict("fake", {"fake": 0.6, "real": 0.4}, 0.5, ("two",), 0.55, {"one": 0.5, "two": 0.5})
    other = replace(FINE, loaded_from="two", weights_sha256="bb")
    read = Reader(markup.render_verdict("en", verdict, [prediction("one", 0.9), prediction("two", 0.35, other)], specs))
    assert "fake 60%" in read.text
    assert "Disagreement: Two says otherwise." in read.text
    assert "55 points apart" in read.text
    assert "Faces of 2020." in read.text
    assert "no better than by a coin" in read.text


def test_models_that_share_weights_are_one_opinion():
    specs = {"one": spec("one"), "two": spec("two"), "three": spec("three")}
    verdict = Verdict("fake", {"fake": 0.9, "real": 0.1}, 1.0, (), 0.0)
    both = [prediction("one", 0.9), prediction("two", 0.9)]
    alone = Reader(markup.render_verdict("en", verdict, both, specs)).text
    assert "Only one model answered" in alone
    assert "One, Two share their weights and count as one." in alone
    third = prediction("three", 0.8, replace(FINE, weights_sha256="bb"))
    text = Reader(markup.render_verdict("en", verdict, [*both, third], specs)).text
    assert "The 2 models agree. One, Two share their weights" in text


def test_limits_are_those_of_the_weights_that_answered():
    specs = {"asked": spec("asked", trained_on="The whole web."), "tiny": spec("tiny", trained_on="A few faces.")}
    text = markup.render_verdict("en", Verdict("fake", {"fake": 1.0}, 1.0, (), 0.0), [prediction("asked", 0.9)], specs)
    assert "A few faces." in text
    assert "The whole web." not in text


def test_row_names_state_and_reason_in_words_and_the_bar_speaks():
    status = ModelStatus(LoadState.BUNDLED, "tiny", "the hub cannot be reached", "copy the folder")
    text = markup.render_rows(
        "en",
        Verdict("fake", {"fake": 0.7, "real": 0.3}, 1.0, (), 0.0),
        [prediction("one", 0.7, status)],
        {"one": spec("one")},
    )
    read = Reader(text)
    assert "bundled" in read.text
    assert "the hub cannot be reached" in read.text
    assert "What to do" in read.text
    assert "copy the folder" in read.text
    assert {"role": "img", "class": "bar halved", "aria-label": "Probability of fake 70.0%"} in [
        a for _, a in read.tags
    ]
    assert "12 ms" in read.text


def test_grid_marks_the_shown_map_and_names_each_cell():
    cells = [markup.Thumbnail("one", "gradcam", "data:,"), markup.Thumbnail("one", "layercam", "data:,")]
    text = markup.render_grid("en", cells, {"one": spec("one")}, markup.grid_key("one", "layercam"))
    buttons = [attrs for tag, attrs in Reader(text).tags if tag == "button"]
    assert [b["aria-pressed"] for b in buttons] == ["false", "true"]
    assert [b["aria-label"] for b in buttons] == ["Grad-CAM, One", "LayerCAM, One"]


def test_legend_gives_raw_range_grid_and_whether_the_label_matters():
    text = Reader(markup.render_legend("en", heatmap("eigencam"), "One", "data:,", (0.0, 0.25))).text
    assert "Eigen-CAM of fake, One" in text
    assert "0.25" in text
    assert "1 × 2 cells" in text
    assert "does not depend on the label" in text


def test_detections_say_share_density_and_peak():
    region = RegionHeat("person", 0.91, (0, 0, 4, 4), share=0.6, area_share=0.3, peak=1.0, holds_peak=True)
    text = Reader(markup.render_detections("en", [region])).text
    assert all(words in text for words in ("person", "91%", "60.0%", "30.0%", "2.00", "yes"))
    assert "found nothing" in Reader(markup.render_detections("en", [])).text
    assert "No detector" in Reader(markup.render_detections("en", None)).text


def test_error_interrupts_and_progress_does_not():
    assert 'role="alert"' in markup.render_status("x", error=True)
    assert 'role="status"' in markup.render_status("x", 0.25)
    assert '<progress max="100" value="25"' in markup.render_status("x", 0.25)
