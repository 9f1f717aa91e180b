from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rag.__main__ import main
from rag.schema import VERDICTS
from tests.tiny_rag import striped, write_corpus

BUNDLED = Path(__file__).parent.parent / "assets" / "bundled" / "openclip-small"
pytestmark = pytest.mark.skipif(
    not list(BUNDLED.glob("*.safetensors")), reason="the bundled image-text model is not in assets/bundled"
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_corpus(tmp_path_factory.mktemp("cli") / "corpus")
    (root / "broken.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="module")
def index(corpus: Path) -> Path:
    place = corpus.parent / "index"
    assert main(["build", str(corpus), "--index", str(place), "--offline"]) == 0
    return place


def test_building_again_says_that_nothing_is_new(index: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(corpus), "--index", str(index), "--offline", "--json"]) == 0
    told = capsys.readouterr()
    figures = json.loads(told.out)
    assert (figures["files"], figures["written"], figures["unchanged"], figures["chunks"]) == (6, 0, 5, 6)
    assert "broken.jpg: " in told.err


def test_a_question_is_answered_with_its_evidence(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "Whose is the red car?", "--index", str(index), "--offline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "The red car belongs to Kowalski." in told["answer"]
    assert told["evidence"][0]["number"] == 1
    assert {"note.md#0", "photos/car.png#0"} <= {one["id"] for one in told["evidence"]}
    assert told["check"] is None


def test_an_answer_about_a_picture_is_checked(index: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = str(corpus / "photos" / "car.png")
    command = ["ask", "What stands on the street?", "--index", str(index), "--image", picture, "--offline", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["check"]["answer"] == told["answer"]
    for claim in told["check"]["claims"]:
        assert claim["claim"] == told["answer"][claim["start"] : claim["end"]]
        assert claim["verdict"] in VERDICTS


def test_a_pasted_answer_is_checked_claim_by_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    striped("red", "white").save(tmp_path / "a.png")
    assert main(["verify", str(tmp_path / "a.png"), "A red car stands here. Two dogs run.", "--offline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("%  ")[1].split(" at ")[0] for line in lines[:2]] == ["A red car stands here.", "Two dogs run."]
    assert " of 2 claims supported (95 % interval " in lines[2]


def test_a_vision_language_model_is_asked_about_each_claim(
    tiny_vlm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {
        "id": "tiny-vlm", "name": "Tiny", "task": "deepfake", "kind": "vlm", "family": "paligemma",
        "source": str(tiny_vlm("paligemma")), "question": "Is it?", "answers": {"0": "fake", "1": "real"},
        "licence": "MIT", "size_mb": 1, "memory_mb": 1,
    }  # fmt: skip
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text(yaml.safe_dump({"models": [entry]}), encoding="utf-8")
    striped("red", "white").save(tmp_path / "a.png")
    command = ["verify", str(tmp_path / "a.png"), "A red car stands here. Two dogs run.", "--offline"]
    command += ["--zoo", str(zoo), "--vlm", "tiny-vlm"]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    asked = [claim["signals"]["vqa"] for claim in told["claims"]]
    assert len(asked) == 2
    assert "no weight to what tiny-vlm answers" in told["note"]
    assert all("vqa" not in claim["contributions"] for claim in told["claims"])
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"log-odds of yes {asked[0]:+.2f}" in lines[1]


def test_regions_are_searched_for_in_an_index(index: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(corpus / "photos" / "car.png"), "A red car stands here.", "--offline"]
    assert main([*command, "--index", str(index), "--json"]) == 0
    (claim,) = json.loads(capsys.readouterr().out)["claims"]
    assert {one["source"] for one in claim["similar"]} == {f"photos/{name}.png" for name in ("car", "tree", "plain")}
    scores = [one["score"] for one in claim["similar"]]
    assert scores == sorted(scores, reverse=True)
    assert main([*command, "--index", str(index)]) == 0
    assert capsys.readouterr().out.count("region looks like photos/") == 3


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["build", "{}/absent", "--index", "{}/i"], "no such folder"),
        (["ask", "What?", "--index", "{}/absent"], "python -m rag build"),
        (["verify", "{}/absent.jpg", "A car."], "no such file"),
        (["verify", "{}/a.png", "Is it?"], "no claim"),
        (["verify", "{}/a.png", "A car.", "--finer"], "EXHIBIT_ENDPOINT_URL"),
        (["verify", "{}/a.png", "A car.", "--model", "bundled-resnet"], "image-text model"),
        (["verify", "{}/a.png", "A car.", "--vlm", "bundled-resnet"], "no vision-language model"),
        (["verify", "{}/a.png", "A car.", "--vlm", "no-such"], "no-such"),
        (["verify", "{}/a.png", "A car.", "--index", "{}/absent"], "python -m rag build"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("EXHIBIT_ENDPOINT_URL", raising=False)
    striped("red", "white").save(tmp_path / "a.png")
    assert main([part.format(tmp_path) for part in command] + ["--offline"]) == 2
    told = capsys.readouterr()
    assert message in told.err.splitlines()[-1]
    assert told.out == ""
