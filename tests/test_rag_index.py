from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import lancedb
import numpy as np
import pytest

from rag import index as index_module
from rag.index import Filter, Index, IndexUnusableError, Origin, Row
from rag.schema import Chunk, Source

ORIGIN = Origin("tiny", "00", 4, "encoder", 3)


def unit(*values: float) -> np.ndarray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def row(source: str, text: str, number: int = 0, *, picture=None, sentence=None, kind="text", sha="aa") -> Row:
    preview = b"jpeg" if picture is not None else None
    return Row(Chunk(Source(source, kind, sha), number, text, "Head", 2, preview), picture, sentence)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "index", ORIGIN)
    rows = [
        row("photos/car.jpg", "a red car", picture=unit(1, 0, 0, 0), sentence=unit(1, 0, 0), kind="image"),
        row("photos/it's.jpg", "", picture=unit(0, 1, 0, 0), kind="image"),
        row("notes.md", "The car is red and the street is wet.", sentence=unit(1, 1, 0)),
        row("notes.md", "Nothing of it.", 1, sentence=unit(0, 0, 1)),
    ]
    made.replace(["photos/car.jpg", "photos/it's.jpg", "notes.md"], rows, known=False)
    return made


def ids(found) -> list[str]:
    return [one.chunk.id for one in found]


def test_chunks_come_back_as_they_were_put_in(index: Index) -> None:
    first = Index.open(index.address).search_vector("picture", unit(1, 0, 0, 0), 1)[0]
    assert first.chunk == Chunk(Source("photos/car.jpg", "image", "aa"), 0, "a red car", "Head", 2, b"jpeg")
    assert first.score == pytest.approx(1)


def test_vectors_are_ranked_by_cosine_and_those_without_one_never_found(index: Index) -> None:
    found = index.search_vector("picture", unit(1, 2, 0, 0), 10)
    assert ids(found) == ["photos/it's.jpg#0", "photos/car.jpg#0"]
    assert [one.score for one in found] == pytest.approx([2 / 5**0.5, 1 / 5**0.5], abs=1e-6)
    assert ids(index.search_vector("sentence", unit(1, 1, 0), 10)) == ["notes.md#0", "photos/car.jpg#0", "notes.md#1"]


@pytest.mark.parametrize("optimised", [False, True])
def test_words_are_found_before_and_after_tidying_up(index: Index, optimised: bool) -> None:
    if optimised:
        index.optimise()
    assert set(ids(index.search_words("Is the CAR red?", 10))) == {"photos/car.jpg#0", "notes.md#0"}
    assert ids(index.search_words("wet car", 10))[0] == "notes.md#0"
    assert index.search_words("what is the", 10) == []
    assert index.search_words('"unbalanced (quote* AND', 10) == []


def test_filters_hold_for_every_search(index: Index) -> None:
    assert ids(index.search_words("red car", 10, Filter(("image",)))) == ["photos/car.jpg#0"]
    assert ids(index.search_vector("sentence", unit(1, 0, 0), 10, Filter(within="notes"))) == [
        "notes.md#0",
        "notes.md#1",
    ]
    assert ids(index.search_vector("picture", unit(1, 0, 0, 0), 10, Filter(within="photos/it's"))) == [
        "photos/it's.jpg#0"
    ]
    assert index.search_words("red", 10, Filter(within="x' OR '1'='1")) == []
    with pytest.raises(IndexUnusableError, match="no kind"):
        index.search_words("red", 10, Filter(("spreadsheet",)))  # type: ignore[arg-type]


def test_a_changed_source_loses_its_old_chunks_in_the_same_version(index: Index) -> None:
    index.replace(["notes.md"], [row("notes.md", "Green now.", sha="bb", sentence=unit(1, 0, 0))])
    assert index.sources() == {"photos/car.jpg": "aa", "photos/it's.jpg": "aa", "notes.md": "bb"}
    assert len(index) == 3
    assert ids(index.search_words("green", 10)) == ["notes.md#0"]
    assert index.search_words("street", 10) == []
    index.replace(["notes.md"], [])
    index.remove(["photos/it's.jpg"])
    assert index.sources() == {"photos/car.jpg": "aa"}


def test_other_models_are_refused(index: Index) -> None:
    with pytest.raises(IndexUnusableError, match="built with tiny, not other"):
        Index.create(index.address, Origin("other", "00", 4, "encoder", 3))
    with pytest.raises(IndexUnusableError, match="other weights"):
        index.check(Origin("tiny", "11", 4, "encoder", 3))


def test_what_is_no_index_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(IndexUnusableError, match="python -m rag build"):
        Index.open(tmp_path / "absent")
    with pytest.raises(IndexUnusableError, match="python -m rag build"):
        Index.open(tmp_path)
    lancedb.connect(tmp_path / "foreign").create_table("chunks", [{"a": 1}])
    with pytest.raises(IndexUnusableError, match="did not build"):
        Index.open(tmp_path / "foreign")


