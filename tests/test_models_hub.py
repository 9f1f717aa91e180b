"""The real hub client against a stand-in of the hub on loopback."""

import json
import os
import threading
import time
from types import SimpleNamespace

import pytest
from huggingface_hub import file_download

from models.errors import ModelUnavailableError, UnsafeWeightsError
from models.hub import Hub, Pins, Wanted, cache_folder
from models.weights import classifier_weights
from tests.hub_standin import running_hub

REPO = "someone/detector"


@pytest.fixture
def standin():
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(standin, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", standin.url)
    monkeypatch.setenv("EXHIBIT_CACHE", str(tmp_path / "exhibit"))
    monkeypatch.setattr("models.hub.get_token", lambda: None)
    # The client sleeps a second between its own tries.
    monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _s: None, time=time.time))
    return Hub(cache=tmp_path / "hub", answer_s=2, stall_s=10)


def fetch(hub, revision="main", **options):
    return hub.fetch(Wanted(REPO, revision, **options), lambda _share, _text: None)


def test_a_public_repository_arrives_whole_with_progress_up_to_one(standin, hub, tiny_folders):
    repo = standin.add(REPO, tiny_folders["resnet"])
    told = []
    folder, commit = hub.fetch(Wanted(REPO, "main"), lambda share, text: told.append((share, text)))
    assert commit == repo.refs["main"]
    assert classifier_weights(folder)[0].read_bytes() == (tiny_folders["resnet"] / "model.safetensors").read_bytes()
    shares = [share for share, _ in told if share is not None]
    assert told[0][0] is None
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(REPO in text for _, text in told)


def test_only_what_a_classifier_needs_is_downloaded(standin, hub, tiny_folders):
    repo = standin.add(REPO, tiny_folders["vit"])
    repo.files[repo.refs["main"]] |= {"pytorch_model.bin": b"pickle", "run.py": b"evil", "notes.json": b"{}"}
    folder, _ = fetch(hub)
    assert {path.name for path in folder.iterdir()} == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert not any(name in path for path in standin.paths() for name in (".bin", ".py", "notes"))


def test_what_is_here_already_needs_no_hub(standin, hub, tiny_folders):
    standin.add(REPO, tiny_folders["vit"])
    folder, commit = fetch(hub)
    standin.asked.clear()
    assert fetch(hub) == (folder, commit)
    hub.offline = True
    assert fetch(hub) == (folder, commit)
    assert standin.asked == []


def test_main_stays_at_the_commit_of_the_first_download(standin, hub, tiny_folders, tmp_path):
    repo = standin.add(REPO, tiny_folders["vit"])
    first = repo.refs["main"]
    fetch(hub)
    assert json.loads((tmp_path / "exhibit" / "zoo.lock.json").read_text()) == {f"{REPO}@main": first}
    repo.files["b" * 40] = repo.files[first] | {"config.json": b"{}"}
    repo.refs["main"] = "b" * 40
    elsewhere = Hub(cache=tmp_path / "another cache")
    folder, commit = fetch(elsewhere)
    assert commit == first
    assert (folder / "config.json").read_bytes() == repo.files[first]["config.json"]


def test_a_commit_is_taken_as_it_is_and_needs_no_pin(standin, hub, tiny_folders, tmp_path):
    repo = standin.add(REPO, tiny_folders["vit"])
    assert fetch(hub, repo.refs["main"])[1] == repo.refs["main"]
    assert not (tmp_path / "exhibit" / "zoo.lock.json").exists()


def test_one_file_of_a_detector_is_fetched_alone(standin, hub, tmp_path):
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "yolo.pt").write_bytes(b"weights")
    (tmp_path / "yolo" / "other.pt").write_bytes(b"more")
    standin.add(REPO, tmp_path / "yolo")
    path, _ = fetch(hub, file="yolo.pt")
    assert path.read_bytes() == b"weights"
    assert not any("other" in asked for asked in standin.paths())
    with pytest.raises(ModelUnavailableError, match=r"no file third\.pt; correct `file`"):
        fetch(hub, file="third.pt")


def test_a_repository_of_pickles_is_refused_before_any_of_it_is_downloaded(standin, hub, tmp_path):
    (tmp_path / "repo").mkdir()
    for name in ("config.json", "preprocessor_config.json", "pytorch_model.bin"):
        (tmp_path / "repo" / name).write_bytes(b"{}")
    standin.add(REPO, tmp_path / "repo")
    with pytest.raises(UnsafeWeightsError, match=r"only as a pickle \(pytorch_model.bin\)") as refusal:
        fetch(hub)
    assert "safetensors" in refusal.value.remedy
    assert not any("resolve" in path for path in standin.paths())


