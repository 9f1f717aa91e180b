"""The command refuses what it cannot use in one line, before Ray starts."""

import json

import numpy as np
import pytest
from PIL import Image

import triage

COUNT = 24


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(COUNT - 1):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def _command(pictures, zoo, out, *more) -> list[str]:
    given = [str(pictures), "--task", "deepfake", "--model", "tiny-resnet", "--zoo", str(zoo)]
    return [*given, "--out", str(out), "--chunk", "1", "--workers", "1", *more]


def test_folder_that_holds_something_is_not_written_to(pictures, tiny_zoo_file, tmp_path, capsys):
    (tmp_path / "note.txt").write_text("mine")
    assert triage.main(_command(pictures, tiny_zoo_file, tmp_path)) == 2
    assert "--resume" in capsys.readouterr().err


def test_resume_with_other_images_is_refused(pictures, tiny_zoo_file, tmp_path, capsys):
    (tmp_path / "settings.json").write_text(json.dumps({"inputs": ["elsewhere"]}))
    assert triage.main(_command(pictures, tiny_zoo_file, tmp_path, "--resume")) == 2
    assert "inputs" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["tiny-nothing", "bundled-yolov8n"])
def test_model_that_gives_no_verdict_is_refused_in_one_line(pictures, tmp_path, capsys, model):
    command = [str(pictures), "--task", "deepfake", "--model", model, "--out", str(tmp_path / "out")]
    assert triage.main(command) == 2
    assert capsys.readouterr().err.count("\n") == 1
