"""Measuring how far a model is to be doubted: from sets of pictures to the files and the card beside its weights."""

from __future__ import annotations

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from models.calibration import fit_temperature, soften
from models.doubt import read_doubt
from models.loading import ModelLoader
from models.registry import load_zoo
from tests.stripes import write_stripes
from training.__main__ import main


@pytest.fixture
def place(tiny_folders, tmp_path):
    """A zoo file with a copy of the tiny ResNet, and a recipe of three sets of stripes and one of plain colour."""
    import numpy as np

    from training.labelled import LabelledSet, write_parquet

    folder = tmp_path / "model"
    shutil.copytree(tiny_folders["resnet"], folder)
    (folder / "README.md").write_text("# A card\n\n## Doubt\n\nold\n\n## Training\n\nkept\n", "utf-8")
    entry = {"id": "tiny", "name": "Tiny", "task": "deepfake", "kind": "classifier", "source": str(folder)}
    entry |= {"licence": "AGPL-3.0-only", "size_mb": 1, "memory_mb": 10}
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text(yaml.safe_dump({"models": [entry]}), "utf-8")
    sets = {"train": (300, 0), "held": (40, 1), "measured": (60, 2)}
    for name, (count, seed) in sets.items():
        write_stripes(tmp_path / f"{name}.parquet", count, seed=seed)
    rng = np.random.default_rng(0)
    flat = tuple(_flat(rng) for _ in range(12))
    write_parquet(
        LabelledSet(flat, (0, 1) * 6, ("fake", "real"), tuple(map(str, range(12)))), tmp_path / "flat.parquet"
    )
    recipe = {name: str(tmp_path / f"{name}.parquet") for name in sets}
    recipe |= {"outside": {"flat": str(tmp_path / "flat.parquet")}, "pictures": 280, "false_alarm": 0.1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return tmp_path


def _flat(rng):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), tuple(rng.integers(0, 255, 3).tolist())).save(buffer, "PNG")
    return buffer.getvalue()


def test_one_command_measures_a_model_and_its_answers_are_calibrated_from_then_on(place, capsys):
    command = ["doubt", "--model", "tiny", "--recipe", str(place / "recipe.yaml"), "--zoo", str(place / "zoo.yaml")]
    assert main([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    folder = place / "model"
    live = ModelLoader(load_zoo(place / "zoo.yaml"), offline=True).load("tiny")
    doubt = read_doubt(folder, live.status.weights_sha256, live.processor)
    assert live.doubt.facts == doubt.facts
    assert told == doubt.facts.model_dump(mode="json")
    assert doubt.facts.sets["train"]["taken"] == 280
    assert doubt.facts.false_alarm == pytest.approx(0.1, abs=0.03)
    outside = doubt.facts.figures["outside"]["flat"]
    assert outside["pictures"] == 12
    assert outside["auroc"] > 0.99
    assert outside["flagged"] == 1
    # The temperature is that of the held set alone, and what is stated is of the measured one.
    assert doubt.held.logits.shape == (60, 2)
    assert doubt.facts.temperature == told["temperature"] != fit_temperature(doubt.held.logits, doubt.held.truth)
    assert soften(doubt.held.logits, 1.0).shape == (60, 2)
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith("# A card\n\n## Training\n\nkept\n\n## Doubt\n")
    assert "old" not in card
    assert f"| flat | 12 | {outside['auroc']:.3f} | 100.0% |" in card
    assert str(place) not in card
    # Measured again, it takes the place of what was there.
    assert main(command) == 0
    assert (folder / "README.md").read_text("utf-8").count("## Doubt") == 1


def test_answers_of_a_table_of_questions_stand_for_labels(place, capsys):
    command = ["doubt", "--model", "tiny", "--recipe", str(place / "recipe.yaml"), "--zoo", str(place / "zoo.yaml")]
    assert main([*command, "--json"]) == 0
    by_label = json.loads(capsys.readouterr().out)
    for name in ("train", "held", "measured"):
        file = place / f"{name}.parquet"
        table = pq.read_table(file)
        answers = pa.array(["no" if label == 0 else "real" for label in table["label"].to_pylist()])
        asked = table.select(["image"]).append_column("question", pa.array(["Is it real?"] * len(table)))
        pq.write_table(asked.append_column("answer", answers), file)
    recipe = yaml.safe_load((place / "recipe.yaml").read_text("utf-8"))
    for more, problem in (({}, "has the labels no, the model fake, real"), ({"column": "said"}, "no column said")):
        (place / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"column": "answer"} | more), "utf-8")
        assert main(command) == 2
        assert problem in capsys.readouterr().err
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"column": "answer", "names": {"no": "fake"}}), "utf-8")
    assert main([*command, "--json"]) == 0
    by_answer = json.loads(capsys.readouterr().out)
    assert by_answer["figures"] == by_label["figures"]
    assert by_answer["temperature"] == by_label["temperature"]


def test_other_weights_are_not_judged_by_these_statistics(place, tiny_folders):
    command = ["doubt", "--model", "tiny", "--recipe", str(place / "recipe.yaml"), "--zoo", str(place / "zoo.yaml")]
    assert main(command) == 0
    weights = place / "model" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(bytes(raw))
    assert ModelLoader(load_zoo(place / "zoo.yaml"), offline=True).load("tiny").doubt is None


def test_what_cannot_be_measured_is_refused_in_one_line(place, capsys):
    recipe = str(place / "recipe.yaml")
    assert main(["doubt", "--model", "dima806-deepfake", "--recipe", recipe]) == 2
    assert "comes from a hub" in capsys.readouterr().err
    write_stripes(place / "held.parquet", 20, ("cat", "dog"))
    assert main(["doubt", "--model", "tiny", "--recipe", recipe, "--zoo", str(place / "zoo.yaml")]) == 2
    assert "has the labels cat, dog, the model fake, real" in capsys.readouterr().err
