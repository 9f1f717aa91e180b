"""From a zoo entry to a live model: the chain, the refusals, the cache, and what the status says."""

import hashlib
import json
import shutil
import threading
import time

import pytest
import torch
import yaml

from models import loading, registry
from models.classifier import ImageClassifier
from models.errors import ModelUnavailableError, UnsafeWeightsError, ZooError
from models.hub import Hub, Pins
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import LoadState
from tests.hub_standin import running_hub

ENTRY = {"name": "M", "task": "deepfake", "kind": "classifier", "licence": "MIT", "size_mb": 7, "memory_mb": 50}


@pytest.fixture
def standin():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def loader_of(tmp_path, tiny_folders, monkeypatch, standin):
    """A loader of these entries, with tiny models in place of the bundled ones and the stand-in as hub."""
    bundled = tmp_path / "bundled"
    shutil.copytree(tiny_folders["resnet"], bundled / "resnet-deepfake")
    shutil.copytree(tiny_folders["vit"], bundled / "vit-deepfake")
    monkeypatch.setattr(registry, "BUNDLED_ROOT", bundled)
    monkeypatch.setattr("models.hub.get_token", lambda: None)

    def make(*entries, **options):
        (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"models": [ENTRY | entry for entry in entries]}))
        hub = Hub(endpoint=standin.url, cache=tmp_path / "hub", pins=Pins(tmp_path / "lock.json"), answer_s=2)
        return ModelLoader(load_zoo(tmp_path / "zoo.yaml"), hub=hub, device="cpu", **options)

    return make


def local(folder, model_id="mine", **more):
    return {"id": model_id, "source": str(folder), **more}


def remote(repo="someone/detector", model_id="mine", **more):
    return {"id": model_id, "source": repo, "revision": "main", **more}


# --- what serves, and what is said of it -----------------------------------------------------------------------------


def test_a_bundled_model_serves_at_once(loader_of, tiny_folders):
    loader = loader_of()
    assert loader.status("bundled-resnet").state is LoadState.BUNDLED
    model = loader.load("bundled-resnet")
    assert isinstance(model, ImageClassifier)
    digest = hashlib.sha256((tiny_folders["resnet"] / "model.safetensors").read_bytes()).hexdigest()
    assert model.status.weights_sha256 == digest
    assert (model.status.loaded_from, model.status.reason) == ("bundled-resnet", "")
    assert loader.status("bundled-resnet") is model.status
    assert next(model.module.parameters()).dtype == torch.float32


def test_a_local_folder_is_the_fine_tuned_model_and_its_labels_are_renamed(loader_of, tiny_folders):
    loader = loader_of(local(tiny_folders["vit"], labels={"Fake": "generated", "real": "photo"}))
    model = loader.load("mine")
    assert (model.status.state, model.status.loaded_from) == (LoadState.FINE_TUNED, str(tiny_folders["vit"]))
    assert model.labels == ("generated", "photo")


def test_a_hub_model_is_downloaded_once_and_named_with_its_commit(loader_of, standin, tiny_folders):
    commit = standin.add("someone/detector", tiny_folders["vit"]).refs["main"]
    told = []
    loader = loader_of(remote(), progress=lambda *news: told.append(news))
    assert loader.status("mine").reason == "not on this machine yet: the first use downloads 7 MB"
    assert loader.status("mine").state is LoadState.FINE_TUNED
    assert standin.asked == []
    status = loader.load("mine").status
    assert (status.state, status.loaded_from) == (LoadState.FINE_TUNED, f"someone/detector@{commit}")
    assert {news[0] for news in told} == {"mine"}
    assert told[-1] == ("mine", 1.0, "ready")
    standin.asked.clear()
    assert loader_of(remote()).status("mine").reason == ""
    assert standin.asked == []


def test_the_base_answers_where_the_fine_tuned_weights_cannot_be_had(loader_of, standin, tiny_folders):
    standin.add("someone/detector", tiny_folders["vit"], "private")
    commit = standin.add("someone/base", tiny_folders["resnet"]).refs["main"]
    status = loader_of(remote(base="someone/base", fallback="bundled-vit")).load("mine").status
    assert (status.state, status.loaded_from) == (LoadState.BASE, f"someone/base@{commit}")
    assert status.reason.startswith(f"someone/base@{commit} answers instead: someone/detector is private")
    assert "hf auth login" in status.remedy


def test_the_bundled_model_answers_where_neither_can_be_had(loader_of, standin, tiny_folders):
    standin.add("someone/base", tiny_folders["resnet"], "gated")
    loader = loader_of(remote(base="someone/base", fallback="bundled-vit", labels={"Fake": "fake"}))
    model = loader.load("mine")
    assert (model.status.state, model.status.loaded_from) == (LoadState.BUNDLED, "bundled-vit")
    assert model.spec.id == "mine"
    assert "someone/detector is private, or there is no such repository" in model.status.reason
    assert "someone/base is gated" in model.status.reason
    assert model.status.remedy
    assert loader.status("mine") is model.status
    assert model.status.weights_sha256 == loader.load("bundled-vit").status.weights_sha256


