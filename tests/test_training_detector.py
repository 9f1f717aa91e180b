"""The detector's training: parts that never mix, figures worked out by hand, a run from photos to a model card."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

import training.detector
from models.detector import build_network
from models.errors import ModelUnavailableError
from models.schema import Detections, LoadState, ModelStatus
from training.detector import bundle, finetune, main, measure, open_detector
from training.detector_data import DetectorRecipe, Photo, read_photos, read_recipe, split_photos
from training.errors import DataError, RecipeError, RunError

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "training" / "recipes" / "yolov8n-coco.yaml"
BUNDLED = ROOT / "assets" / "bundled" / "yolov8n-coco"
NAMES = ("circle", "square", "star")


def a_photo(coco_id: int, labels: tuple[str, ...] = ("circle",), boxes=None) -> Photo:
    rng = np.random.default_rng(coco_id)
    picture = Image.fromarray(rng.integers(0, 90, (48, 64, 3), np.uint8))
    boxes = np.array(boxes or [(4 + 9 * i, 6, 20 + 9 * i, 40) for i in range(len(labels))], np.float32).reshape(-1, 4)
    for box in boxes:
        ImageDraw.Draw(picture).rectangle(tuple(box), fill=(230, 40, 40))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG")
    return Photo(coco_id=coco_id, encoded=encoded.getvalue(), boxes_xyxy=boxes, labels=labels)


def a_parquet(path: Path, photos: list[Photo]) -> Path:
    rows = [
        {"image": {"bytes": p.encoded}, "boxes_xyxy": p.boxes_xyxy.tolist(), "labels": p.labels, "coco_id": p.coco_id}
        for p in photos
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def a_recipe(**changes) -> DetectorRecipe:
    values = {"name": "tiny", "start": "start", "data": "data.parquet", "dev": 2, "heldout": 3, "epochs": 1}
    return DetectorRecipe.model_validate({**values, "learning_rate": 0.001, **changes})


class Told:
    """Stands in for a detector: answers what it was told for each picture, by its first pixel."""

    names = NAMES

    def __init__(self, answers: dict[bytes, list[tuple[str, float, tuple[float, ...]]]]) -> None:
        self.answers = answers

    def detect(self, images, **thresholds) -> list[Detections]:
        rows = [self.answers[image.tobytes()] for image in images]
        return [
            Detections(
                xyxy=np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
                confidence=np.array([confidence for _, confidence, _ in found], np.float32),
                labels=tuple(label for label, _, _ in found),
                size_wh=(64, 48), model_id="told", status=ModelStatus(LoadState.BUNDLED),
            )
            for found in rows
        ]  # fmt: skip


def test_parts_are_whole_disjoint_and_the_same_every_time_in_any_order():
    photos = [a_photo(i, (NAMES[i % 3],)) for i in range(40)]
    parts = split_photos(photos, a_recipe(dev=6, heldout=9))
    ids = {part: {photo.coco_id for photo in chosen} for part, chosen in parts.items()}
    assert {part: len(chosen) for part, chosen in ids.items()} == {"train": 25, "heldout": 9, "dev": 6}
    assert set.union(*ids.values()) == set(range(40))
    again = split_photos(photos[::-1], a_recipe(dev=6, heldout=9))
    assert {part: {photo.coco_id for photo in chosen} for part, chosen in again.items()} == ids
    other = split_photos(photos, a_recipe(dev=6, heldout=9, seed=1))
    assert {photo.coco_id for photo in other["heldout"]} != ids["heldout"]


def test_each_part_has_its_share_of_a_rare_class():
    photos = [a_photo(i, ("star", "circle") if i % 4 == 0 else ("circle",)) for i in range(40)]
    parts = split_photos(photos, a_recipe(dev=8, heldout=12))
    assert [sum("star" in photo.labels for photo in parts[part]) for part in ("dev", "heldout")] == [2, 3]


def test_photos_the_start_may_know_are_only_trained_on():
    photos = [a_photo(i) for i in range(20)]
    parts = split_photos(photos, a_recipe(known_until_id=12))
    assert {photo.coco_id for photo in parts["train"]} >= set(range(13))
    with pytest.raises(DataError, match="lower those"):
        split_photos(photos, a_recipe(known_until_id=14))
    with pytest.raises(DataError, match="occurs twice"):
        split_photos([*photos, photos[0]], a_recipe())


def told_about(photos: list[Photo], answers: list) -> Told:
    return Told({photo.open().tobytes(): answer for photo, answer in zip(photos, answers, strict=True)})


def test_perfect_detections_measure_one_and_none_measure_zero():
    photos = [a_photo(i, ("circle", "square")) for i in range(3)]
    truth = [[(label, 0.9, tuple(box)) for label, box in zip(p.labels, p.boxes_xyxy, strict=True)] for p in photos]
    figures = measure(told_about(photos, truth), photos)
    assert figures["map50"] == pytest.approx(0.995, abs=1e-6)  # the last of 101 points lies past the curve
    assert figures["map50_95"] == pytest.approx(0.995, abs=1e-6)
    assert (figures["photos"], figures["objects"], figures["classes"]) == (3, 6, 2)
    nothing = measure(told_about(photos, [[], [], []]), photos)
    assert (nothing["map50"], nothing["map50_95"], nothing["recall"]) == (0, 0, 0)


def test_a_box_counts_up_to_its_overlap_and_an_object_only_once():
    photo = a_photo(1, ("circle",), [(0, 0, 40, 40)])
    shifted = ("circle", 0.9, (0, 0, 40, 29))  # overlap 0.725: five of the ten thresholds, 0.5 to 0.7
    figures = measure(told_about([photo], [[shifted]]), [photo])
    assert figures["map50"] == pytest.approx(0.995, abs=1e-6)
    assert figures["map50_95"] == pytest.approx(0.995 / 2, abs=1e-6)
    better_but_later = ("circle", 0.8, (0, 0, 40, 40))
    figures = measure(told_about([photo], [[shifted, better_but_later]]), [photo])
    assert figures["map50"] == pytest.approx(0.995, abs=1e-6)  # the first took it
    assert 0.5 < figures["map50_95"] < 0.995  # above overlap 0.7 the later one takes it, behind a wrong one
    first_wrong = [("circle", 0.9, (50, 40, 60, 47)), ("circle", 0.5, (0, 0, 40, 40)), ("square", 0.4, (0, 0, 40, 40))]
    assert measure(told_about([photo], [first_wrong]), [photo])["map50"] == pytest.approx(0.5, abs=0.01)


def test_classes_the_detector_does_not_know_and_photos_without_objects_are_refused():
    photo = a_photo(1, ("dragon",))
    with pytest.raises(DataError, match="does not know dragon"):
        measure(told_about([photo], [[]]), [photo])
    empty = a_photo(2, ())
    with pytest.raises(DataError, match="no object"):
        measure(told_about([empty], [[]]), [empty])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run on tiny photos, from random weights, started in its own folder."""
    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    (folder / "start").mkdir()
    save_file(build_network("n", 3).state_dict(), folder / "start/model.safetensors", {"names": ",".join(NAMES)})
    data = a_parquet(folder / "data.parquet", [a_photo(i, (NAMES[i % 3],)) for i in range(9)])
    recipe = a_recipe(start=str(folder / "start"), data=str(data), batch_size=4, image_size=64, dev=1, heldout=2)
    finetune(recipe, folder / "run")
    return folder / "run"


