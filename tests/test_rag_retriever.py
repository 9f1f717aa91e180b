from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from rag.building import Building, build_index
from rag.corpus import CorpusError
from rag.embedding import Embedder
from rag.index import Filter, Index, IndexUnusableError
from rag.retriever import Retriever
from tests.tiny_rag import make_embedder, striped, write_corpus


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return make_embedder(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def retriever(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Retriever:
    root = tmp_path_factory.mktemp("built")
    assert build(write_corpus(root / "corpus"), root / "index", embedder).done
    return Retriever(Index.open(root / "index"), embedder)


def build(corpus: Path, index: Path, embedder: Embedder) -> Building:
    *_, last = build_index(corpus, index, embedder)
    return last


def test_a_question_finds_pictures_and_passages_with_their_scores(retriever: Retriever) -> None:
    found = retriever.find_by_text("Whose is the red car?")
    assert {one.chunk.id for one in found[:2]} == {"photos/car.png#0", "note.md#0"}
    best = found[0]
    assert set(best.found_by) >= {"sentence", "words"}
    assert best.words is not None
    assert best.words > 0
    assert best.similarity is not None
    assert -1 <= best.similarity <= 1
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    # A picture without a caption is found by its looks alone.
    plain = next(one for one in found if one.chunk.source.id == "photos/plain.png")
    assert plain.found_by == ("picture",)
    assert plain.words is None


def test_filters_and_limits_hold(retriever: Retriever) -> None:
    pictures = retriever.find_by_text("red car", only=Filter(("image",)))
    assert {one.chunk.source.kind for one in pictures} == {"image"}
    assert {one.chunk.source.id for one in retriever.find_by_text("red car", only=Filter(within="note"))} == {"note.md"}
    assert len(retriever.find_by_text("red car", 2)) == 2
    assert retriever.find_by_text("  ") == ()


def test_a_picture_finds_itself_first(retriever: Retriever) -> None:
    found = retriever.find_by_image(striped("green", "black"))
    assert found[0].chunk.source.id == "photos/tree.png"
    assert found[0].score == pytest.approx(1, abs=1e-5)
    assert len(found) == 3


def test_a_question_about_a_picture_finds_what_is_about_either(retriever: Retriever) -> None:
    found = retriever.find("Whose is the red car?", striped("green", "black"))
    tree = next(one for one in found if one.chunk.source.id == "photos/tree.png")
    assert "look" in tree.found_by
    assert tree.similarity == pytest.approx(1, abs=1e-5)
    assert "note.md#0" in [one.chunk.id for one in found]
    assert retriever.find("", striped("green", "black"))[0].chunk.source.id == "photos/tree.png"
    assert retriever.find("red car") == retriever.find_by_text("red car")


def test_a_region_finds_what_it_looks_like(retriever: Retriever) -> None:
    canvas = Image.new("RGB", (300, 200), "gray")
    canvas.paste(striped("blue", "yellow").resize((64, 64)), (100, 50))
    expected = retriever.find_by_image(striped("blue", "yellow").resize((64, 64)))
    found = retriever.find_by_region(canvas, (100, 50, 164, 114))
    assert [one.chunk.id for one in found] == [one.chunk.id for one in expected]
    assert found[0].score == pytest.approx(expected[0].score, abs=1e-4)
    assert {one.found_by for one in found} == {("region",)}


def test_an_index_of_other_models_is_not_searched(retriever: Retriever, embedder: Embedder) -> None:
    other = replace(embedder, sentence_model="another")
    with pytest.raises(IndexUnusableError):
        Retriever(retriever.index, other)


def test_only_new_and_changed_files_are_embedded_and_gone_ones_leave(tmp_path: Path, embedder: Embedder) -> None:
    corpus, place = write_corpus(tmp_path / "corpus"), tmp_path / "index"
    (corpus / "broken.jpg").write_bytes(b"no picture")
    (corpus / "data.bin").write_bytes(b"x")
    first = build(corpus, place, embedder)
    assert (first.files, first.seen, first.written, first.unchanged, first.ignored) == (6, 6, 5, 0, 1)
    assert first.chunks == 6
    (problem,) = first.problems
    assert problem.startswith("broken.jpg: ")

    class Counting:
        def __init__(self) -> None:
            self.texts: list[str] = []

        def embed(self, texts):
            self.texts += texts
            return embedder.sentences.embed(texts)

    counting = Counting()
    (corpus / "photos" / "tree.txt").write_text("A green bush.", encoding="utf-8")
    (corpus / "page.html").unlink()
    (corpus / "note.md").write_bytes(b"\xff\xfe\xff")  # readable before, no longer
    second = build(corpus, place, replace(embedder, sentences=counting))
    assert (second.written, second.unchanged, second.removed) == (1, 2, 2)
    assert [text for text in counting.texts if text != "a"] == ["A green bush."]
    assert Index.open(place).sources().keys() == {"photos/car.png", "photos/tree.png", "photos/plain.png"}
    third = build(corpus, place, embedder)
    assert (third.written, third.unchanged, third.removed) == (0, 3, 0)


def test_a_build_that_was_stopped_goes_on_where_it_was(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.building.FILES_AT_ONCE", 2)
    corpus, place = write_corpus(tmp_path / "corpus"), tmp_path / "index"
    cancel = Event()
    for state in build_index(corpus, place, embedder, cancel):
        if state.seen == 2:
            cancel.set()
    assert not state.done
    assert len(Index.open(place).sources()) == 2
    last = build(corpus, place, embedder)
    assert (last.unchanged, last.written, last.done) == (2, 3, True)


def test_an_empty_folder_makes_no_index(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "corpus").mkdir()
    with pytest.raises(CorpusError):
        build(tmp_path / "corpus", tmp_path / "index", embedder)
    assert not (tmp_path / "index").exists()