def test_without_any_way_out_the_error_has_reason_and_remedy(loader_of, standin, tiny_folders):
    standin.add("someone/detector", tiny_folders["vit"], "gated")
    loader = loader_of(remote())
    with pytest.raises(ModelUnavailableError, match="mine: someone/detector is gated") as failure:
        loader.load("mine")
    assert "ask for access" in failure.value.remedy
    assert "\n" not in str(failure.value)
    status = loader.status("mine")
    assert (status.state, status.loaded_from) == (LoadState.UNAVAILABLE, "")
    assert "ask for access" in status.remedy
    assert loader.load("bundled-resnet").status.state is LoadState.BUNDLED


def test_the_private_entry_of_the_own_zoo_is_unavailable_and_the_others_go_on(loader_of, standin):
    loader = loader_of()
    assert loader.status("wild-fake").state is LoadState.UNAVAILABLE
    assert "private" in loader.status("wild-fake").reason
    with pytest.raises(ModelUnavailableError, match="Aaditya2763/wild-fake-detector is private"):
        loader.load("wild-fake")
    assert standin.asked == []


def test_offline_says_what_to_copy_and_falls_back(loader_of):
    loader = loader_of(remote(fallback="bundled-resnet"))
    loader.hub.offline = True
    status = loader.status("mine")
    assert (status.state, status.loaded_from) == (LoadState.BUNDLED, "bundled-resnet")
    assert "not on this machine and the hub is not to be used" in status.reason
    assert "hf download someone/detector --revision main" in status.remedy
    assert loader.load("mine").status.state is LoadState.BUNDLED


def test_an_unknown_id_is_answered_with_the_known_ones(loader_of):
    for ask in (loader_of().load, loader_of().status, loader_of().release):
        with pytest.raises(ZooError, match="known are: bundled-resnet"):
            ask("nothing")


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt", "model.pkl", "MODEL.PTH"])
def test_a_pickle_is_refused_before_it_is_opened(loader_of, tmp_path, tiny_folders, name):
    folder = tmp_path / "pickled"
    folder.mkdir()
    for file in ("config.json", "preprocessor_config.json"):
        shutil.copy(tiny_folders["vit"] / file, folder)
    torch.save({"weight": torch.zeros(1)}, folder / name)
    (folder / name).chmod(0)
    loader = loader_of(local(folder))
    with pytest.raises(UnsafeWeightsError, match=f"only as a pickle .{name}") as refusal:
        loader.load("mine")
    assert "safetensors" in refusal.value.remedy
    assert loader.status("mine").state is LoadState.UNAVAILABLE


def test_a_pickle_beside_safetensors_is_left_alone(loader_of, tmp_path, tiny_folders):
    folder = shutil.copytree(tiny_folders["vit"], tmp_path / "both")
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert loader_of(local(folder)).load("mine").status.state is LoadState.FINE_TUNED


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-500]), "cut off"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>"), r"damaged or cut off \(6 bytes on disk\)"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda f: (f / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be loaded as an image classifier"),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "cannot be loaded as an image classifier"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_a_damaged_folder_gets_one_clear_line(loader_of, tmp_path, tiny_folders, damage, message):
    folder = shutil.copytree(tiny_folders["resnet"], tmp_path / "damaged")
    damage(folder)
    with pytest.raises(ModelUnavailableError, match=message) as failure:
        loader_of(local(folder)).load("mine")
    assert "\n" not in str(failure.value)
    assert str(folder) in str(failure.value)


def test_shards_are_loaded_and_a_missing_or_foreign_one_is_named(loader_of, tmp_path, tiny_folders):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folders["resnet"], tmp_path / "sharded")
    whole = load_file(folder / "model.safetensors")
    names = sorted(whole)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: whole[key] for key in keys}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {key: file for file, keys in parts.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model = loader_of(local(folder)).load("mine")
    joined = b"".join((folder / file).read_bytes() for file in parts)
    assert model.status.weights_sha256 == hashlib.sha256(joined).hexdigest()
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="lacks the weight file model-00002-of-00002"):
        loader_of(local(folder)).load("mine")
    index["weight_map"][names[0]] = "../../elsewhere.bin"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeWeightsError, match="which is no safetensors file of this folder"):
        loader_of(local(folder)).load("mine")


# --- memory, threads, time -------------------------------------------------------------------------------------------


def test_the_model_unused_longest_goes_first_and_release_drops_the_rest(loader_of, tiny_folders):
    loader = loader_of(local(tiny_folders["vit"]), max_models=2)
    first = loader.load("bundled-resnet")
    loader.load("bundled-vit")
    assert loader.load("bundled-resnet") is first
    loader.load("mine")
    assert loader.loaded == ("bundled-resnet", "mine")
    loader.release("mine")
    assert loader.loaded == ("bundled-resnet",)
    loader.release()
    assert loader.loaded == ()
    assert loader.load("bundled-resnet") is not first
    with pytest.raises(ValueError, match="at least 1"):
        loader_of(max_models=0)


