"""The Triage tab without a browser: what may be read, what is shown, sorted and opened."""

import csv
import io
import zipfile
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from gradio.utils import get_upload_folder
from PIL import Image

from bulk.parts import Job, write_plan
from bulk.results import Run
from bulk.scoring import ChunkScorer
from bulk.sources import list_items
from models.errors import ExhibitError
from models.schema import Novelty
from ui.services import build_services
from ui.triage_api import TriageEndpoint
from ui.triage_listeners import TriageListeners
from ui.triage_runs import ALL, FAILED, UNLIKE, Sight


@pytest.fixture(autouse=True)
def uploads(tmp_path, monkeypatch):
    folder = tmp_path / "uploads"
    folder.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def root(tmp_path):
    """What the operator opened: a folder of four pictures and a broken one."""
    root = tmp_path / "opened"
    (root / "case").mkdir(parents=True)
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(root / "case" / f"{number}.png")
    (root / "case" / "=<b>1.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture
def listeners(root, tiny_zoo_file, monkeypatch):
    services = build_services(tiny_zoo_file, folders=[root])
    monkeypatch.setattr(type(services), "default_models", lambda self, task: ("tiny-resnet",))
    return TriageListeners(services)


def _score(listeners, **given):
    wanted = {"files": None, "folder": "opened/case", "task": "deepfake", "models": (), "stopping": Event()} | given
    return list(listeners.start("en", *wanted.values()))


def test_folder_is_scored_sorted_filtered_and_a_row_opens(listeners):
    last = _score(listeners)[-1]
    assert "5 pictures" in last["news"]["value"]
    assert "1 could not be scored" in last["news"]["value"]
    assert last["start"]["interactive"]
    seen = last["seen"]["value"]
    every = ("fake", 0.0, ALL, "")
    shown = listeners.look("en", seen, *every, pick="sort|name")
    names = [row["path"].rpartition("/")[2] for row in _rows(listeners, shown)]
    assert names == sorted(names, reverse=True)
    again = listeners.look("en", shown["seen"]["value"], *every, pick="sort|name")
    assert [row["path"].rpartition("/")[2] for row in _rows(listeners, again)] == names[::-1]
    failed = listeners.look("en", seen, "fake", 0.0, FAILED, "")
    assert "&lt;b&gt;1.jpg" in failed["table"]["value"]
    assert "<b>" not in failed["table"]["value"]
    found = listeners.look("en", seen, "fake", 0.0, ALL, "2.PNG")
    assert len(_rows(listeners, found)) == 1
    opening = listeners.open("en", found["seen"]["value"], "open|0")
    assert opening.source.name == "2.png"
    assert opening.models == ("tiny-resnet",)


def _rows(listeners, updates) -> list[dict]:
    seen = updates["seen"]["value"]
    return listeners.runs.select(seen.folder, seen.sight).to_pylist()


def test_bar_sets_the_threshold_and_only_pictures_above_it_are_shown(listeners):
    seen = _score(listeners)[-1]["seen"]["value"]
    counts = listeners.runs.histogram(seen.folder, "fake")
    assert sum(counts) == 4
    updates = listeners.look("en", seen, "fake", 0.9, ALL, "", pick="bar|0.05")
    assert (updates["threshold"]["value"], updates["which"]["value"]) == (0.05, "above")
    probabilities = [row["probability"] for row in _rows(listeners, updates)]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == sum(counts[1:])


def test_uploaded_zip_is_scored_and_downloaded_whole(listeners, uploads, root):
    path = uploads / "abc" / "seized.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for file in (root / "case").iterdir():
            archive.write(file, file.name)
    last = _score(listeners, files=[{"path": str(path)}], folder="")[-1]
    with zipfile.ZipFile(last["download"]["value"]) as packed:
        assert set(packed.namelist()) == {"summary.html", "rows.csv", "rows.parquet"}
        rows = list(csv.DictReader(io.StringIO(packed.read("rows.csv").decode())))
    assert len(rows) == 5
    assert {row["member"] for row in rows if row["error"]} == {"'=<b>1.jpg"}  # no formula for a spreadsheet


def test_stopped_scoring_shows_what_is_there(listeners, monkeypatch):
    monkeypatch.setattr("ui.triage_runs.CHUNK", 2)
    stopping = Event()
    stopping.set()
    last = _score(listeners, stopping=stopping)[-1]
    assert "Stopped after 2 of 5" in last["news"]["value"]


def test_finished_run_of_the_command_is_opened(listeners, root, tiny_zoo_file):
    out = root / "run"
    out.mkdir()
    write_plan(list_items([str(root / "case")]), out, 3)
    scorer = ChunkScorer(Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file)))
    assert [scorer.score(0), scorer.score(1)]
    assert ("opened/run (finished run)", "opened/run") in listeners.word("en")["folder"]["choices"]
    (opened,) = _score(listeners, folder="opened/run")
    assert "Run opened: 5 pictures, 1 could not be scored" in opened["news"]["value"]
    assert "data:image" in opened["table"]["value"]


