"""Questions that recipes take from generated sets, exactly."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from training.errors import DataError
from training.language_recipe import QuestionSource
from training.picture_table import PICTURE_TYPE
from training.questions import read_questions

TRUTHS = {"true": "yes", "false": "no"}


def _png(shade: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(encoded, "PNG")
    return encoded.getvalue()


def _images(*shades: int) -> pa.Array:
    return pa.array([{"bytes": _png(shade), "path": None} for shade in shades], PICTURE_TYPE)


def test_questions_stand_as_they_are_or_are_put_in_a_form(tmp_path: Path) -> None:
    columns = {"image": _images(1, 2, 1), "question": ["A?", "B?", "C?"], "answer": ["1", "2", "3"]}
    pq.write_table(pa.table(columns), tmp_path / "charts.parquet")
    read = read_questions([QuestionSource(kind="questions", file="charts.parquet")], tmp_path, seed=0)
    assert read.pictures == (_png(1), _png(2))
    assert [(one.picture, one.text, one.answer) for one in read.questions] == [
        (0, "A?", "1"),
        (1, "B?", "2"),
        (0, "C?", "3"),
    ]
    put = QuestionSource(kind="questions", file="charts.parquet", question="{question} Answer briefly.")
    assert next(one.text for one in read_questions([put], tmp_path, seed=0).questions) == "A? Answer briefly."


def test_questions_come_from_every_layout(tmp_path: Path) -> None:
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "a.png").write_bytes(_png(3))
    (tmp_path / "list.json").write_text(json.dumps([{"imgname": "a.png", "query": "How many?", "label": 7}]))
    sources = [QuestionSource(kind="questions", file=name) for name in (".", "list.json")]
    read = read_questions(sources, tmp_path, seed=0)
    assert read.pictures == (tmp_path / "png" / "a.png",) * 2
    assert [(one.picture, one.text, one.answer) for one in read.questions] == [
        (0, "How many?", "7"),
        (1, "How many?", "7"),
    ]


def test_claims_are_asked_with_their_counterparts(tmp_path: Path) -> None:
    true = [[f"There are {n} bags." for n in range(5)], ["It is night."], None]
    false = [[f"There are {n + 9} bags." for n in range(5)], ["It is day."], None]
    text = pa.list_(pa.string())
    columns = {"image": _images(1, 2, 3), "claims_true": pa.array(true, text), "claims_false": pa.array(false, text)}
    pq.write_table(pa.table(columns), tmp_path / "casework.parquet")
    source = QuestionSource(kind="claims", file="casework.parquet", question="{claim} Is that so?", answers=TRUTHS)
    read = read_questions([source], tmp_path, seed=0)
    asked = [(one.picture, one.text.removesuffix(" Is that so?"), one.answer) for one in read.questions]
    assert Counter(picture for picture, _, _ in asked) == {0: 4, 1: 2}  # pictures without claims are left out
    for (first, claim, answer), (second, counter, other) in zip(asked[::2], asked[1::2], strict=True):
        assert (first, answer, other) == (second, "yes", "no")
        sentences = (true[first] or [], false[first] or [])
        assert sentences[0].index(claim) == sentences[1].index(counter)
    assert read_questions([source], tmp_path, seed=0).questions == read.questions
    assert read_questions([source], tmp_path, seed=1).questions != read.questions


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "claims", "answers": TRUTHS}, "{claim}"),
        ({"kind": "claims", "question": "{claim}?", "answers": {"true": "yes"}}, "answers for true and false"),
        ({"kind": "questions", "question": "What?"}, "{question}"),
        ({"kind": "labels", "question": "What?"}, "needs answers"),
    ],
)
def test_sources_that_lack_something_are_refused(entries: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        QuestionSource.model_validate({"file": "x.parquet", **entries})
    assert message in str(refused.value)


def test_claims_need_their_columns_and_a_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": _images(1), "label": [0]}), tmp_path / "set.parquet")
    for file, message in (("set.parquet", "cannot be read|no column claims"), ("list.json", "parquet files only")):
        source = QuestionSource(kind="claims", file=file, question="{claim}", answers=TRUTHS)
        with pytest.raises(DataError, match=message):
            read_questions([source], tmp_path, seed=0)
