"""Evaluation asks the model as the app does, counts what has no answer as wrong, and matches labels by name."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from models.reports import NO_ANSWER, NO_LABEL, read_pictures, read_report
from models.vlm import VisionLanguageModel
from tests.report_rows import make_report, make_row
from tests.tiny_adapters import build_adapter
from training.__main__ import main
from training.answering import ask_labels
from training.bundle import bundle, bundle_language
from training.cards import CardTexts
from training.errors import DataError, RunError
from training.evaluate import Manner, evaluate
from training.evaluate_command import describe_command
from training.labelled import LabelledSet, read_labelled, write_parquet
from training.opening import Wanted, find_base, open_model, open_wanted
from training.recipe import FILTERS, read_recipe, write_recipe
from training.summary import summarise_groups

ROOT = Path(__file__).parents[1]


def make_png(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def noise_set(tmp_path: Path) -> Path:
    """Twelve noise pictures, the first of them broken, with generators of the fakes."""
    rng = np.random.default_rng(0)
    pictures = (b"broken", *(make_png(rng) for _ in range(11)))
    labels = tuple([0] * 6 + [1] * 6)
    extras = {"generator": tuple(["sd"] * 3 + ["swap"] * 3 + ["camera"] * 6)}
    sources = tuple(f"row {index}" for index in range(12))
    write_parquet(LabelledSet(pictures, labels, ("fake", "real"), sources, extras), tmp_path / "noise.parquet")
    return tmp_path / "noise.parquet"


@pytest.fixture(scope="module")
def adapter(tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on a tiny PaliGemma, whose settings name the base's folder."""
    folder = build_adapter("paligemma", tiny_vlm("paligemma"), tmp_path_factory.mktemp("adapter") / "tiny")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tiny_vlm("paligemma"))
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


ASKED = {"question": "Is this image made by AI?", "answers": {"0": "fake", "1": "real"}}


def test_figures_are_those_of_the_models_own_predictions(tiny_folders: dict[str, Path], noise_set: Path) -> None:
    report = evaluate(Wanted(str(tiny_folders["resnet"])), [noise_set], None)
    labelled = read_labelled(noise_set)
    images = [Image.open(io.BytesIO(labelled.read_bytes(index))) for index in range(1, 12)]
    said = open_model(str(tiny_folders["resnet"])).predict(images)
    assert [row.predicted for row in report.rows[1:]] == [one.label for one in said]
    assert [row.probabilities for row in report.rows[1:]] == [one.probabilities for one in said]
    assert [row.truth for row in report.rows] == ["fake"] * 6 + ["real"] * 6
    right = [row.truth == row.predicted for row in report.rows]
    assert report.figures["accuracy"] is not None
    assert report.figures["accuracy"].value == pytest.approx(np.mean(right))


def test_an_unreadable_picture_is_wrong_and_listed(tiny_folders: dict[str, Path], noise_set: Path) -> None:
    report = evaluate(Wanted(str(tiny_folders["resnet"])), [noise_set], None)
    row = report.rows[0]
    assert len(report.rows) == 12
    assert (row.predicted, row.probabilities, row.right) == (NO_ANSWER, None, False)
    assert (row.problem or "").startswith("unreadable: ")
    assert row.sha256 == hashlib.sha256(b"broken").hexdigest()
    assert report.confusion is not None
    assert [counts[2] for counts in report.confusion.counts] == [1, 0, 0]


def test_a_missing_file_is_wrong_and_listed(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "there.png").write_bytes(make_png(np.random.default_rng(0)))
    (tmp_path / "list.csv").write_text("path,label\nthere.png,fake\nlost.png,real\n")
    report = evaluate(Wanted(str(tiny_folders["resnet"])), [tmp_path / "list.csv"], None)
    assert [row.problem is None for row in report.rows] == [True, False]
    assert report.rows[1].predicted == NO_ANSWER


def test_labels_are_matched_by_name_and_spelled_as_the_data_does(
    tiny_folders: dict[str, Path], noise_set: Path, tmp_path: Path
) -> None:
    labelled = read_labelled(noise_set)
    flipped = tuple(1 - label for label in labelled.labels)
    swapped = LabelledSet(labelled.pictures, flipped, ("REAL", "Fake"), labelled.sources)
    write_parquet(swapped, tmp_path / "noise2.parquet")
    model = Wanted(str(tiny_folders["vit"]))
    first, second = evaluate(model, [noise_set], None), evaluate(model, [tmp_path / "noise2.parquet"], None)
    assert second.labels == ("Fake", "REAL")
    assert [row.right for row in first.rows] == [row.right for row in second.rows]
    assert first.figures == second.figures
    other = LabelledSet(labelled.pictures, flipped, ("real", "artificial"), labelled.sources)
    write_parquet(other, tmp_path / "other.parquet")
    with pytest.raises(DataError, match="the data has artificial"):
        evaluate(model, [tmp_path / "other.parquet"], None)