def test_a_run_leaves_changed_half_precision_weights_recipe_and_figures(run):
    weights = load_file(run / "model.safetensors")
    start = load_file(run.parent / "start/model.safetensors")
    assert weights.keys() == start.keys()
    assert {value.dtype for value in weights.values()} == {torch.float16, torch.int64}
    changed = {name for name in weights if not torch.equal(weights[name], start[name].to(weights[name].dtype))}
    assert {"model.0.conv.weight", "model.22.cv3.2.2.bias"} <= changed  # end to end: first layer and last
    assert not {name for name in changed if "running_mean" in name or "running_var" in name}
    assert open_detector(run).names == NAMES
    figures = json.loads((run / "training.json").read_text())
    assert (len(figures["dev_by_epoch"]), figures["best_epoch"]) == (1, 1)
    assert read_recipe(run / "recipe.yaml").image_size == 64
    assert not list(run.rglob("*.pt"))


def test_a_run_never_overwrites_another(run):
    with pytest.raises(RunError, match="exists already"):
        finetune(read_recipe(run / "recipe.yaml"), run)


def told_figures(monkeypatch, *map50_95: float) -> None:
    values = iter(map50_95)
    monkeypatch.setattr(
        training.detector, "measure",
        lambda _, photos: {"map50": 0.5, "map50_95": next(values), "photos": len(photos), "objects": 9, "classes": 3},
    )  # fmt: skip