def test_picture_unlike_the_training_pictures_carries_no_confident_verdict(listeners, monkeypatch):
    scored = ChunkScorer._predict

    def strange(self, sources):
        novelty = Novelty(distance=9.0, threshold=2.0, false_alarm=0.01, unfamiliar=True)
        odd = [source.name.endswith("2.png") for source in sources]
        return [
            [replace(one, novelty=replace(novelty, unfamiliar=is_odd)) for one in answers]
            for answers, is_odd in zip(scored(self, sources), odd, strict=True)
        ]

    monkeypatch.setattr(ChunkScorer, "_predict", strange)
    monkeypatch.setattr(Run, "thresholds", {"tiny-resnet": 2.0})
    last = _score(listeners)[-1]
    table = last["table"]["value"]
    assert table.count("No confident verdict") == 1
    assert "leans to" in table
    assert "unlike the training pictures of Tiny resnet (distance 9.00, threshold 2.00)" in table
    shown = listeners.look("en", last["seen"]["value"], "fake", 0.0, UNLIKE, "")
    assert [row["path"].rpartition("/")[2] for row in _rows(listeners, shown)] == ["2.png"]
    assert "Brak pewnego werdyktu" in listeners.translate("pl", last["seen"]["value"])["table"]["value"]


@pytest.mark.parametrize("given", [{"folder": "opened/../secret"}, {"folder": "/etc"}])
def test_folder_that_was_not_opened_is_refused(listeners, given):
    with pytest.raises(ExhibitError, match="not opened by the operator"):
        _score(listeners, **given)


def test_path_that_was_not_uploaded_is_refused(listeners, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    for path in (tmp_path / "secret.png", get_upload_folder()):
        with pytest.raises(ExhibitError, match="Bring pictures"):
            _score(listeners, files=[{"path": str(path)}], folder="")


def test_run_that_points_elsewhere_shows_no_foreign_picture(listeners, root, tmp_path, tiny_zoo_file):
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    out = root / "run"
    out.mkdir()
    write_plan(list_items([str(tmp_path / "secret.png")]), out, 3)
    ChunkScorer(Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file))).score(0)
    (opened,) = _score(listeners, folder="opened/run")
    seen = listeners.look("en", opened["seen"]["value"], "fake", 0.0, ALL, "")["seen"]["value"]
    with pytest.raises(ExhibitError, match="outside the folders"):
        listeners.open("en", seen, "open|0")


def test_models_are_those_of_the_question(listeners):
    models = listeners.choose_task("en", "deepfake")["models"]
    assert models["value"] == ["tiny-resnet"]
    assert ("Tiny vit", "tiny-vit") in models["choices"]
    last = _score(listeners, models=["tiny-vit"])[-1]
    assert last["seen"]["value"].models == ("tiny-vit",)
    with pytest.raises(ExhibitError, match="does not answer"):
        _score(listeners, models=["bundled-yolov8n"])


def test_too_many_pictures_are_for_the_command(listeners, monkeypatch):
    monkeypatch.setattr("ui.triage_runs.MAX_PICTURES", 3)
    with pytest.raises(ExhibitError, match=r"triage\.py"):
        _score(listeners)


def test_nothing_chosen_is_one_line(listeners):
    with pytest.raises(ExhibitError, match="Bring pictures"):
        _score(listeners, folder="")
    assert listeners.look("en", None, "fake", 0.5, ALL, "") == {}


def test_tab_speaks_the_language_of_the_page(listeners):
    seen = _score(listeners)[-1]["seen"]["value"]
    assert "Werdykt" in listeners.translate("pl", seen)["table"]["value"]
    assert listeners.translate("ko", None)["start"]["value"] == "모든 사진 채점"
    assert Sight().which == "all"


def test_endpoint_tells_how_far_it_is_and_lists_the_likeliest_first(listeners, root):
    endpoint = TriageEndpoint(listeners.services)
    *before, (found, archive) = endpoint.triage([str(file) for file in (root / "case").iterdir()])
    assert before[0][0]["rows"] is None
    assert (found["images"], found["done"], found["failed"]) == (5, 5, 1)
    scored = [row["probability"] for row in found["rows"] if not row["error"]]
    assert scored == sorted(scored, reverse=True)
    assert zipfile.is_zipfile(archive)
    with pytest.raises(ExhibitError, match="choose one of fake, real"):
        list(endpoint.triage([str(root / "case" / "0.png")], label="cat"))