def test_command_prints_json_and_writes_a_report(
    tiny_folders: dict[str, Path], noise_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--model", str(tiny_folders["vit"]), "--data", str(noise_set)]
    assert main([*arguments, "--json", "--out", str(tmp_path / "out")]) == 0
    figures = json.loads(capsys.readouterr().out)
    report = read_report(tmp_path / "out")
    assert report.model_dump(mode="json", exclude={"rows"}) == figures
    assert (report.name, report.base, report.generated) == ("vit", False, False)
    assert report.data[0].sha256 == hashlib.sha256(noise_set.read_bytes()).hexdigest()
    assert str(tmp_path) not in (tmp_path / "out" / "report.json").read_text()
    assert "--data noise.parquet" in report.command
    small = read_pictures(tmp_path / "out")
    assert set(small) == {row.sha256 for row in report.rows[1:]}
    assert Image.open(io.BytesIO(small[report.rows[1].sha256])).size == (40, 40)
    for name in ("figures", "confusion", "roc", "pr", "reliability"):
        assert np.asarray(Image.open(tmp_path / "out" / f"{name}.png").convert("L")).std() > 5
    assert report.curves is not None
    assert report.figures["roc_auc"] is not None
    assert report.curves.roc["real"].area == pytest.approx(report.figures["roc_auc"].value)


def test_paths_of_this_machine_stay_out_of_a_report() -> None:
    command = describe_command(["evaluate", "--model", "/home/somebody/runs/a b", "--data", "data/set.parquet"])
    assert command == "python -m training evaluate --model 'a b' --data data/set.parquet"


@pytest.mark.parametrize("model", ["no-such-model", "."])
def test_an_unknown_model_exits_2_in_one_line(
    model: str, noise_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path) if model == "." else model
    assert main(["evaluate", "--model", model, "--data", str(noise_set)]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_an_adapter_and_its_base_are_asked_the_same(adapter: Path, noise_set: Path) -> None:
    tuned = evaluate(Wanted(str(adapter), **ASKED), [noise_set], None)
    before = evaluate(find_base(Wanted(str(adapter), **ASKED)), [noise_set], None, Manner(zero_shot=True))
    assert (tuned.name, tuned.base, before.name, before.base) == ("tiny", False, "tiny@base", True)
    assert tuned.question == before.question == ASKED["question"]
    assert [row.probabilities for row in tuned.rows] != [row.probabilities for row in before.rows]
    live = open_wanted(Wanted(str(adapter), **ASKED)).live
    labelled = read_labelled(noise_set)
    said = live.predict([Image.open(io.BytesIO(labelled.read_bytes(index))) for index in range(1, 12)])
    assert [row.probabilities for row in tuned.rows[1:]] == [one.probabilities for one in said]


def test_the_base_of_an_entry_is_found() -> None:
    assert find_base(Wanted("bundled-paligemma-deepfake")).model == "bundled-paligemma-deepfake@base"
    assert find_base(Wanted("bundled-paligemma-deepfake@base")).model == "bundled-paligemma-deepfake@base"
    assert find_base(Wanted("smolvlm-500m")).model == "smolvlm-500m"  # nobody taught it
    with pytest.raises(RunError, match="is a classifier"):
        find_base(Wanted("bundled-resnet"))


def test_a_written_answer_without_a_label_is_wrong_and_kept(
    adapter: Path, noise_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = open_wanted(Wanted(str(adapter), **ASKED)).live
    written = iter(["It is fake.", "I cannot tell.", "0", "fake or real", "1"] + ["real"] * 6)
    monkeypatch.setattr(type(live), "write_each", lambda self, images, questions, **_: [next(written) for _ in images])
    rows = ask_labels(live, read_labelled(noise_set), write=True).rows
    assert [row.predicted for row in rows[1:6]] == ["fake", NO_ANSWER, "fake", NO_ANSWER, "real"]
    assert [row.problem for row in rows[1:4]] == [None, NO_LABEL, None]
    assert [row.answer for row in rows[:3]] == [None, "It is fake.", "I cannot tell."]
    assert [row.right for row in rows[1:6]] == [True, False, True, False, False]
    assert all(row.probabilities is None for row in rows)


def test_a_classifier_can_neither_write_nor_be_asked(tiny_folders: dict[str, Path], noise_set: Path) -> None:
    model = str(tiny_folders["vit"])
    with pytest.raises(RunError, match="writes nothing"):
        evaluate(Wanted(model), [noise_set], None, Manner(write=True))
    with pytest.raises(RunError, match="cannot be asked"):
        evaluate(Wanted(model, question="Why?"), [noise_set], None)
    with pytest.raises(RunError, match="no base"):
        evaluate(Wanted(f"{model}@base"), [noise_set], None)


@pytest.fixture
def question_set(tmp_path: Path) -> Path:
    """Two questions about one picture and one about a broken one."""
    picture = make_png(np.random.default_rng(0))
    rows = [(picture, "How many?", "12"), (picture, "Which is highest?", "Poland"), (b"broken", "How many?", "3")]
    columns = {"question": [row[1] for row in rows], "answer": [row[2] for row in rows], "seed": [7, 7, 8]}
    images = [{"bytes": row[0], "path": None} for row in rows]
    pq.write_table(pa.table({"image": images, **columns}), tmp_path / "charts.parquet")
    return tmp_path / "charts.parquet"


def test_questions_are_answered_in_the_models_own_words(
    adapter: Path, question_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(str(adapter), style="plain")
    asked: list[str] = []

    def write_each(
        self: VisionLanguageModel, images: Sequence[Image.Image], questions: Sequence[str], **_: object
    ) -> list[str]:
        asked.extend(questions)
        return ["12.5"] * len(images)

    monkeypatch.setattr(VisionLanguageModel, "write_each", write_each)
    report = evaluate(wanted, [question_set], tmp_path / "out", Manner(put="answer {question}"))
    assert asked == ["answer How many?", "answer Which is highest?"]
    assert report.kind == "answers"
    assert report.generated  # it was drawn from a seed
    assert [row.answer for row in report.rows] == ["12.5", "12.5", None]
    assert [row.right for row in report.rows] == [True, False, False]
    assert (report.rows[2].problem or "").startswith("unreadable: ")
    figures = {name: one.value for name, one in report.figures.items() if one}
    assert figures["relaxed_accuracy"] == pytest.approx(1 / 3)
    assert figures["exact_match"] == 0
    assert set(figures) == {"relaxed_accuracy", "exact_match", "bleu", "rouge1", "rouge2", "rougeL"}
    assert read_report(tmp_path / "out") == report
    with pytest.raises(RunError, match=r"must hold \{question\}"):
        evaluate(wanted, [question_set], None, Manner(put="How many?"))


def test_the_model_writes_what_it_writes_in_the_app(adapter: Path, question_set: Path) -> None:
    report = evaluate(Wanted(str(adapter)), [question_set], None, Manner(new_tokens=4))
    live = open_wanted(Wanted(str(adapter))).live
    assert isinstance(live, VisionLanguageModel)
    image = Image.open(io.BytesIO(read_labelled_bytes(question_set)))
    questions = ("How many?", "Which is highest?")
    expected = [list(live.asking(question=one).write(image, max_new_tokens=4)) for one in questions]
    assert [row.answer for row in report.rows[:2]] == [texts[-1].strip() if texts else "" for texts in expected]


def read_labelled_bytes(path: Path) -> bytes:
    return pq.read_table(path)["image"][0].as_py()["bytes"]


def test_a_generators_fakes_are_set_against_all_real_pictures() -> None:
    labels = ("fake", "real")
    real = [0.1, 0.6, 0.2, 0.5, 0.9]  # probability of real
    rows = [
        make_row(i, labels[int(i > 2)], labels[int(share > 0.5)], [1 - share, share], labels)
        for i, share in enumerate(real)
    ]
    columns = {"by": ("sd", "sd", "swap", "camera", "camera"), "caption": ("same",) * 5}
    groups = summarise_groups(make_report(rows, labels), columns)
    assert set(groups) == {"by"}
    assert groups["by"]["sd"] == {"pictures": 2, "labels": ["fake"], "accuracy": 0.5, "roc_auc": 0.75}
    assert groups["by"]["swap"]["roc_auc"] == 1.0
    assert groups["by"]["camera"]["pictures"] == 2


def _finish_run(folder: Path, model: Path) -> Path:
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    write_recipe(read_recipe(ROOT / "training" / "recipes" / "deepfake-vit.yaml"), folder / "recipe.yaml")
    (folder / "metrics.json").write_text('{"steps": 7}')
    return folder


CARD = CardTexts(
    title="A tiny model",
    summary="Knows nothing.",
    licence="MIT",
    data=["noise"],
    commands=["python -m training finetune"],
    sets={"validation": "twelve noise pictures"},
    limits=["It is at chance."],
)


def test_a_bundle_ships_half_precision_and_the_figures_of_those_very_weights(
    tiny_folders: dict[str, Path], noise_set: Path, tmp_path: Path
) -> None:
    run, out = _finish_run(tmp_path / "run", tiny_folders["vit"]), tmp_path / "bundled" / "tiny"
    figures = bundle(run, out, card=CARD, sets={"validation": noise_set})
    header = (out / "model.safetensors").read_bytes()[8:400]
    assert b'"F16"' in header
    assert figures == json.loads((out / "metrics.json").read_text())
    again = evaluate(Wanted(str(out)), [noise_set], None)
    accuracy = again.figures["accuracy"]
    assert accuracy is not None
    assert figures["validation"]["accuracy"] == accuracy.value
    assert figures["validation"]["intervals"]["accuracy"] == [accuracy.low, accuracy.high]
    assert (figures["validation"]["pictures"], figures["validation"]["unanswered"]) == (12, 1)
    saved = read_report(out / "reports" / "validation")
    assert (saved.name, saved.rows) == ("tiny", again.rows)
    assert read_pictures(out / "reports" / "validation") == {}  # these may be photographs
    assert set(figures["validation"]["by"]["generator"]) == {"camera", "sd", "swap"}
    card = (out / "README.md").read_text()
    stated = f"{accuracy.value:.4f} ({accuracy.low:.4f} to {accuracy.high:.4f})"
    assert f"| validation | 12 | {stated} |" in card
    assert "Preliminary" not in card
    assert str(tmp_path) not in card
    assert bundle(run, out, card=CARD, sets={"validation": noise_set}) == figures  # replaces the older bundle
    assert [path.name for path in out.parent.iterdir()] == ["tiny"]


def test_a_bundle_may_resize_pictures_otherwise_than_its_training_did(
    tiny_folders: dict[str, Path], noise_set: Path, tmp_path: Path
) -> None:
    run, sets = _finish_run(tmp_path / "run", tiny_folders["vit"]), {"validation": noise_set}
    before = json.loads((run / "preprocessor_config.json").read_text())["resample"]
    wanted = "bicubic" if before == FILTERS["bilinear"] else "bilinear"
    bundle(run, tmp_path / "out", card=CARD, sets=sets, resample=wanted)
    saved = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["resample"]
    assert saved == FILTERS[wanted] != before
    arguments = ["bundle", str(run), "--out", str(tmp_path / "out"), "--card", "c.yaml", "--measure", "validation=x"]
    with pytest.raises(SystemExit):
        main([*arguments, "--resample", "by eye"])


def test_an_adapter_for_questions_is_bundled_with_its_base_beside_it(
    adapter: Path, tiny_vlm: Callable[[str], Path], question_set: Path, tmp_path: Path
) -> None:
    source = {"kind": "questions", "file": "charts.parquet", "question": "answer {question}"}
    content = {
        "kind": "vlm",
        "name": "tiny-charts",
        "family": "paligemma",
        "model": {"start": str(tiny_vlm("paligemma"))},
        "adapter": {"rank": 2, "alpha": 8, "targets": "q_proj"},
        "task": ASKED,
        "questions": [source],
        "train": {"epochs": 1, "batch_size": 4, "learning_rate": 0.1},
    }
    run, out = shutil.copytree(adapter, tmp_path / "run"), tmp_path / "bundled" / "tiny-charts"
    (run / "recipe.yaml").write_text(yaml.safe_dump(content))
    learnt = {"recipe": "tiny-charts", "seed": 0, "steps": 3, "parameters": 9, "trained_parameters": 1}
    history = [{"step": 1, "loss": 2.0}, {"step": 3, "eval_loss": 1.0}]
    (run / "metrics.json").write_text(json.dumps(learnt | {"history": history}))
    figures = bundle_language(run, out, card=CARD, sets={"validation": question_set})
    after, before = figures["validation"], figures["before"]["validation"]
    assert (after["questions"], after["pictures"], after["unanswered"]) == (3, 2, 1)
    assert after["accuracy"] == after["relaxed_accuracy"]
    assert set(after) == set(before)
    tuned, base = (read_report(out / "reports" / name) for name in ("validation", "validation-before"))
    assert tuned.question == base.question == "answer {question}"
    assert (tuned.name, tuned.base, base.name, base.base) == ("tiny-charts", False, "tiny-charts@base", True)
    assert [point.step for point in tuned.loss or ()] == [1, 3]
    assert base.loss is None
    assert len(read_pictures(out / "reports" / "validation")) == 1  # generated, so they may be shown
    assert "| validation, before fine-tuning | 3 |" in (out / "README.md").read_text()
    # The bundled folder is opened and asked as it was taught.
    assert open_wanted(Wanted(str(out))).put == "answer {question}"


def test_a_bundle_never_replaces_something_else(tiny_folders: dict[str, Path], noise_set: Path, tmp_path: Path) -> None:
    run = _finish_run(tmp_path / "run", tiny_folders["vit"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="is no bundle"):
        bundle(run, tmp_path / "mine", card=CARD, sets={"validation": noise_set})
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    (run / "metrics.json").unlink()
    with pytest.raises(RunError, match="not finished"):
        bundle(run, tmp_path / "out", card=CARD, sets={"validation": noise_set})
    with pytest.raises(RunError, match="validation"):
        bundle(run, tmp_path / "out", card=CARD, sets={})
