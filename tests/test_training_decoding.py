"""Pictures decoded one by one: in order, by this process or by others, and errors that stay one line."""

from __future__ import annotations

import os

import numpy as np
import pytest

from training import decoding
from training.decoding import count_cores, decode_each
from training.errors import DataError


def test_few_are_decoded_here_in_their_order() -> None:
    told: list[int] = []

    def decode(place: int) -> int:
        told.append(os.getpid())
        return place * place

    assert list(decode_each(70, decode, "squares")) == [place * place for place in range(70)]
    assert set(told) == {os.getpid()}


def test_many_are_decoded_by_other_processes_in_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "WORTH_PROCESSES", 64)
    decoded = list(decode_each(100, lambda place: (np.full((2, 2), place), os.getpid()), "arrays"))
    assert [int(array[0, 0]) for array, _ in decoded] == list(range(100))
    processes = {process for _, process in decoded}
    assert os.getpid() not in processes
    assert len(processes) == min(count_cores(), 4)  # a hundred are four batches


@pytest.mark.parametrize("worth", [64, 2000])
def test_an_error_comes_as_it_was_raised_when_its_turn_has_come(monkeypatch: pytest.MonkeyPatch, worth: int) -> None:
    monkeypatch.setattr(decoding, "WORTH_PROCESSES", worth)

    def decode(place: int) -> int:
        if place == 40:
            raise DataError("row 40: its mask cannot be read.")
        return place

    decoded: list[int] = []
    with pytest.raises(DataError) as raised:
        decoded.extend(decode_each(100, decode, "rows"))
    assert str(raised.value) == "row 40: its mask cannot be read."


def test_nothing_to_decode_gives_nothing() -> None:
    assert list(decode_each(0, str, "none")) == []
