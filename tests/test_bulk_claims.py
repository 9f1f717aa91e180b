"""Claims of a file are held against the short list, kept in the bundles, recomputed, and shown on the page."""

import json
from dataclasses import replace

import pytest
from PIL import Image

import triage
from bulk.claims import MOST_CLAIMS, Statement, claims_about, read_statements
from bulk.evidence import EvidenceMaker
from bulk.parts import Job, write_plan
from bulk.results import Run
from bulk.scoring import ChunkScorer
from bulk.shortlist import Choice, make_shortlist, write_shortlist
from bulk.sources import list_items
from bulk.summary import write_summary
from explain.replay import replay
from models.errors import ExhibitError
from models.loading import ModelLoader
from models.registry import load_zoo
from rag.claims import split_claims
from rag.verifier import load_verifier
from ui.examples import find_examples

CAT = ("A cat is in the picture.", "<b>Two</b> elephants stand in water.")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for example in find_examples():
        if example.name in ("cat", "coffee") and example.path is not None:
            image = Image.open(example.path).convert("RGB")
            image.thumbnail((256, 256))
            image.save(folder / f"{example.name}.png")
    return folder


@pytest.fixture
def job(folder, tmp_path, tiny_zoo_file):
    out = tmp_path / "out"
    out.mkdir()
    file = tmp_path / "claims.txt"
    file.write_text(f"\ufeff# what the report says\n{CAT[0]}\n\ncat.png\t{CAT[1]}\n", encoding="utf-8")
    write_plan(list_items([str(folder)]), out, chunk=4)
    job = Job(str(out), "deepfake", ("tiny-resnet",), str(tiny_zoo_file), Choice(top=2), claims=read_statements(file))
    ChunkScorer(job).score(0)
    return job


def test_line_is_about_every_picture_or_the_one_it_names(tmp_path):
    lines = (Statement("All."), Statement("One.", "a.jpg"), Statement("Deep.", "x/a.jpg"), Statement("All."))
    assert claims_about("/case/a.jpg", lines) == ["All.", "One."]
    assert claims_about("/case/x/a.jpg", lines) == ["All.", "One.", "Deep."]
    assert claims_about("/case/seized.zip!x/a.jpg", lines) == ["All.", "One.", "Deep."]
    assert claims_about("/case/banana.jpg", lines) == ["All."]
    with pytest.raises(ExhibitError, match="more than the 100 checked"):
        claims_about("a.jpg", [Statement(f"Claim {number}.") for number in range(MOST_CLAIMS + 1)])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no claims; write one a line"),
        (b"# only a note\n", "has no claims"),
        (b"\xff\xfe\xff", "no text in UTF-8; give a text file"),
        (b"fine\n\tno name\n", "line 2: write CLAIM"),
        (b"a.jpg\t \n", "line 1: write CLAIM"),
    ],
)
def test_file_that_cannot_be_used_is_one_line(tmp_path, content, words):
    file = tmp_path / "claims.txt"
    file.write_bytes(content)
    with pytest.raises(ExhibitError, match=words):
        read_statements(file)


def test_missing_file_or_pass_or_kind_is_refused_before_anything_is_scored(folder, tiny_zoo_file, tmp_path, capsys):
    out, file = tmp_path / "run", tmp_path / "claims.txt"
    file.write_text("A cat.\n")
    command = [str(folder), "--task", "deepfake", "--model", "tiny-resnet", "--zoo", str(tiny_zoo_file)]
    command += ["--out", str(out)]
    for more, words in (
        (["--explain", "--claims", str(tmp_path / "none.txt")], "give a text file"),
        (["--claims", str(file)], "give --explain as well"),
        (["--explain", "--claims", str(file), "--claim-domain", "x-rays"], "--claim-domain photographs or casework"),
    ):
        assert triage.main([*command, *more]) == 2
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1
    assert not out.exists()


def test_claims_land_in_bundle_report_and_summary_and_are_recomputed(job, tiny_loader, monkeypatch):
    monkeypatch.setattr("bulk.evidence.DEFAULT_DETECTOR", "none")
    run, maker = Run(job.folder), EvidenceMaker(job)
    maker.settings = replace(maker.settings, methods=("gradcam",))
    listed = make_shortlist(run, job.choice)
    assert [maker.explain(number) for number in range(2)] == ["", ""]
    at = next(number for number, one in enumerate(listed) if one.path.endswith("cat.png"))
    bundle = job.folder / "evidence" / listed[at].name
    told = json.loads((bundle / "manifest.json").read_text())["claims"]
    assert [one["claim"] for one in told["claims"]] == list(CAT)
    other = json.loads((job.folder / "evidence" / listed[1 - at].name / "manifest.json").read_text())["claims"]
    assert [one["claim"] for one in other["claims"]] == [CAT[0]]
    # The same as the verifier says by itself.
    bundled = ModelLoader(load_zoo(), offline=True)
    image = Image.open(bundle / "original.png").convert("RGB")
    alone = load_verifier(bundled).verify(image, split_claims(CAT[0]))[0]
    assert told["claims"][0]["support"] == pytest.approx(alone.support, abs=1e-4)
    assert told["claims"][0]["verdict"] == alone.verdict
    assert told["claims"][0]["support"] > told["claims"][1]["support"]
    rows = {row.item: row.outcome for row in replay(bundle, tiny_loader)}
    assert {rows["claim 1"], rows["claim 2"]} <= {"equal", "within tolerance"}
    report = (bundle / "report.html").read_text()
    assert "<h2>Claims</h2>" in report
    assert "&lt;b&gt;Two&lt;/b&gt; elephants" in report
    write_summary(run, listed, job.task)
    page = (job.folder / "summary.html").read_text()
    assert "&lt;b&gt;Two&lt;/b&gt; elephants" in page
    assert "claims about the short list: " in page
    # A second pass with other claims never overwrites evidence, and says so.
    again = EvidenceMaker(replace(job, claims=(Statement("A dog."),)))
    assert "other claims" in again.explain(at)
    assert maker.explain(at) == ""
    write_shortlist(run, listed, {at: "why not"})
    assert json.loads((job.folder / "shortlist.json").read_text())[at]["bundle"] == f"evidence/{listed[at].name}"


def test_verifier_that_cannot_be_had_is_told_and_the_rest_is_kept(job, monkeypatch):
    monkeypatch.setattr("bulk.evidence.DEFAULT_DETECTOR", "none")
    maker = EvidenceMaker(job)
    maker.settings = replace(maker.settings, methods=("gradcam",))

    def refuse(*_, **__):
        raise ExhibitError("no image-text model")

    monkeypatch.setattr("rag.verifier.load_verifier", refuse)
    assert maker.explain(0) == "no image-text model"
    manifest = json.loads((job.folder / "evidence" / maker.listed[0].name / "manifest.json").read_text())
    assert manifest["claims"] is None
    assert manifest["heatmaps"]
    assert {"subject": "claims", "message": "no image-text model"} in manifest["problems"]
    assert maker.explain(0) == "no image-text model"
