from __future__ import annotations

import math

import pytest

from rag.schema import Chunk, Claim, ClaimVerdict, Source, measure_reliability


def verdict(name: str, support: float) -> ClaimVerdict:
    return ClaimVerdict(Claim("a cat", 0, 5), name, support)  # type: ignore[arg-type]


def test_a_chunk_is_named_after_its_file_and_its_place_in_it() -> None:
    assert Chunk(Source("notes/lab.md", "markdown", "00"), 2, "text").id == "notes/lab.md#2"


@pytest.mark.parametrize("span", [(3, 3), (5, 3), (-1, 3)])
def test_a_claim_covers_something(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="span"):
        Claim("a cat", *span)


@pytest.mark.parametrize("support", [-0.1, 1.1, math.nan])
def test_support_is_a_share(support: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        verdict("supported", support)


def test_only_three_verdicts_exist() -> None:
    with pytest.raises(ValueError, match="not_enough_evidence"):
        verdict("maybe", 0.5)


def test_reliability_is_the_share_of_supported_claims_with_wilsons_interval() -> None:
    found = measure_reliability([verdict("supported", 0.9), verdict("refuted", 0.1), verdict("supported", 0.8)])
    assert (found.claims, found.supported) == (3, 2)
    # Wilson's interval of 2 in 3, as printed in tables.
    assert (found.low, found.high) == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert found.weakest is not None
    assert found.weakest.verdict == "refuted"


def test_an_answer_without_claims_has_no_share() -> None:
    found = measure_reliability([])
    assert (found.share, found.weakest, found.low, found.high) == (None, None, 0.0, 1.0)
