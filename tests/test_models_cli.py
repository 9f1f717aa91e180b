"""``python -m models`` by its words: results on standard output, the rest on standard error, 0 or 2."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from PIL import Image

from models import registry
from models.__main__ import PRECISIONS, main
from models.schema import Precision


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_the_list_names_every_model_with_its_state_and_remedy(capsys):
    assert main(["list", "--offline"]) == 0
    out = capsys.readouterr().out
    for model_id in ("bundled-resnet", "dima806-deepfake", "wild-fake", "yolov8n"):
        assert f"\n{model_id} " in f"\n{out}"
    assert "-> run `hf download dima806/deepfake_vs_real_image_detection --revision main`" in out


def test_the_list_as_json_holds_entries_and_states(capsys, tiny_zoo_file):
    assert main(["list", "--offline", "--json", "--zoo", str(tiny_zoo_file)]) == 0
    rows = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["tiny-vit"]["status"]["state"] == "fine-tuned"
    assert rows["wild-fake"]["status"]["state"] == "unavailable"
    assert rows["wild-fake"]["access"] == "private"


def test_a_prediction_as_json_holds_probabilities_and_the_verdict(capsys, photo, tiny_zoo_file):
    asked = ["predict", photo, "--task", "deepfake", "--model", "tiny-resnet", "tiny-vit"]
    assert main([*asked, "--zoo", str(tiny_zoo_file), "--json"]) == 0
    captured = capsys.readouterr()
    (result,) = json.loads(captured.out)
    assert result["image"] == photo
    assert [one["model_id"] for one in result["predictions"]] == ["tiny-resnet", "tiny-vit"]
    for one in result["predictions"]:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
    mean = sum(one["probabilities"]["fake"] for one in result["predictions"]) / 2
    assert result["verdict"]["probabilities"]["fake"] == pytest.approx(mean)
    assert "loading Tiny" in captured.err


def test_a_prediction_in_words_names_label_share_and_state(capsys, photo, tiny_zoo_file):
    assert main(["predict", photo, "--task", "deepfake", "--model", "tiny-vit", "--zoo", str(tiny_zoo_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == photo
    assert lines[1].startswith("  tiny-vit: ")
    assert "; fine-tuned)" in lines[1]
    assert lines[2].startswith("  verdict: ")


def test_a_model_that_cannot_be_had_does_not_stop_the_others(capsys, photo, tiny_zoo_file):
    asked = ["predict", photo, "--task", "ai-image", "--model", "wild-fake", "--offline"]
    assert main(asked) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "wild-fake: Aaditya2763/wild-fake-detector is" in captured.err
    zoo = tiny_zoo_file.read_text().replace("task: deepfake", "task: ai-image")
    Path(photo).with_name("zoo.yaml").write_text(zoo)
    asked += ["--zoo", str(Path(photo).with_name("zoo.yaml"))]
    asked[asked.index("wild-fake") : asked.index("wild-fake") + 1] = ["wild-fake", "tiny-vit"]
    assert main(asked) == 0
    assert "not asked: wild-fake:" in capsys.readouterr().out


def test_a_bad_picture_costs_two_but_the_good_ones_are_answered(capsys, photo, tiny_zoo_file, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    asked = ["predict", str(tmp_path / "bad.jpg"), photo, "--task", "deepfake", "--model", "tiny-vit"]
    assert main([*asked, "--zoo", str(tiny_zoo_file)]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith(photo)
    assert "bad.jpg" in captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "cats"], "no model answers the task 'cats'; known tasks are"),
        (["--task", "deepfake", "--model", "nothing"], "no model is called 'nothing'; known are"),
        (["--task", "deepfake", "--model", "wild-fake"], "wild-fake answers ai-image, not deepfake; choose among"),
        (["--task", "deepfake", "--zoo", "/nowhere/zoo.yaml"], "the zoo file cannot be read"),
    ],
)
def test_wrong_arguments_get_one_line_and_two(capsys, photo, arguments, message):
    assert main(["predict", photo, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_without_a_choice_the_bundled_models_answer(capsys, photo, tiny_folders, monkeypatch, tmp_path):
    for name, tiny in (("resnet-deepfake", "resnet"), ("vit-deepfake", "vit")):
        (tmp_path / "bundled").mkdir(exist_ok=True)
        (tmp_path / "bundled" / name).symlink_to(tiny_folders[tiny])
    monkeypatch.setattr(registry, "BUNDLED_ROOT", tmp_path / "bundled")
    assert main(["predict", photo, "--task", "deepfake", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert [one["model_id"] for one in result["predictions"]] == ["bundled-resnet", "bundled-vit"]


def test_the_command_line_itself_is_checked_before_anything_heavy_is_imported():
    command = [sys.executable, "-X", "importtime", "-m", "models", "predict"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 2
    assert "the following arguments are required: IMAGE, --task" in run.stderr
    assert "transformers" not in run.stderr
    assert "torch" not in run.stderr


@pytest.fixture
def tiny_vlm_zoo(tiny_vlm, tmp_path):
    """A zoo file with a tiny PaliGemma, and one that needs trust."""
    entry = {
        "id": "tiny-vlm",
        "name": "Tiny PaliGemma",
        "task": "deepfake",
        "kind": "vlm",
        "family": "paligemma",
        "source": str(tiny_vlm("paligemma")),
        "question": "Is this image made by AI?",
        "hint": "Look at the eyes.",
        "answers": {"0": "fake", "1": "real"},
        "licence": "MIT",
        "size_mb": 1,
        "memory_mb": 10,
    }
    entries = [entry, entry | {"id": "coded", "remote_code": True}]
    (tmp_path / "vlms.yaml").write_text(yaml.safe_dump({"models": entries}), encoding="utf-8")
    return str(tmp_path / "vlms.yaml")


def test_a_vision_language_model_is_asked_the_question_given(capsys, photo, tiny_vlm_zoo):
    asked = ["predict", photo, "--task", "deepfake", "--model", "tiny-vlm", "--zoo", tiny_vlm_zoo]
    assert main([*asked, "--json"]) == 0
    (own,) = json.loads(capsys.readouterr().out)[0]["predictions"]
    assert (own["question"], own["style"]) == ("Is this image made by AI?", "plain")
    assert main([*asked, "--json", "--question", "진짜입니까?", "--style", "informed", "--precision", "bf16"]) == 0
    (other,) = json.loads(capsys.readouterr().out)[0]["predictions"]
    assert other["question"] == "Look at the eyes. 진짜입니까?"
    assert other["logits"] != own["logits"]
    assert main(asked) == 0
    assert "    asked (plain): Is this image made by AI?\n" in capsys.readouterr().out
    assert main([*asked, "--style", "loud"]) == 2
    assert "no prompt style is called 'loud'" in capsys.readouterr().err
    assert get_args(Precision) == PRECISIONS


def test_remote_code_waits_for_trust_on_the_command_line(capsys, photo, tiny_vlm_zoo):
    assert main(["list", "--zoo", tiny_vlm_zoo, "--offline"]) == 0
    assert "-> read that code, then allow it with --trust coded" in capsys.readouterr().out
    asked = ["predict", photo, "--task", "deepfake", "--model", "coded", "--zoo", tiny_vlm_zoo]
    assert main(asked) == 2
    assert "runs code from its repository" in capsys.readouterr().err
    assert main([*asked, "--trust", "coded"]) == 0
    assert main([*asked, "--trust", "nobody"]) == 2