@pytest.mark.parametrize(
    ("fault", "reason", "remedy"),
    [
        ("private", "private, or there is no such repository", "hf auth login"),
        ("private without a code", "private, or there is no such repository", "hf auth login"),
        ("gated", "its owner must let you in", "ask for access at http://127.0.0.1"),
        ("forbidden", r"the hub refuses .* \(403\)", "token"),
        ("down", "the hub answered 500", "try again later, or run `hf download"),
        ("vanished", "vanished from the hub while it was being downloaded", "try again"),
        ("closes early", "arrived cut off", "try again"),
        ("shorter", "arrived cut off", "try again"),
        ("altered", "arrived damaged", "try again"),
    ],
)
def test_each_way_to_fail_gives_its_reason_and_remedy(standin, hub, tiny_folders, fault, reason, remedy):
    repo = standin.add(REPO, tiny_folders["resnet"], fault)
    with pytest.raises(ModelUnavailableError, match=reason) as failure:
        fetch(hub)
    assert remedy in failure.value.remedy
    assert "\n" not in str(failure.value)
    assert hub.cached(Wanted(REPO, "main")) is None
    repo.fault = ""
    folder, _ = fetch(hub)
    assert classifier_weights(folder)


def test_an_unknown_repository_and_an_unknown_revision_are_named(standin, hub, tiny_folders):
    with pytest.raises(ModelUnavailableError, match="no such repository"):
        fetch(hub)
    standin.add(REPO, tiny_folders["vit"])
    with pytest.raises(ModelUnavailableError, match="no revision 'v9'; correct `revision`"):
        fetch(hub, "v9")


def test_a_hub_that_does_not_answer_is_given_up_in_time(standin, hub, tiny_folders):
    standin.add(REPO, tiny_folders["vit"], "mute")
    hub.answer_s = 0.3
    begin = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="did not answer in time"):
        fetch(hub)
    assert time.monotonic() - begin < 5


def test_a_download_that_stalls_is_given_up_and_ends(standin, hub, tiny_folders):
    standin.add(REPO, tiny_folders["vit"], "stalls")
    hub.stall_s = 1.0
    begin = time.monotonic()
    with pytest.raises(ModelUnavailableError, match="too slow: given up"):
        fetch(hub)
    assert time.monotonic() - begin < 6
    standin.stopped.set()
    worker = [thread for thread in threading.enumerate() if thread.name == f"download {REPO}"]
    for thread in worker:
        thread.join(10)
    assert hub.cached(Wanted(REPO, "main")) is None


def test_no_network_says_what_to_copy_where(hub, tmp_path):
    hub.endpoint = "http://127.0.0.1:9"
    with pytest.raises(ModelUnavailableError, match="not on this machine and the hub cannot be reached") as failure:
        fetch(hub)
    assert f"hf download {REPO} --revision main" in failure.value.remedy
    assert str(tmp_path / "hub" / "models--someone--detector") in failure.value.remedy


def test_offline_and_closed_doors_without_a_token_ask_nothing(standin, hub, tiny_folders):
    standin.add(REPO, tiny_folders["vit"])
    for access in ("private", "gated"):
        with pytest.raises(ModelUnavailableError, match=f"is {access} and there is no access token"):
            fetch(hub, access=access)
    hub.offline = True
    with pytest.raises(ModelUnavailableError, match="offline"):
        fetch(hub)
    assert standin.asked == []


def test_a_cache_copied_from_another_machine_serves_without_a_lock_file(standin, hub, tiny_folders, tmp_path):
    standin.add(REPO, tiny_folders["vit"])
    fetch(hub)
    away = Hub(endpoint="http://127.0.0.1:9", cache=hub.cache, pins=Pins(tmp_path / "new" / "lock.json"))
    # `hf download` leaves refs/main behind; Exhibit asks for the commit itself.
    refs = hub.cache / "models--someone--detector" / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(standin.repos[REPO].refs["main"])
    assert fetch(away) == fetch(hub)


def test_half_a_snapshot_does_not_pass_for_a_whole_one(standin, hub, tiny_folders):
    standin.add(REPO, tiny_folders["vit"])
    folder, _ = fetch(hub)
    (folder / "model.safetensors").unlink()
    assert hub.cached(Wanted(REPO, "main")) is None
    assert classifier_weights(fetch(hub)[0])


def test_nothing_is_told_about_this_machine(standin, hub, tiny_folders):
    standin.add(REPO, tiny_folders["vit"])
    fetch(hub)
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert all("torch" not in headers.get("user-agent", "").lower() for _, _, headers in standin.asked)
    assert all(path.startswith((f"/api/models/{REPO}/", f"/{REPO}/resolve/")) for path in standin.paths())


def test_two_programs_pin_at_once_without_losing_either(tmp_path):
    pins = [Pins(tmp_path / "lock.json") for _ in range(8)]
    threads = [
        threading.Thread(target=pin.put, args=(f"a/m{number}", "main", f"{number:040x}"))
        for number, pin in enumerate(pins)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [pins[0].get(f"a/m{number}", "main") for number in range(8)] == [f"{number:040x}" for number in range(8)]
    pins[0].put("a/m0", "main", "f" * 40)
    assert pins[1].get("a/m0", "main") == f"{0:040x}"


def test_a_damaged_lock_file_is_named(tmp_path):
    (tmp_path / "lock.json").write_text("{")
    with pytest.raises(ModelUnavailableError, match=r"lock file .* cannot be read; delete it"):
        Pins(tmp_path / "lock.json").get("a/b", "main")


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("EXHIBIT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EXHIBIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert str(cache_folder()) == "/var/cache/me/exhibit"
