"""After scoring: the short list, near duplicates, evidence bundles and the page that shows all of it."""

import io
import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bulk.evidence import EvidenceMaker
from bulk.groups import find_groups, group_hashes
from bulk.parts import Job, part_path, write_plan
from bulk.results import Place, Run
from bulk.scoring import ChunkScorer
from bulk.shortlist import Choice, make_shortlist, write_shortlist
from bulk.sources import Item, list_items
from bulk.summary import write_summary
from explain.replay import replay
from models.errors import ExhibitError


def _smooth(seed: int, size=(96, 96)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def job(tmp_path, tiny_zoo_file):
    """A scored run: five pictures, one of them three times (saved anew, and smaller), and a broken one."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for number in range(5):
        _smooth(number).save(folder / f"{number}.png")
    _smooth(0).save(folder / "0 anew.jpg", quality=60)
    _smooth(0).resize((64, 64)).save(folder / "0 small.png")
    (folder / "<b>broken.jpg").write_bytes(b"no picture")
    write_plan(list_items([str(folder)]), out, chunk=3)
    job = Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file), Choice(top=2))
    scorer = ChunkScorer(job)
    for chunk in range(3):
        scorer.score(chunk)
    return job


def _table(out, values, digests=None) -> Run:
    """A run whose rows have these probabilities of ``fake``."""
    (out / "models.json").write_text(json.dumps({"m": {"labels": ["fake", "real"]}}))
    digests = digests or [f"{number:064d}" for number in range(len(values))]
    write_plan((Item(f"{number}.png") for number in range(len(values))), out, chunk=4)
    for chunk in range(-(-len(values) // 4)):
        here = slice(4 * chunk, 4 * chunk + 4)
        path = part_path(out, chunk)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {"path": [f"{n}.png" for n in range(len(values))][here], "sha256": digests[here]}
        columns |= {"verdict:fake": pa.array(values[here], pa.float64()), "disagreement": [0.5] * len(values[here])}
        pq.write_table(pa.table(columns), path)
    return Run(out)


def test_shortlist_is_what_sorting_everything_gives(tmp_path):
    chance = random.Random(3)
    values = [chance.random() for _ in range(50)]
    values[7] = None
    run = _table(tmp_path, values)
    expected = sorted((number for number in range(50) if number != 7), key=lambda number: -values[number])
    names = [f"{number}.png" for number in expected]
    assert [one.path for one in make_shortlist(run, Choice(top=6))] == names[:6]
    above = [name for number, name in zip(expected, names, strict=True) if values[number] >= 0.8]
    assert [one.path for one in make_shortlist(run, Choice(threshold=0.8))] == above
    assert len(make_shortlist(run, Choice())) == 20
    assert [one.place for one in make_shortlist(run, Choice("disagreement", top=2))] == [Place(0, 0), Place(0, 1)]
    with pytest.raises(ExhibitError, match="choose one of fake, real"):
        make_shortlist(run, Choice(label="cat"))


def test_picture_that_is_there_often_is_listed_once_and_pushes_out_nobody(tmp_path):
    run = _table(tmp_path, [0.9] * 10 + [0.5, 0.4], ["a" * 64] * 10 + ["b" * 64, "c" * 64])
    assert [one.path for one in make_shortlist(run, Choice(top=2))] == ["0.png", "10.png"]
    assert [one.sha256[0] for one in make_shortlist(run, Choice(threshold=0.1))] == ["a", "b", "c"]


def test_groups_equal_those_of_comparing_all_pairs():
    chance = np.random.default_rng(5)
    base = chance.integers(0, 2**63, 40, dtype=np.uint64)
    flipped = base[:15] ^ (np.uint64(1) << chance.integers(0, 64, 15).astype(np.uint64))
    hashes = np.concatenate([base, flipped, base[:5], base[30:33] ^ np.uint64(0b1111)])
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= 3
    for _ in range(6):
        near = near @ near
    expected = {tuple(np.flatnonzero(row).tolist()) for row in near if row.sum() > 1}
    assert {tuple(group) for group in group_hashes(hashes)} == expected
    assert group_hashes(np.empty(0, np.uint64)) == []


def test_saved_anew_and_smaller_copies_are_near_duplicates(job):
    run = Run(job.folder)
    (group,) = find_groups(run)
    assert {row["path"].rpartition("/")[2] for row in run.rows(group)} == {"0.png", "0 anew.jpg", "0 small.png"}


def test_short_list_becomes_bundles_that_replay_and_a_page_without_network(job, tiny_loader, monkeypatch):
    monkeypatch.setattr("bulk.evidence.DEFAULT_DETECTOR", "none")
    run, maker = Run(job.folder), EvidenceMaker(job)
    maker.settings = replace(maker.settings, methods=("gradcam",))
    assert maker.explain(0) == ""
    listed = make_shortlist(run, job.choice)
    bundle = job.folder / "evidence" / listed[0].name
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["image"]["sha256"] == listed[0].sha256
    assert manifest["faithfulness"]
    assert manifest["verdict"]["probabilities"]["fake"] == pytest.approx(listed[0].value, abs=1e-5)
    assert {row.outcome for row in replay(bundle, tiny_loader)} <= {"equal", "within tolerance"}
    before = (bundle / "manifest.json").stat().st_mtime_ns
    assert maker.explain(0) == ""
    assert (bundle / "manifest.json").stat().st_mtime_ns == before
    write_shortlist(run, listed, {1: "why not"})
    entries = json.loads((job.folder / "shortlist.json").read_text())
    assert [entry["problem"] for entry in entries] == [None, "why not"]
    counts = write_summary(run, listed, job.task)
    assert (counts.images, counts.failed, sum(counts.verdicts.values())) == (8, 1, 7)
    assert [int(values.sum()) for values in counts.histograms.values()] == [7, 7, 7]
    page = (job.folder / "summary.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "heatmap of tiny-" in page
    assert "3 pictures" in page
    assert "<b>broken" not in page


def test_picture_changed_since_it_was_scored_has_no_bundle(job, monkeypatch):
    maker = EvidenceMaker(job)
    (item,) = maker.run.items([maker.listed[0].place])
    buffer = io.BytesIO()
    _smooth(99).save(buffer, "PNG")
    with open(item.source, "wb") as file:  # noqa: PTH123
        file.write(buffer.getvalue())
    assert "was changed since" in maker.explain(0)
    assert not (job.folder / "evidence").exists()


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ExhibitError, match=r"no run of triage\.py"):
        Run(tmp_path)