def test_weights_worse_than_their_start_are_not_bundled(run, tmp_path, monkeypatch):
    told_figures(monkeypatch, 0.3, 0.4, 0.31, 0.3)  # dev before and after, held-out before and after
    with pytest.raises(RunError, match="worse than the start on heldout"):
        bundle(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_has_weights_figures_and_a_card_that_states_them(run, tmp_path, monkeypatch):
    told_figures(monkeypatch, 0.3, 0.4, 0.3111, 0.3222)
    bundle(run, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["heldout"]["before"]["map50_95"] == 0.3111
    assert len(metrics["heldout_coco_ids"]) == 2
    card = (tmp_path / "out/README.md").read_text()
    assert "| heldout | 2 | 9 | 3 | 0.5000 | 0.5000 | 0.3111 | 0.3222 |" in card
    assert "+0.0111" in card


def test_evaluate_prints_figures_and_says_what_is_wrong_in_one_line(run, capsys):
    data = str(run.parent / "data.parquet")
    assert main(["evaluate", "--model", str(run), "--data", data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"] == 9
    assert main(["evaluate", "--model", str(run), "--recipe", str(run / "recipe.yaml"), "--part", "dev"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["photos"] == 1
    for wrong in (["--model", "nowhere", "--data", data], ["--model", str(run), "--data", "nowhere.parquet"]):
        assert main(["evaluate", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_unusable_recipes_and_sets_are_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.read_text().replace("epochs:", "epochen:"))
    with pytest.raises(RecipeError, match=r"recipe\.yaml: epoch"):
        read_recipe(tmp_path / "recipe.yaml")
    pq.write_table(pa.table({"image": ["x"]}), tmp_path / "other.parquet")
    for path in (tmp_path / "other.parquet", tmp_path / "recipe.yaml", tmp_path / "absent.parquet"):
        with pytest.raises(DataError, match="boxes_xyxy"):
            read_photos(path)
    with pytest.raises(ModelUnavailableError):
        open_detector(tmp_path)


def test_the_bundled_figures_are_those_of_the_bundled_weights():
    metrics = json.loads((BUNDLED / "metrics.json").read_text())
    assert metrics["weights_sha256"] == hashlib.sha256((BUNDLED / "model.safetensors").read_bytes()).hexdigest()
    for part in ("dev", "heldout"):
        assert metrics[part]["after"]["map50_95"] >= metrics[part]["before"]["map50_95"]
    card = (BUNDLED / "README.md").read_text()
    assert f"{metrics['heldout']['after']['map50']:.4f}" in card
    assert f"{metrics['heldout']['after']['map50_95']:.4f}" in card


def test_the_bundled_held_out_photos_are_those_of_the_recipe():
    recipe = read_recipe(RECIPE)
    data = ROOT / recipe.data
    if not data.exists():
        pytest.skip(f"{recipe.data} is not on this machine")
    metrics = json.loads((BUNDLED / "metrics.json").read_text())
    photos = read_photos(data)
    parts = split_photos(photos, recipe)
    assert sorted(photo.coco_id for photo in parts["heldout"]) == metrics["heldout_coco_ids"]
    assert min(metrics["heldout_coco_ids"]) > recipe.known_until_id
    assert len(parts["train"]) == metrics["trained_photos"]
