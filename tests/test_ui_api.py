"""The endpoints through the real HTTP server and the real client; tiny real models."""

import asyncio
import importlib.util
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from ui.build import build_app, launch_options
from ui.examples import generate_picture
from ui.services import Services


@pytest.fixture(scope="module")
def loader(tiny_zoo_file):
    from models.loading import ModelLoader
    from models.registry import load_zoo

    return ModelLoader(load_zoo(tiny_zoo_file), offline=True)


@pytest.fixture(scope="module")
def client(loader, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        app = build_app(Services(zoo=loader.zoo, loader=loader, examples=()))
        served = {"mcp_server": importlib.util.find_spec("mcp") is not None, "_frontend": False}
        _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, **served, **launch_options())
        yield Client(url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))
        app.close()


ENDPOINTS = {"ask", "compare", "examine", "heatmap", "models", "triage", "verify", "whatif"}


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "made here.png"
    path.write_bytes(generate_picture())
    return str(path)


def test_only_the_promised_endpoints_are_public(client):
    assert sorted(client.view_api(return_format="dict")["named_endpoints"]) == [
        "/ask",
        "/compare",
        "/examine",
        "/heatmap",
        "/models",
        "/triage",
        "/verify",
        "/whatif",
    ]


def test_models_lists_every_model_with_its_status(client, loader):
    listed = {entry["id"]: entry for entry in client.predict(api_name="/models")}
    assert set(listed) == set(loader.zoo.specs)
    assert listed["tiny-resnet"]["status"]["state"] == "fine-tuned"
    assert listed["wild-fake"]["status"]["state"] == "unavailable"
    assert listed["wild-fake"]["status"]["remedy"]
    assert listed["wild-fake"]["access"] == "private"
    assert listed["tiny-resnet"]["kind"] == "classifier"
    assert listed["tiny-resnet"]["memory_mb"] == 10
    assert listed["tiny-resnet"]["loaded"] in (True, False)


def test_examine_answers_step_by_step_and_ends_with_files(client, picture):
    job = client.submit(
        image=handle_file(picture),
        models=["tiny-resnet", "tiny-vit"],
        methods=["gradcam", "layercam"],
        detector="none",
        api_name="/examine",
    )
    findings, overlays, bundle = job.result()
    steps = [step[0] for step in job.outputs()]
    assert [len(step["predictions"]) for step in steps] == [0, 1, 2]
    assert findings["complete"] is True
    assert findings["image"]["name"] == "made here.png"
    assert findings["verdict"]["label"] in ("fake", "real")
    assert sum(findings["predictions"][0]["probabilities"].values()) == pytest.approx(1)
    drawn = {(entry["model"], entry["method"]) for entry in findings["heatmaps"]}
    assert drawn
    assert all(entry["raw_max"] > entry["raw_min"] for entry in findings["heatmaps"])
    assert len(overlays) == len(drawn)
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in overlays)
    with zipfile.ZipFile(bundle) as packed:
        assert sum(name.endswith("/manifest.json") for name in packed.namelist()) == 1


def test_heatmap_is_exact_png_with_its_raw_range(client, loader, picture):
    path, found = client.predict(
        image=handle_file(picture), model="tiny-vit", method="layercam", target="fake", api_name="/heatmap"
    )
    assert found["target"] == "logit:fake"
    assert found["raw_max"] > found["raw_min"]
    assert found["prediction"]["model"] == "tiny-vit"
    with Image.open(path) as overlay:
        assert overlay.format == "PNG"
        assert overlay.size == (512, 512)
        # Where the map is zero, the photo is unchanged to the byte.
        from explain.examination import Settings, examine
        from models.imaging import read_image

        source = read_image(picture)
        settings = Settings("deepfake", ("tiny-vit",), ("layercam",), target="fake", detector=None)
        values = examine(source, settings, loader).heatmap("tiny-vit", "layercam").values
        cold = values == 0
        assert np.array_equal(np.asarray(overlay.convert("RGB"))[cold], np.asarray(source.rgb)[cold])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"models": ["no-such"]}, "no model is called"),
        ({"methods": ["no-such"]}, "no method"),
        ({"task": "no-such", "models": []}, "no model answers the task"),
    ],
)
def test_wrong_request_is_one_line_that_names_what_is_known(client, picture, arguments, words):
    with pytest.raises(Exception, match=words) as caught:
        client.predict(image=handle_file(picture), **({"models": ["tiny-vit"]} | arguments), api_name="/examine")
    assert "Traceback" not in str(caught.value)


