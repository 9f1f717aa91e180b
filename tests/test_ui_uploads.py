"""No request written by hand reads another file of the server than one that was uploaded."""

import hashlib
import json
import urllib.error
import urllib.request

import pytest
from PIL import Image

from ui.build import build_app, launch_options
from ui.files import check_upload, fresh_path
from ui.services import Services

FILES = ("image", "file", "uploadbutton")


@pytest.fixture(scope="module")
def address(tiny_zoo_file, tmp_path_factory):
    from models.loading import ModelLoader
    from models.registry import load_zoo

    loader = ModelLoader(load_zoo(tiny_zoo_file), offline=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        app = build_app(Services(zoo=loader.zoo, loader=loader, examples=()))
        _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, _frontend=False, **launch_options())
        yield url.rstrip("/")
        app.close()


def post(address: str, listener: int, data: list) -> str:
    body = json.dumps({"data": data, "fn_index": listener, "session_hash": "by-hand"}).encode()
    request = urllib.request.Request(
        f"{address}/gradio_api/run/predict", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_no_listener_reads_a_picture_of_the_server(address, tmp_path, meta):
    secret = tmp_path / "secret-of-the-operator.png"
    Image.new("RGB", (320, 240), (200, 30, 30)).save(secret)
    with urllib.request.urlopen(f"{address}/config", timeout=60) as answer:
        config = json.loads(answer.read())
    parts = {part["id"]: part for part in config["components"]}
    asked = 0
    for listener in config["dependencies"]:
        kinds = [parts[number]["type"] for number in listener["inputs"]]
        if not set(kinds) & set(FILES):
            continue
        file = {"path": str(secret), "orig_name": "brought.png"} | meta
        data = [
            [file] if kind == "file" else file if kind in FILES else parts[number]["props"].get("value")
            for kind, number in zip(kinds, listener["inputs"], strict=True)
        ]
        told = post(address, listener["id"], data)
        asked += 1
        # What was read would be told by its hash or its size, or shown as a copy in the cache.
        assert "320 × 240" not in told and hashlib.sha256(secret.read_bytes()).hexdigest()[:12] not in told
        assert "secret-of-the-operator" not in told, (listener["api_name"], told[:300])
    assert asked >= 8


def test_only_what_lies_in_the_upload_folder_is_an_upload(monkeypatch, tmp_path):
    from models.errors import ExhibitError

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    brought = fresh_path("brought.txt")
    brought.write_text("mine")
    assert check_upload(brought) == brought
    outside = tmp_path / "outside.txt"
    outside.write_text("not theirs")
    link = brought.with_name("link.txt")
    link.symlink_to(outside)
    for other in (outside, link, brought.parent / ".." / ".." / ".." / ".." / "outside.txt", brought.with_name("gone")):
        with pytest.raises(ExhibitError, match="was not uploaded"):
            check_upload(other)