def test_a_bucket_s_address_is_passed_through(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def connect(address: str, **_: object) -> None:
        asked.append(address)
        raise OSError("no network here")

    monkeypatch.setattr(lancedb, "connect", connect)
    for address in ("s3://bucket/index", "gs://bucket/index"):
        with pytest.raises(IndexUnusableError, match=r"bucket/index: .*no network here"):
            Index.open(address)
    assert asked == ["s3://bucket/index", "gs://bucket/index"]


def test_the_approximate_index_is_built_once_it_pays_and_finds_nearly_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "APPROXIMATE_FROM", 2000)
    monkeypatch.setattr(index_module, "_ROWS_A_CELL", 50)
    made = Index.create(tmp_path, Origin("tiny", "00", 64, "encoder", 3))
    random = np.random.default_rng(0)
    centres = random.normal(size=(100, 64))  # as pictures of much the same lie together

    def near() -> np.ndarray:
        return unit(*(random.choice(centres) + 0.4 * random.normal(size=64)))

    def rows(start: int, count: int) -> list[Row]:
        numbers = range(start, start + count)
        pictures = [row(f"{at}.jpg", "", picture=near(), kind="image") for at in numbers]
        # Every second file is a text, which has no picture's vector.
        return [one for at in numbers for one in (pictures[at - start], row(f"{at}.txt", "x", sentence=unit(1, 0, at)))]

    made.replace([], rows(0, 1999), known=False)
    made.optimise()
    assert [each.columns for each in made._table.list_indices()] == [["words"]]
    made.replace([], rows(1999, 100), known=False)
    made.optimise()
    assert ["picture"] in [each.columns for each in made._table.list_indices()]
    made.replace([], rows(2099, 50), known=False)  # not yet in the index, and found all the same
    assert ["sentence"] not in [each.columns for each in made._table.list_indices()]  # 3 entries are no whole byte
    asked = [near() for _ in range(20)]
    hits = [
        len({*ids(made.search_vector("picture", one, 10))} & {*ids(made.search_vector("picture", one, 10, exact=True))})
        for one in asked
    ]
    assert sum(hits) / 200 >= 0.95


def test_only_one_build_writes_at_a_time(index: Index) -> None:
    with index.writing(), pytest.raises(IndexUnusableError, match="another build"), Index.open(index.address).writing():
        pass
    with index.writing():
        pass


def test_two_readers_see_whole_versions_while_one_writes(index: Index) -> None:
    """Every version has two chunks of the same hash; a reader that saw a mixture would find two hashes or one chunk."""
    done, problems = Event(), []

    def read() -> None:
        reader = Index.open(index.address)
        while not done.is_set():
            found = reader.search_vector("sentence", unit(0, 0, 1), 10, Filter(within="pair"))
            if len(found) != 2 or len({one.chunk.source.sha256 for one in found}) != 1:
                problems.append(found)

    def pair(sha: str) -> list[Row]:
        return [row("pair", f"{sha} {at}", at, sentence=unit(0, 0, 1), sha=sha) for at in range(2)]

    index.replace(["pair"], pair("start"))
    readers = [Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(15):
            index.replace(["pair"], pair(f"turn {turn}"))
            if turn % 5 == 4:
                index.optimise()
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert problems == []
    assert index.sources()["pair"] == "turn 14"


WRITER = """
import sys
import numpy as np
from rag.index import Index, Origin, Row
from rag.schema import Chunk, Source
index = Index.create(sys.argv[1], Origin("tiny", "00", 4, "encoder", 3))
print("ready", flush=True)
vector = np.array([1, 0, 0], np.float32)
for turn in range(10000):
    source = Source("pair", "text", str(turn))
    rows = [Row(Chunk(source, at, "words " * 200), None, vector) for at in range(2)]
    index.replace(["pair"], rows)
    if turn % 4 == 3:
        index.optimise()
    print(turn, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_index(tmp_path: Path) -> None:
    place = tmp_path / "index"
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", WRITER, str(place)]
    writer = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert [writer.stdout.readline().strip() for _ in range(4)] == ["ready", "0", "1", "2"]
    time.sleep(0.05)  # somewhere in the next versions
    writer.send_signal(signal.SIGKILL)
    told = [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    index = Index.open(place)
    found = index.search_vector("sentence", np.array([1, 0, 0], np.float32), 10)
    (digest,) = {one.chunk.source.sha256 for one in found}
    assert len(found) == 2
    assert int(digest) >= max(told, default=2)  # what was told as written is there
    assert len(index.search_words("words", 10)) == 2
    index.replace(["pair"], [row("pair", "after", sentence=unit(1, 0, 0))])  # and it can be written to
    index.optimise()
    assert index.sources() == {"pair": "aa"}


def test_a_table_begun_and_never_written_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "chunks.lance").mkdir()
    for _ in range(2):  # the second time it is there, and empty
        assert len(Index.create(tmp_path, ORIGIN)) == 0
