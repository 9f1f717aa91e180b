"""Triage with the bundled models: rows equal what examining each picture alone says, strangeness included."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import triage
from bulk.parts import Job, part_path, write_plan
from bulk.results import Run
from bulk.scoring import ChunkScorer
from bulk.shortlist import Choice, make_shortlist
from bulk.sources import list_items
from bulk.summary import UNSURE, write_summary
from explain.examination import Settings, examine
from models.imaging import read_image
from models.loading import ModelLoader
from models.registry import load_zoo
from ui.examples import find_examples

DEEPFAKE = ("bundled-resnet", "bundled-vit", "bundled-paligemma-deepfake")


@pytest.fixture(scope="module")
def loader():
    return ModelLoader(load_zoo(), offline=True, max_models=len(DEEPFAKE))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Real photographs of different sizes, a face among them, and noise."""
    folder = tmp_path_factory.mktemp("pictures")
    for example in find_examples():
        if example.path is not None:
            image = Image.open(example.path).convert("RGB")
            image.thumbnail((400, 400))
            image.save(folder / f"{example.name}.png")
    noise = np.random.default_rng(3).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    assert len(list(folder.iterdir())) >= 3
    return folder


def _same_as_alone(rows, models, loader):
    """Every row says what the single-picture path says."""
    settings = Settings("deepfake", tuple(models), methods=(), detector=None)
    for row in rows:
        found = examine(read_image(row["path"]), settings, loader)
        for said in found.predictions:
            for label, share in said.probabilities.items():
                assert row[f"{said.model_id}:{label}"] == pytest.approx(share, abs=1e-4)
            assert row[f"distance:{said.model_id}"] == pytest.approx(said.novelty.distance, rel=1e-4)
            assert row[f"unfamiliar:{said.model_id}"] == said.novelty.unfamiliar
        assert row["verdict"] == found.verdict.label
        assert row["out_of_distribution"] == (not found.verdict.confident)
        assert (row["unfamiliar"] or "") == ", ".join(found.verdict.unfamiliar)


def test_strangeness_comes_with_the_scores_from_one_pass_and_equals_that_of_examine(pictures, loader, tmp_path):
    count, _ = write_plan(list_items([str(pictures)]), tmp_path, chunk=16)
    scorer = ChunkScorer(Job(str(tmp_path), "deepfake", DEEPFAKE), loader)
    passes = dict.fromkeys(DEEPFAKE, 0)

    def count_pass(model_id):
        def hook(*_):
            passes[model_id] += 1

        return hook

    hooks = [
        live.module.get_submodule(live.target_layer).register_forward_hook(count_pass(live.spec.id))
        for live in scorer.models
    ]
    assert scorer.score(0) == (count, 0)
    for hook in hooks:
        hook.remove()
    assert set(passes.values()) == {1}
    rows = pq.read_table(part_path(tmp_path, 0)).to_pylist()
    _same_as_alone(rows, DEEPFAKE, loader)
    (noise,) = (row for row in rows if row["path"].endswith("noise.png"))
    assert noise["out_of_distribution"]
    run = Run(tmp_path)
    assert set(run.thresholds) == set(DEEPFAKE)
    counts = write_summary(run, make_shortlist(run, Choice()), "deepfake")
    strange = sum(row["out_of_distribution"] for row in rows)
    assert counts.verdicts[UNSURE] == strange
    assert sum(counts.verdicts.values()) == count
    assert counts.flags["unlike the training pictures of bundled-resnet"] == sum(
        row["unfamiliar:bundled-resnet"] for row in rows
    )
    page = (tmp_path / "summary.html").read_text()
    assert page.count("No confident verdict.") == strange
    distance = noise["distance:bundled-resnet"]
    assert f"bundled-resnet (distance {distance:.2f}, threshold {run.thresholds['bundled-resnet']:.2f})" in page


def test_command_scores_with_a_vision_language_model_and_its_adapter(pictures, loader, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    out = tmp_path / "run"
    model = "bundled-paligemma-deepfake"
    command = [str(pictures), "--task", "deepfake", "--model", model, "--out", str(out), "--workers", "1"]
    count = len(list(pictures.iterdir()))
    assert triage.main(command) == 0
    assert capsys.readouterr().out == f"{count} images, 0 failed: {out}\n"
    rows = pq.read_table(part_path(out, 0), partitioning=None).to_pylist()
    assert len(rows) == count
    _same_as_alone(rows, [model], loader)
    told = Run(out).models[model]
    assert told["state"] == "bundled"
    assert told["labels"] == ["fake", "real"]
    # The adapter takes part: without it the same network says something else.
    base = loader.load(model).without_adapter()
    plain = base.predict([read_image(row["path"]).rgb for row in rows])
    assert any(
        abs(row[f"{model}:fake"] - one.probabilities["fake"]) > 0.01 for row, one in zip(rows, plain, strict=True)
    )
