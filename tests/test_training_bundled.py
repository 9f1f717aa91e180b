"""What the bundled models state beside their weights, against their bars and against what they answer here."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.loading import ModelLoader
from models.registry import load_zoo, weights_folder
from models.reports import read_pictures, read_report
from models.vlm import VisionLanguageModel
from training.answering import ask_labels
from training.bundle import MOST_PICTURES
from training.charts import make_chart, picture_seed
from training.labelled import read_labelled
from training.opening import open_model
from training.scenes import render_picture
from training.scenes_common import LABEL_NAMES

ROOT = Path(__file__).parents[1]
NEW_SCENES = 770_001  # a seed that nothing was trained or measured on
FACES = ROOT.parent / "shared" / "data" / "deepfake_faces" / "validation.parquet"
needs_faces = pytest.mark.skipif(not FACES.exists(), reason="the shared deepfake faces are not on this machine")


@pytest.mark.parametrize(
    ("name", "bar"),
    [
        ("resnet-deepfake", 0.95),
        ("vit-deepfake", 0.88),
        ("paligemma-deepfake", 0.86),
    ],
)
def test_bundled_detectors_state_an_accuracy_above_the_bar(name: str, bar: float) -> None:
    folder = ROOT / "assets" / "bundled" / name
    figures = json.loads((folder / "metrics.json").read_text())
    assert figures["training"]["finished"]
    assert figures["validation"]["accuracy"] >= bar
    assert figures["validation"]["pictures"] == 1200
    card = (folder / "README.md").read_text()
    for name_of_set in ("validation", "distorted", "generators"):
        # An interval in brackets may follow.
        assert (
            f"| {name_of_set} | {figures[name_of_set]['pictures']:,} | {figures[name_of_set]['accuracy']:.4f} " in card
        )
    assert "at chance on generators it never saw" in card


def test_the_bundled_base_is_near_chance_before_its_adapter() -> None:
    figures = json.loads((ROOT / "assets" / "bundled" / "paligemma" / "metrics.json").read_text())
    assert figures["validation"]["pictures"] == 1200
    assert 0.4 <= figures["validation"]["accuracy"] <= 0.6


def test_the_casework_adapter_is_clearly_ahead_of_its_base() -> None:
    figures = json.loads((ROOT / "assets" / "bundled" / "paligemma-casework" / "metrics.json").read_text())
    after, before = figures["validation"], figures["before"]["validation"]
    assert after["intervals"]["accuracy"][0] > before["intervals"]["accuracy"][1]
    assert "It knows generated pictures only." in (
        ROOT / "assets" / "bundled" / "paligemma-casework" / "README.md"
    ).read_text().replace("\n", " ")


def test_the_chart_adapter_is_clearly_ahead_of_its_base() -> None:
    figures = json.loads((ROOT / "assets" / "bundled" / "paligemma-charts" / "metrics.json").read_text())
    after, before = figures["validation"], figures["before"]["validation"]
    for name in ("relaxed_accuracy", "bleu", "rougeL"):
        assert after["intervals"][name][0] > before["intervals"][name][1], name
    assert figures["real"]["questions"] == 250


@pytest.mark.parametrize("asked", ["shown", "kind"])
def test_the_chart_adapter_answers_the_picture_and_not_the_question(asked: str) -> None:
    charts = [make_chart(picture_seed(NEW_SCENES, number), 4, [asked]) for number in range(120)]
    about = [(chart, question) for chart in charts for question in chart.questions[:1]]
    live = open_model("bundled-paligemma-charts")
    assert isinstance(live, VisionLanguageModel)
    images = [Image.open(io.BytesIO(chart.drawing.png)).convert("RGB") for chart, _ in about]
    texts = [question.text for _, question in about]
    truth = np.array([question.answer for _, question in about])
    own, foreign = (
        np.array([one.strip() for one in live.write_each(seen, texts, max_new_tokens=4)]) == truth
        for seen in (images, images[1:] + images[:1])
    )
    assert own.mean() > foreign.mean() + 2 * (2 * 0.25 / len(truth)) ** 0.5


def test_reports_publish_no_texts_of_sets_that_no_program_drew() -> None:
    reports = [read_report(path) for path in (ROOT / "assets" / "bundled").glob("*/reports/*/report.json")]
    others = [report for report in reports if report.kind == "answers" and not report.generated]
    assert others
    assert all("not published" in text for one in others for row in one.rows for text in (row.truth, str(row.question)))
    assert len({(row.sha256, row.question) for row in others[0].rows}) == len(others[0].rows)


def test_a_bundled_report_keeps_a_few_pictures_and_first_those_that_it_got_wrong() -> None:
    reports = ROOT / "assets" / "bundled" / "paligemma-casework" / "reports"
    wrong = {row.sha256 for row in read_report(reports / "validation" / "report.json").rows if not row.right}
    kept = read_pictures(reports / "validation")
    assert wrong < set(kept)
    assert len(kept) == MOST_PICTURES
    assert read_pictures(reports / "validation-before") == {}


def test_the_casework_adapter_answers_as_its_figures_say() -> None:
    stated = json.loads((ROOT / "assets" / "bundled" / "paligemma-casework" / "metrics.json").read_text())
    expected = stated["validation"]["accuracy"]
    assert expected >= 0.94
    drawn = [render_picture(NEW_SCENES, number) for number in range(80)]
    live = open_model("bundled-paligemma-casework")
    images = [Image.open(io.BytesIO(one.jpeg)).convert("RGB") for one in drawn]
    found = [one.label for one in live.predict(images)]
    right = np.mean([LABEL_NAMES[one.label] == label for one, label in zip(drawn, found, strict=True)])
    assert abs(right - expected) < 3 * (expected * (1 - expected) / len(drawn)) ** 0.5


ADAPTERS = ("bundled-paligemma-deepfake", "bundled-paligemma-casework", "bundled-paligemma-charts")


@pytest.mark.parametrize("order", [ADAPTERS, ADAPTERS[::-1]])
def test_bundled_adapters_share_their_base_in_any_order(order: tuple[str, ...]) -> None:
    image = Image.open(io.BytesIO(render_picture(NEW_SCENES, 0).jpeg)).convert("RGB")
    alone = [open_model(model).predict([image])[0].logits for model in order]
    loader = ModelLoader(load_zoo(), offline=True, device="cpu")
    loaded = [loader.load(model) for model in order]
    assert all(isinstance(live, VisionLanguageModel) and live.module is loaded[0].module for live in loaded)
    assert [live.predict([image])[0].logits for live in loaded] == alone


def test_bundled_weights_stay_small() -> None:
    weights = list((ROOT / "assets" / "bundled").rglob("*.safetensors"))
    assert len(weights) >= 5
    assert sum(file.stat().st_size for file in weights) < 60e6


@needs_faces
@pytest.mark.parametrize("model", ["bundled-resnet", "bundled-vit", "bundled-paligemma-deepfake"])
def test_bundled_detectors_answer_as_their_figures_say(model: str) -> None:
    classifier = open_model(model)
    folder = weights_folder(load_zoo().get(model).source)
    assert folder is not None
    stated = json.loads((folder / "metrics.json").read_text())
    answered = ask_labels(classifier, read_labelled(FACES).select(range(200)))
    accuracy = float(np.mean([row.right for row in answered.rows]))
    # 200 of the 1,200 pictures: within three standard errors of the whole.
    expected = stated["validation"]["accuracy"]
    assert abs(accuracy - expected) < 3 * (expected * (1 - expected) / 200) ** 0.5
