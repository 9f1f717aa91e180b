"""The tab's behaviour without a browser: real rooms, tiny real models, no server."""

import io
import json
import zipfile
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from PIL import Image

from explain.catalog import CATALOG
from explain.default_methods import DefaultMethod
from models.errors import BadImageError
from tests.signed_pictures import AI, signed_picture
from ui import results
from ui.errors import guard
from ui.examples import find_examples, generate_picture
from ui.listeners import Chosen, Kept, Listeners, Wishes
from ui.pictures import View
from ui.services import Services
from ui.text import TEXTS, say

MODELS = ["tiny-resnet", "tiny-vit"]
METHODS = ["gradcam", "layercam"]
ANY = View("", "")


@pytest.fixture
def services(tiny_loader, tmp_path, monkeypatch) -> Services:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return Services(zoo=tiny_loader.zoo, loader=tiny_loader, examples=find_examples())


@pytest.fixture
def listeners(services) -> Listeners:
    return Listeners(services)


def picture_file(tmp_path, name="photo.png", size=(96, 64), **options):
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    path = tmp_path / name
    Image.fromarray(pixels).save(path, **options)
    return path


def choose(listeners, path, name=None, former=None):
    return listeners.choose("en", {"path": str(path), "orig_name": name or path.name}, former)


def wishes(**changes) -> Wishes:
    return replace(Wishes("deepfake", MODELS, METHODS, "", ""), **changes)


def run(listeners, chosen, asked=None, view=ANY):
    return list(listeners.run("en", Event(), chosen, asked or wishes(), view))


def test_upload_hands_over_the_original_bytes(listeners, tmp_path):
    path = picture_file(tmp_path, "photo.jpg", quality=90)
    updates = choose(listeners, path)
    chosen = updates["chosen"]["value"]
    assert chosen.source.original == path.read_bytes()
    assert updates["picture"]["value"] == str(path)
    assert chosen.source.sha256 in updates["facts"]["value"]


def test_signed_picture_tells_its_history_as_soon_as_it_is_chosen(listeners, tmp_path):
    path = tmp_path / "signed.jpg"
    path.write_bytes(signed_picture(AI))
    shown = choose(listeners, path)["facts"]["value"]
    assert say("en", "credentials.ai") in shown
    assert "Exhibit Test" in shown


def test_format_that_browsers_cannot_show_is_examined_as_it_is_and_shown_as_a_copy(listeners, tmp_path):
    path = picture_file(tmp_path, "scan.tiff")
    updates = choose(listeners, path)
    assert updates["chosen"]["value"].source.format == "TIFF"
    assert updates["chosen"]["value"].source.original == path.read_bytes()
    with Image.open(updates["picture"]["value"]) as shown:
        assert shown.format == "JPEG"


def test_bad_file_is_one_line_and_the_former_picture_stays(listeners, tmp_path):
    former = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    bad = tmp_path / "upload"
    bad.write_text("hello")
    updates = choose(listeners, bad, "<b>evil</b>.jpg", former)
    assert "chosen" not in updates
    assert updates["picture"]["value"] == str(former.shown)
    assert 'role="alert"' in updates["status"]["value"]
    assert "not an image" in updates["status"]["value"]
    assert "<b>evil" not in updates["status"]["value"]


def test_taking_the_picture_away_keeps_what_was_found(listeners):
    updates = listeners.choose("en", None, None)
    assert updates["chosen"]["value"] is None
    assert set(updates) == {"chosen", "facts", "status"}


@pytest.mark.parametrize(
    ("asked", "key"),
    [(wishes(models=[]), "status.no_model"), (wishes(methods=[]), "status.no_method")],
)
def test_missing_wish_is_named_and_nothing_runs(listeners, tmp_path, asked, key):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    (updates,) = run(listeners, chosen, asked)
    assert say("en", key) in updates["status"]["value"]
    assert set(updates) == {"status", "stop"}


def test_no_picture_is_named(listeners):
    (updates,) = run(listeners, None)
    assert say("en", "status.no_picture") in updates["status"]["value"]


def test_first_model_shows_before_the_second_is_asked(listeners, tmp_path):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    steps = run(listeners, chosen)
    answered = [len(step["result"]["value"].examination.predictions) for step in steps]
    assert answered == [0, 1, 2]
    assert "viewer" in steps[1]
    assert "value" in steps[1]["model_shown"]
    # From then on the viewer is the visitor's: later steps offer more maps but change no choice.
    assert "viewer" not in steps[2]
    assert "value" not in steps[2]["model_shown"]
    assert [choice[1] for choice in steps[2]["model_shown"]["choices"]] == MODELS
    assert "progress" in steps[0]["status"]["value"]
    assert "Done in" in steps[-1]["status"]["value"]
    assert steps[-1]["evidence_panel"]["visible"] is True


def test_stop_ends_before_the_next_step_and_keeps_what_was_ready(listeners, tmp_path):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    stopping = listeners.wait("en")["stopping"]["value"]
    steps = listeners.run("en", stopping, chosen, wishes(), ANY)
    next(steps)
    answered = next(steps)
    assert len(answered["result"]["value"].examination.predictions) == 1
    assert "Stopped" in listeners.stop("en", stopping)["status"]["value"]
    assert [set(step) for step in steps] == [{"status", "stop"}]