def test_file_that_is_no_picture_is_refused_in_one_line(client, tmp_path):
    bad = tmp_path / "text.jpg"
    bad.write_text("hello")
    with pytest.raises(Exception, match="not an image"):
        client.predict(image=handle_file(str(bad)), api_name="/examine")


def test_mcp_serves_the_same_functions_with_their_docstrings(client):
    pytest.importorskip("mcp", reason="the package mcp is not installed")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def ask():
        address = f"{client.src.rstrip('/')}/gradio_api/mcp/"
        async with streamablehttp_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            listed = await session.call_tool(next(t.name for t in tools if t.name.endswith("models")), {})
            return tools, listed

    # In a thread of its own: a browser that is open for other tests keeps an event loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        tools, listed = pool.submit(asyncio.run, ask()).result()
    described = {tool.name.rsplit("_", 1)[-1]: tool for tool in tools}
    assert set(described) == ENDPOINTS
    assert "which pixels of a picture one model used" in described["heatmap"].description
    assert set(described["heatmap"].inputSchema["properties"]) == {"image", "model", "method", "target"}
    assert "tiny-vit" in json.dumps([content.model_dump() for content in listed.content], default=str)


def test_every_private_listener_stays_private(client):
    dependencies = client.config["dependencies"]
    public = {entry["api_name"] for entry in dependencies if entry["api_visibility"] == "public"}
    assert public == ENDPOINTS


def test_all_that_runs_a_model_shares_one_queue(loader):
    app = build_app(Services(zoo=loader.zoo, loader=loader, examples=()))
    limits = {
        (fn.api_name, fn.concurrency_id, fn.concurrency_limit)
        for fn in app.fns.values()
        if fn.concurrency_id == "models"
    }
    assert {name for name, _, _ in limits} >= {"ask", "examine", "heatmap", "verify", "whatif"}
    # The five endpoints; the page's examination, what models write, the two questions of What if, and of Verify the
    # question (by its button or the keyboard), the claims of an answer, the picture of one and what is like its region.
    assert len(limits) == 14
    assert {limit for _, _, limit in limits} == {1}


def test_questions_for_vision_language_models_are_optional_and_described(client):
    parameters = client.view_api(return_format="dict")["named_endpoints"]["/examine"]["parameters"]
    asked = {entry["parameter_name"]: entry for entry in parameters}
    for name in ("question", "style", "compare_base", "precision", "layer"):
        assert asked[name]["parameter_has_default"], name
    assert [entry["parameter_name"] for entry in parameters][:7] == [
        "image",
        "task",
        "models",
        "methods",
        "target",
        "detector",
        "bundle",
    ]


def test_claims_are_checked_by_the_models_that_a_program_names(client, picture):
    parameters = client.view_api(return_format="dict")["named_endpoints"]["/verify"]["parameters"]
    named = [entry["parameter_name"] for entry in parameters]
    assert named == ["image", "answer", "domain", "heatmaps", "model", "vlm", "index"]
    assert all(entry["parameter_has_default"] for entry in parameters[2:])
    told, files = client.predict(
        image=handle_file(picture), answer="A red car.", heatmaps=True, model="bundled-openclip", api_name="/verify"
    )
    (claim,) = told["claims"]
    assert [word["word"] for word in claim["words"]] == ["A", "red", "car"]
    assert [Path(file).name for file in files] == ["claim-1.png"]
    for wrong in ({"model": "tiny-vit"}, {"vlm": "tiny-vit"}):
        with pytest.raises(Exception, match="tiny-vit is no") as caught:
            client.predict(image=handle_file(picture), answer="A red car.", **wrong, api_name="/verify")
        assert "Traceback" not in str(caught.value)
