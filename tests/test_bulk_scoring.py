"""A chunk becomes one file: rows equal what the model says by itself, and no picture stops the others."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bulk.parts import Job, part_path, write_plan
from bulk.scoring import ChunkScorer
from bulk.sources import list_items
from models.errors import ExhibitError
from models.imaging import read_image
from models.schema import Novelty
from tests.signed_pictures import signed_picture


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (40 + number, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    (folder / "2b.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def job(pictures, tmp_path, tiny_zoo_file):
    out = tmp_path / "out"
    out.mkdir()
    assert write_plan(list_items([str(pictures)]), out, chunk=4) == (6, 2)
    return Job(str(out), "deepfake", ("tiny-resnet", "tiny-vit"), str(tiny_zoo_file))


def test_rows_equal_what_the_models_say(job, pictures, tmp_path, tiny_loader):
    scorer = ChunkScorer(job)
    assert [scorer.score(0), scorer.score(1)] == [(4, 1), (2, 0)]
    rows = [row for chunk in range(2) for row in pq.read_table(part_path(tmp_path / "out", chunk)).to_pylist()]
    assert [row["path"] for row in rows] == [str(path) for path in sorted(pictures.iterdir())]
    for row in rows:
        if row["path"].endswith("2b.jpg"):
            assert "not an image" in row["error"]
            assert row["verdict"] is None
            continue
        source = read_image(row["path"])
        assert row["error"] is None
        assert row["sha256"] == hashlib.sha256(source.original).hexdigest()
        assert (row["width"], row["height"]) == source.size_wh
        for model_id in job.models:
            alone = tiny_loader.load(model_id).predict([source.rgb])[0].probabilities
            for label, share in alone.items():
                assert row[f"{model_id}:{label}"] == pytest.approx(share, abs=1e-5)
        assert row["verdict:fake"] + row["verdict:real"] == pytest.approx(1)
        assert row["verdict"] == max(("fake", "real"), key=lambda label: row[f"verdict:{label}"])


def test_part_that_is_there_is_not_written_again(job, tmp_path):
    scorer = ChunkScorer(job)
    scorer.score(0)
    path = part_path(tmp_path / "out", 0)
    before = path.stat().st_mtime_ns
    assert scorer.score(0) == (4, 1)
    assert path.stat().st_mtime_ns == before


def test_other_weights_than_at_the_beginning_are_refused(job, tmp_path):
    ChunkScorer(job)
    file = tmp_path / "out" / "models.json"
    known = json.loads(file.read_text())
    known["tiny-vit"]["weights_sha256"] = "0" * 64
    file.write_text(json.dumps(known))
    with pytest.raises(ExhibitError, match="other weights"):
        ChunkScorer(job)


def test_picture_that_fails_in_the_model_does_not_stop_its_batch(job, tmp_path, monkeypatch):
    scorer = ChunkScorer(job)
    live = scorer.models[0]
    predict = live.predict

    def choosy(images):
        if any(image.height == 41 for image in images):
            raise ExhibitError("numbers that are not finite")
        return predict(images)

    monkeypatch.setattr(live, "predict", choosy)
    assert scorer.score(0) == (4, 2)
    errors = pq.read_table(part_path(tmp_path / "out", 0), columns=["error"]).column("error").to_pylist()
    assert errors[0] is None
    assert "not finite" in errors[1]
    assert errors[2] is None


def test_disk_that_refuses_leaves_no_part(job, tmp_path, monkeypatch):
    def full(table, file):
        file.write_bytes(io.BytesIO(b"half").getvalue())
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bulk.parts.pq.write_table", full)
    with pytest.raises(OSError, match="No space"):
        ChunkScorer(job).score(0)
    assert list((tmp_path / "out" / "rows").rglob("*parquet*")) == []


def test_row_tells_what_camera_and_content_credentials_say(tmp_path, tiny_zoo_file):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    (folder / "a.jpg").write_bytes(signed_picture())
    exif = Image.Exif()
    exif[271], exif[305] = "Camera maker", "Editor 1"
    Image.new("RGB", (64, 48), "red").save(folder / "b.jpg", exif=exif)
    write_plan(list_items([str(folder)]), out, chunk=4)
    ChunkScorer(Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file))).score(0)
    signed, plain = pq.read_table(part_path(out, 0)).to_pylist()
    assert (signed["c2pa_signature"], signed["c2pa_issuer"]) == ("valid", "Exhibit Test")
    assert (signed["c2pa_ai_generated"], plain["c2pa_ai_generated"]) == (True, None)
    assert (plain["c2pa_signature"], plain["exif_make"], plain["exif_software"]) == (None, "Camera maker", "Editor 1")
    assert plain["bytes"] == (folder / "b.jpg").stat().st_size


def test_picture_unlike_the_training_pictures_is_flagged(job, tmp_path, monkeypatch):
    scorer = ChunkScorer(job)
    novelty = Novelty(distance=9.0, threshold=2.0, false_alarm=0.01, unfamiliar=True)
    for live in scorer.models:
        predict = live.predict
        monkeypatch.setattr(
            live, "predict", lambda images, predict=predict: [replace(one, novelty=novelty) for one in predict(images)]
        )
    scorer.score(0)
    rows = pq.read_table(part_path(tmp_path / "out", 0)).to_pylist()
    assert [row["out_of_distribution"] for row in rows if not row["error"]] == [True] * 3
    assert rows[0]["unfamiliar"] == "tiny-resnet, tiny-vit"


def test_ten_thousand_tiny_files_in_one_archive_all_have_a_row(tmp_path, tiny_zoo_file):
    out = tmp_path / "out"
    out.mkdir()
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), "blue").save(picture, "PNG")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(10_000):
            archive.writestr(f"{number % 10}/{number}.png", picture.getvalue() if number % 1000 == 0 else b"x")
    assert write_plan(list_items([str(tmp_path / "many.zip")]), out, chunk=5000) == (10_000, 2)
    scorer = ChunkScorer(Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file)))
    assert [scorer.score(0), scorer.score(1)] == [(5000, 4995), (5000, 4995)]
    members = [name for chunk in (0, 1) for name in pq.read_table(part_path(out, chunk))["member"].to_pylist()]
    assert members == [f"{number % 10}/{number}.png" for number in range(10_000)]