def test_stop_while_waiting_for_a_turn_runs_no_model(listeners, tmp_path, monkeypatch):
    calls = count_forwards(listeners, monkeypatch)
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    stopping = listeners.wait("en")["stopping"]["value"]
    listeners.stop("en", stopping)
    (step,) = listeners.run("en", stopping, chosen, wishes(), ANY)
    assert "Stopped" in step["status"]["value"]
    assert calls == []


def test_loading_is_told_while_it_takes_time_and_can_be_stopped(listeners, services, tmp_path, monkeypatch):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    arrived = Event()

    def slow(model_id):
        services.board.tell(model_id, 0.25, "downloading: 86 of 343 MB")
        arrived.wait(20)

    monkeypatch.setattr(services.loader, "load", slow)
    monkeypatch.setattr("ui.services.REPORT_EVERY_S", 0.01)
    stopping = Event()
    steps = listeners.load("en", stopping, chosen, wishes(models=["tiny-vit"]))
    assert next(steps) == {}
    told = next(steps)["status"]["value"]
    assert "Tiny vit: downloading: 86 of 343 MB" in told
    assert 'value="25"' in told
    stopping.set()
    assert list(steps) == []
    arrived.set()


def test_model_that_cannot_be_loaded_is_left_to_the_examination(listeners, tmp_path):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    for step in listeners.load("en", Event(), chosen, wishes(task="ai-image", models=["wild-fake"])):
        assert set(step) <= {"status"}
    steps = run(listeners, chosen, wishes(task="ai-image", models=["wild-fake"]))
    assert "No model could answer" in steps[-1]["verdict"]["value"]
    assert "Wild fake detector" in steps[-1]["rows"]["value"]


@pytest.fixture
def found(listeners, tmp_path):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    return run(listeners, chosen)[-1]["result"]["value"]


def count_forwards(listeners, monkeypatch) -> list[str]:
    calls: list[str] = []
    for model_id in MODELS:
        live = listeners.services.loader.load(model_id)
        forward = live.module.forward

        def counted(*args, _forward=forward, _id=model_id, **kwargs):
            calls.append(_id)
            return _forward(*args, **kwargs)

        monkeypatch.setattr(live.module, "forward", counted)
    return calls


def test_redraws_run_no_model(listeners, found, tmp_path, monkeypatch):
    calls = count_forwards(listeners, monkeypatch)
    views = [
        View("tiny-resnet", "gradcam"),
        View("tiny-vit", "layercam", opacity=0.9),
        View("tiny-vit", "layercam", boxes=True, shared=True),
    ]
    drawn = [listeners.redraw("en", found, view)["viewer"]["value"] for view in views]
    assert len({heated for _, heated in drawn}) == 3
    listeners.translate("ko", "deepfake", MODELS, Kept(result=found), views[0])
    assert calls == []
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    run(listeners, chosen)
    assert sorted(set(calls)) == MODELS  # the counter does count


def test_redraw_follows_the_view_and_marks_it(listeners, found):
    updates = listeners.redraw("en", found, View("tiny-vit", "layercam"))
    assert updates["grid"]["shown"] == "tiny-vit|layercam"
    assert "LayerCAM" in updates["legend"]["value"]
    assert updates["model_shown"]["value"] == "tiny-vit"
    assert updates["shared"]["interactive"] is True
    assert updates["boxes"]["interactive"] is False  # no detector ran


def test_opacity_zero_shows_the_photo_itself(listeners, found):
    plain, heated = listeners.redraw("en", found, View("tiny-vit", "gradcam", opacity=0.0))["viewer"]["value"]
    with Image.open(plain) as one, Image.open(heated) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_shared_scale_spans_all_models_of_the_method(listeners, found):
    own = listeners.redraw("en", found, View("tiny-vit", "gradcam"))["legend"]["value"]
    shared = listeners.redraw("en", found, View("tiny-vit", "gradcam", shared=True))["legend"]["value"]
    maps = [h for h in found.examination.heatmaps if h.method == "gradcam"]
    assert f"{max(h.raw_max for h in maps):.3g}" in shared
    assert f"{found.examination.heatmap('tiny-vit', 'gradcam').raw_max:.3g}" in own


def test_view_of_a_map_that_does_not_exist_settles_on_the_nearest(found):
    assert results.settle_view(found.examination, View("tiny-vit", "no-such")).model_id == "tiny-vit"
    settled = results.settle_view(found.examination, View("no-such", "layercam"))
    assert (settled.model_id, settled.method) == ("tiny-resnet", "layercam")