def test_two_threads_that_want_one_model_load_it_once(loader_of, monkeypatch):
    loader = loader_of()
    counted = []
    real = ModelLoader._serve
    monkeypatch.setattr(
        ModelLoader, "_serve", lambda self, spec, *more: (counted.append(spec.id), real(self, spec, *more))[1]
    )
    got = []
    threads = [threading.Thread(target=lambda: got.append(loader.load("bundled-vit"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == ["bundled-vit"]
    assert len(got) == 4
    assert len({id(model) for model in got}) == 1


def test_a_download_that_hangs_blocks_neither_the_status_nor_other_models(loader_of, standin, tiny_folders):
    standin.add("someone/detector", tiny_folders["vit"], "stalls")
    loader = loader_of(remote())
    loader.hub.stall_s = 30

    def wait():
        with pytest.raises(ModelUnavailableError):
            loader.load("mine")

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while not any("model.safetensors" in path for path in standin.paths("GET")):
        time.sleep(0.01)
    begin = time.monotonic()
    assert loader.status("mine").state is LoadState.FINE_TUNED
    assert time.monotonic() - begin < 0.5
    assert loader.load("bundled-resnet").status.state is LoadState.BUNDLED
    assert waiting.is_alive()
    loader.hub.stall_s = 0.0
    waiting.join(20)
    assert loader.status("mine").state is LoadState.UNAVAILABLE


def test_a_source_that_failed_is_left_alone_for_a_while_and_then_tried_again(
    loader_of, standin, tiny_folders, monkeypatch
):
    repo = standin.add("someone/detector", tiny_folders["vit"], "down")
    loader = loader_of(remote(fallback="bundled-resnet"), remote(model_id="twin"))
    assert loader.load("mine").status.state is LoadState.BUNDLED
    standin.asked.clear()
    repo.fault = ""
    assert loader.load("mine").status.state is LoadState.BUNDLED
    with pytest.raises(ModelUnavailableError, match="the hub answered 500"):
        loader.load("twin")
    assert standin.asked == []
    monkeypatch.setattr(loading, "RETRY_S", 0.0)
    assert loader.load("mine").status.state is LoadState.FINE_TUNED


def test_release_makes_the_next_use_try_anew(loader_of, standin, tiny_folders):
    repo = standin.add("someone/detector", tiny_folders["vit"], "down")
    loader = loader_of(remote(fallback="bundled-resnet"))
    assert loader.load("mine").status.state is LoadState.BUNDLED
    repo.fault = ""
    loader.release("mine")
    assert loader.load("mine").status.state is LoadState.FINE_TUNED


# --- detectors -------------------------------------------------------------------------------------------------------


def test_a_detector_whose_pickle_cannot_be_had_is_served_by_the_bundled_one(loader_of, monkeypatch, tmp_path):
    (tmp_path / "bundled" / "yolov8n-coco").mkdir()
    (tmp_path / "bundled" / "yolov8n-coco" / "model.safetensors").write_bytes(safetensors_bytes())
    seen = []
    monkeypatch.setattr(
        "models.detector.load_detector",
        lambda spec, path, status, device: seen.append((spec.id, path.name, status)) or "detector",
    )
    loader = loader_of()
    assert loader.load("yolov8n") == "detector"
    ((asked, folder, status),) = seen
    assert (asked, folder) == ("yolov8n", "yolov8n-coco")
    assert (status.state, status.loaded_from) == (LoadState.BUNDLED, "bundled-yolov8n")
    assert "Ultralytics/YOLOv8 is private, or there is no such repository" in status.reason


def test_a_detectors_file_comes_from_the_hub_and_a_refusal_of_it_falls_back(loader_of, monkeypatch, tmp_path, standin):
    (tmp_path / "bundled" / "yolov8n-coco").mkdir()
    (tmp_path / "bundled" / "yolov8n-coco" / "model.safetensors").write_bytes(safetensors_bytes())
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "yolov8n.pt").write_bytes(b"a pickle")
    standin.add("Ultralytics/YOLOv8", tmp_path / "repo")
    seen = []

    def restricted(spec, path, status, device):
        seen.append(path.name)
        if path.suffix == ".pt":
            raise UnsafeWeightsError("yolov8n.pt holds more than a network", "get it from Ultralytics")
        return type("Detector", (), {"status": status})

    monkeypatch.setattr("models.detector.load_detector", restricted)
    status = loader_of().load("yolov8n").status
    assert seen == ["yolov8n.pt", "yolov8n-coco"]
    assert status.reason == "bundled-yolov8n answers instead: yolov8n.pt holds more than a network"
    assert status.remedy == "get it from Ultralytics"


def safetensors_bytes():
    from safetensors.torch import save

    return save({"weight": torch.zeros(2)})
