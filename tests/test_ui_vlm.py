"""What vision-language models add to the Examine tab, without a browser: a tiny real PaliGemma and its adapter."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import yaml
from PIL import Image

from explain.schema import WordAttribution
from models.loading import BASE_SUFFIX, ModelLoader
from models.registry import load_zoo
from tests.test_ui_markup import EVIL, Reader
from tests.tiny_adapters import build_adapter
from ui import markup_vlm, pictures
from ui.api_describe import describe
from ui.listeners import Kept, Listeners, Wishes
from ui.markup import target_word
from ui.markup_vlm import Written
from ui.pictures import View
from ui.results import name_variants
from ui.services import Asking, Services
from ui.text import say

OWN = "Is this image made by AI?"
ID = "tiny-paligemma"
DIFFERENCE = f"{ID}{pictures.DIFFERENCE_SUFFIX}"


@pytest.fixture(scope="module")
def vlm_zoo_file(tiny_vlm, tiny_folders, tmp_path_factory):
    common = {"task": "deepfake", "licence": "MIT", "size_mb": 1, "memory_mb": 10}
    vlm = common | {
        "kind": "vlm",
        "family": "paligemma",
        "question": OWN,
        "answers": {"0": "fake", "1": "real"},
        "hint": "Look at the eyes.",
    }
    folder = tmp_path_factory.mktemp("vlm-zoo")
    base = tiny_vlm("paligemma")
    adapter = build_adapter("paligemma", base, folder / "adapter")
    entries = [
        vlm | {"id": ID, "name": "Tiny PaliGemma", "source": str(adapter), "base": str(base)},
        vlm | {"id": "tiny-base", "name": "Untrained", "source": str(base)},
        common | {"id": "tiny-vit", "name": "Tiny vit", "kind": "classifier", "source": str(tiny_folders["vit"])},
    ]
    path = folder / "zoo.yaml"
    path.write_text(yaml.safe_dump({"models": entries}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def services(vlm_zoo_file):
    loader = ModelLoader(load_zoo(vlm_zoo_file), offline=True)
    return Services(zoo=loader.zoo, loader=loader, examples=())


@pytest.fixture
def listeners(services, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return Listeners(services)


@pytest.fixture
def chosen(listeners, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(path)
    return listeners.choose("en", {"path": str(path), "orig_name": path.name}, None)["chosen"]["value"]


def wishes(models=(ID,), **asking) -> Wishes:
    return Wishes("deepfake", list(models), ["layercam"], "", "", Asking(**asking))


def run(listeners, chosen, asked):
    return list(listeners.run("en", Event(), chosen, asked, View("", "")))


def test_question_is_offered_only_where_a_model_reads_one(listeners):
    hidden = listeners.tick("en", ["tiny-vit"])
    assert {name: hidden[name]["visible"] for name in ("vlm_panel", "precision", "layer")} == {
        "vlm_panel": False,
        "precision": False,
        "layer": False,
    }
    shown = listeners.tick("en", ["tiny-vit", ID])
    assert shown["vlm_panel"]["visible"] is True
    assert shown["asked"]["placeholder"] == OWN
    assert "value" not in shown["asked"]  # what the visitor typed stays


def test_base_model_is_not_ticked_beside_its_fine_tuned_one(services):
    assert ID in services.default_models("deepfake")
    assert "tiny-base" not in services.default_models("deepfake")


def test_empty_question_asks_the_models_own(listeners, chosen):
    last = run(listeners, chosen, wishes())[-1]
    (prediction,) = last["result"]["value"].examination.predictions
    assert prediction.question == OWN
    assert OWN in last["rows"]["value"]
    assert last["result"]["value"].examination.settings.question is None


def test_question_and_style_reach_the_model_and_the_page(listeners, chosen):
    last = run(listeners, chosen, wishes(question=" Who <b>made</b> it? ", style="informed"))[-1]
    (prediction,) = last["result"]["value"].examination.predictions
    assert prediction.question == "Look at the eyes. Who <b>made</b> it?"
    assert "Look at the eyes. Who &lt;b&gt;made&lt;/b&gt; it?" in last["rows"]["value"]
    assert say("en", "style.informed") in last["rows"]["value"]


def test_settings_of_language_models_are_left_out_for_others(services):
    settings = services.settings(
        "deepfake", ("tiny-vit",), asking=Asking("Who?", "captioned", "both", "nf4", "language")
    )
    assert settings == services.settings("deepfake", ("tiny-vit",))


def test_side_by_side_gives_two_answers_two_maps_and_their_difference(listeners, chosen):
    last = run(listeners, chosen, wishes(adapter="both"))[-1]
    result = last["result"]["value"]
    assert result.examination.problems == ()
    assert [shown for shown, _ in pictures.list_maps(result.examination)] == [ID, f"{ID}{BASE_SUFFIX}", DIFFERENCE]
    assert Reader(last["rows"]["value"]).text.count(OWN) == 2
    assert "Tiny PaliGemma, base model" in last["rows"]["value"]
    assert [thumbnail.model_id for thumbnail in result.thumbnails] == [ID, f"{ID}{BASE_SUFFIX}", DIFFERENCE]
    offered = [value for _, value in last["model_shown"]["choices"]]
    assert offered == [ID, f"{ID}{BASE_SUFFIX}", DIFFERENCE]


def test_difference_is_drawn_with_a_legend_of_its_own(listeners, chosen):
    result = run(listeners, chosen, wishes(adapter="both"))[-1]["result"]["value"]
    maps = {
        model_id: listeners.redraw("en", result, View(model_id, "layercam", opacity=1.0))
        for model_id in (ID, f"{ID}{BASE_SUFFIX}", DIFFERENCE)
    }
    drawn = {model_id: updates["viewer"]["value"][1] for model_id, updates in maps.items()}
    assert len({Path(path).read_bytes() for path in drawn.values()}) == 3
    legend = Reader(maps[DIFFERENCE]["legend"]["value"]).text
    span = result.examination.differences[0].scale
    assert f"−{span[1] - span[0]:.3g}" in legend
    assert f"+{span[1] - span[0]:.3g}" in legend
    assert "what fine-tuning changed" in legend
    assert maps[DIFFERENCE]["shared"]["interactive"] is False
    assert maps[ID]["shared"]["interactive"] is True
    assert maps[DIFFERENCE]["grid"]["shown"] == f"{DIFFERENCE}|layercam"


def test_base_alone_can_be_asked(listeners, chosen):
    last = run(listeners, chosen, wishes(adapter="base"))[-1]
    (prediction,) = last["result"]["value"].examination.predictions
    assert prediction.model_id == f"{ID}{BASE_SUFFIX}"
    assert "Tiny PaliGemma, base model" in last["rows"]["value"]


def test_layer_choice_reaches_the_maps(listeners, chosen):
    layers = {
        stage: run(listeners, chosen, wishes(layer=stage))[-1]["result"]["value"].examination.heatmaps[0].layer
        for stage in ("tower", "projector", "language")
    }
    assert len(set(layers.values())) == 3


def test_precision_reaches_the_weights(listeners, chosen, services):
    asked = wishes(precision="bf16")
    assert all(set(step) <= {"status"} for step in listeners.load("en", Event(), chosen, asked))
    last = run(listeners, chosen, asked)[-1]
    assert [each.precision for each in last["result"]["value"].examination.asked] == ["bf16"]
    assert services.settings("deepfake", (ID,), asking=Asking(precision="auto")).precision is None


def test_words_are_shaded_with_sign_figure_and_line(listeners, chosen):
    last = run(listeners, chosen, wishes())[-1]
    (words,) = last["result"]["value"].examination.words
    html = last["words"]["value"]
    reader = Reader(html)
    assert words.words[:5] == ("Is", "this", "image", "made", "by")
    sides = [attrs["class"] for tag, attrs in reader.tags if tag == "ruby"]
    assert sides == ["for" if share > 0 else "against" if share < 0 else "neither" for share in words.shares]
    for share in words.shares.tolist():
        assert f"{share:+.2f}".replace("-", "−") in reader.text
    assert say("en", "words.note") in reader.text


def test_words_of_any_question_are_text():
    question = f"{EVIL} made?"
    words = WordAttribution(question, ((0, len(EVIL)),), np.array([-2.0], np.float32), "margin:fake-real", EVIL)
    reader = Reader(markup_vlm.render_words("en", (words,), {}, "data:,"))
    assert [tag for tag, _ in reader.tags].count("img") == 1  # the scale
    assert f"{EVIL}−1.00 made?" in reader.text


def test_free_text_comes_piece_by_piece_and_says_what_it_means(listeners, chosen):
    steps = list(listeners.write("en", Event(), chosen, wishes(question="Describe it.")))
    texts = [step["writings"]["value"][0].text for step in steps if "writings" in step]
    assert len(texts) > 3
    assert all(later.startswith(earlier[:-1]) for earlier, later in pairwise(texts))
    last = steps[-2]["writings"]["value"][0]
    assert last.done
    assert 'aria-busy="true"' in steps[0]["written"]["value"]
    assert 'aria-busy="false"' in steps[-2]["written"]["value"]
    assert "Describe it." in steps[-2]["written"]["value"]
    assert "Written in" in steps[-1]["status"]["value"]
    assert steps[-1]["stop"] == {"interactive": False}


def test_free_text_stops_after_the_word_in_work(listeners, chosen):
    stopping = Event()
    steps = listeners.write("en", stopping, chosen, wishes(adapter="both"))
    for step in steps:
        if step["writings"]["value"][0].text:
            break
    stopping.set()
    rest = list(steps)
    assert len(rest) <= 3
    assert [entry.model_id for entry in rest[-2]["writings"]["value"]] == [ID]  # the base is not asked any more
    assert "Stopped" in rest[-1]["status"]["value"]


def test_side_by_side_both_write(listeners, chosen):
    *_, shown, _ = listeners.write("en", Event(), chosen, wishes(adapter="both"))
    assert [entry.model_id for entry in shown["writings"]["value"]] == [ID, f"{ID}{BASE_SUFFIX}"]


def test_writing_needs_a_picture_and_a_model_that_writes(listeners, chosen):
    (step,) = listeners.write("en", Event(), None, wishes())
    assert say("en", "status.no_picture") in step["status"]["value"]
    (step,) = listeners.write("en", Event(), chosen, wishes(["tiny-vit"]))
    assert say("en", "status.no_vlm") in step["status"]["value"]


def test_written_text_is_text_and_its_meaning_is_said():
    entry = Written(EVIL, EVIL, EVIL, EVIL, EVIL, done=True)
    for shown in (entry, replace(entry, problem=EVIL), replace(entry, done=False), replace(entry, label=None)):
        html = markup_vlm.render_written("en", (shown,), {})
        assert "img" not in {tag for tag, _ in Reader(html).tags}
        assert not set("{}$`") & set(html)
    assert f"Read as: {EVIL}" in Reader(markup_vlm.render_written("en", (entry,), {})).text


def test_another_language_translates_what_was_written_and_found(listeners, chosen, services):
    result = run(listeners, chosen, wishes(adapter="both"))[-1]["result"]["value"]
    written = (Written(ID, "photo.png", OWN, "0", "fake", done=True),)
    kept = Kept(chosen, result, written)
    updates = listeners.translate("ko", "deepfake", [ID], kept, View(DIFFERENCE, "layercam"))
    assert say("ko", "written") in updates["written"]["value"]
    assert say("ko", "words") in updates["words"]["value"]
    assert say("ko", "difference.note") in updates["legend"]["value"]
    assert updates["style"]["choices"][0] == (say("ko", "style.plain"), "plain")
    assert "value" not in updates["asked"]


def test_margin_reads_as_one_label_over_the_other():
    assert target_word("en", "margin:fake-real") == "fake over real"
    assert target_word("en", "margin:not-ai-ai") == "margin:not-ai-ai"
    assert target_word("en", "logit:fake") == "fake"


def test_variants_have_names_and_nothing_else_changes(services):
    named = name_variants("en", services.zoo.specs)
    assert named[DIFFERENCE].name == "Tiny PaliGemma, fine-tuned minus base"
    assert "tiny-vit@base" not in named
    assert set(services.zoo.specs) < set(named)


def test_endpoint_tells_words_and_differences(services, listeners, chosen):
    result = run(listeners, chosen, wishes(adapter="both"))[-1]["result"]["value"]
    told = describe(result.examination)
    assert told["predictions"][0]["question"] == OWN
    assert told["base_predictions"][0]["model"] == f"{ID}{BASE_SUFFIX}"
    (difference,) = told["differences"]
    assert (difference["model"], difference["base"]) == (ID, f"{ID}{BASE_SUFFIX}")
    assert -1 <= difference["lowest"] <= difference["mean"] <= difference["highest"] <= 1
    assert [each["word"] for each in told["words"][0]["words"]][:2] == ["Is", "this"]