def test_the_method_that_is_best_for_the_kind_comes_first_and_says_why(listeners, found, monkeypatch):
    specs, best = listeners.services.zoo.specs, DefaultMethod("layercam", pointing=0.604, chance=0.21)
    monkeypatch.setattr("ui.results.DEFAULTS", {"classifier": best})
    monkeypatch.setattr("explain.default_methods.DEFAULTS", {"classifier": best})
    settled = results.settle_view(found.examination, View("tiny-vit", ""), specs)
    assert (settled.model_id, settled.method) == ("tiny-vit", "layercam")
    assert results.settle_view(found.examination, View("tiny-vit", "gradcam"), specs).method == "gradcam"
    why = listeners.redraw("en", found, settled)["legend"]["value"]
    assert "LayerCAM found best what is known to decide. Its hottest point hit it in 60 of 100 pictures" in why
    assert "found best" not in listeners.redraw("en", found, View("tiny-vit", "gradcam"))["legend"]["value"]


def test_another_language_changes_words_and_keeps_pictures_and_values(listeners, found):
    updates = listeners.translate("ko", "deepfake", MODELS, Kept(result=found), View("tiny-vit", "layercam"))
    assert TEXTS["ko"]["verdict"] in updates["verdict"]["value"]
    assert updates["examine"]["value"] == TEXTS["ko"]["examine"]
    assert updates["methods"] == {
        "label": TEXTS["ko"]["methods"],
        "choices": [(entry.title, name) for name, entry in CATALOG.items()],
    }
    assert "value" not in updates["viewer"]
    assert "value" not in updates["models"]


def test_bundle_is_a_zip_with_a_manifest_of_the_original_bytes(listeners, found):
    updates = listeners.pack("en", found, original=True)
    with zipfile.ZipFile(updates["archive"]["value"]) as packed:
        names = packed.namelist()
        (manifest,) = [name for name in names if name.endswith("/manifest.json")]
        assert found.examination.source.sha256 in json.dumps(json.loads(packed.read(manifest)))
        original = [name for name in names if "/original" in name]
        assert packed.read(original[0]) == found.examination.source.original
    without = listeners.pack("en", found, original=False)
    with zipfile.ZipFile(without["archive"]["value"]) as packed:
        assert not [name for name in packed.namelist() if "/original" in name]


def test_other_target_is_explained_on_request(listeners, tmp_path):
    chosen = choose(listeners, picture_file(tmp_path))["chosen"]["value"]
    steps = run(listeners, chosen, wishes(target="real"))
    assert {h.target for h in steps[-1]["result"]["value"].examination.heatmaps} == {"logit:real"}


def test_question_without_a_model_here_lists_reasons_and_refuses_in_one_line(listeners):
    updates = listeners.ask("en", "ai-image")
    assert updates["models"]["choices"] == []
    assert updates["models"]["value"] == []
    assert "Wild fake detector" in updates["unavailable"]["value"]


def test_default_models_are_those_whose_own_weights_are_here(services):
    chosen = services.default_models("deepfake")
    assert set(MODELS) <= set(chosen)
    assert "dima806-deepfake" not in chosen  # not on this machine: a stand-in would answer
    kinds = {services.zoo.get(model_id).kind for task in services.tasks for model_id in services.default_models(task)}
    assert "clip" in kinds
    assert "clip" not in {services.zoo.get(model_id).kind for model_id in chosen}  # knows nothing of forgeries


def test_examples_are_found_and_readable(services):
    names = [example.name for example in services.examples]
    assert names[-4:] == ["generated", "chat", "place", "chart"]
    assert {"astronaut", "cat", "coffee", "bus"} & set(names)
    for example in services.examples:
        assert min(example.read().size_wh) >= 256


def test_example_whose_package_is_missing_is_left_out(monkeypatch):
    monkeypatch.setattr("ui.examples._package_folder", lambda package: None)
    assert [example.name for example in find_examples()] == ["generated", "chat", "place", "chart"]


def test_generated_picture_is_the_same_every_time():
    assert generate_picture() == generate_picture()
    with Image.open(io.BytesIO(generate_picture())) as picture:
        assert picture.size == (512, 512)


def test_unknown_example_changes_nothing(listeners):
    assert listeners.choose_example("en", "../../etc/passwd") == {}


def test_unexpected_error_is_logged_with_its_traceback_and_shown_as_one_line(listeners, caplog):
    def breaks(language):
        raise ZeroDivisionError("secret detail")

    updates = guard(breaks, listeners.fail, lambda updates: updates)("en")
    assert say("en", "status.unexpected") in updates["status"]["value"]
    assert "secret detail" not in updates["status"]["value"]
    assert "secret detail" in caplog.text
    assert "Traceback" in caplog.text


def test_expected_error_in_a_generator_comes_after_what_was_ready(listeners):
    def breaks(language):
        yield {"rows": {"value": "kept"}}
        raise BadImageError("the file is empty; give another.")

    steps = list(guard(breaks, listeners.fail, lambda updates: updates)("en"))
    assert steps[0] == {"rows": {"value": "kept"}}
    assert set(steps[1]) == {"status", "stop"}
    assert "the file is empty" in steps[1]["status"]["value"]


def test_chosen_picture_is_never_changed_by_drawing(listeners, found):
    before = found.examination.source.rgb.tobytes()
    listeners.redraw("en", found, View("tiny-vit", "gradcam", opacity=1.0))
    assert found.examination.source.rgb.tobytes() == before
    assert isinstance(Chosen(found.examination.source, found.photo_file), Chosen)
