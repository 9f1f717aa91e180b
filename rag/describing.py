"""The room's values as plain ones, for ``--json`` and the page's endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rag.schema import Claim, ClaimVerdict, Evidence, Reliability

__all__ = ["describe_check", "describe_evidence"]

Json = dict[str, Any]


def describe_evidence(evidence: Sequence[Evidence]) -> list[Json]:
    """Evidence in the order in which it is cited, without pictures."""
    return [
        {
            "number": number,
            "id": one.chunk.id,
            "source": one.chunk.source.id,
            "kind": one.chunk.source.kind,
            "heading": one.chunk.heading,
            "page": one.chunk.page,
            "text": one.chunk.text,
            "score": one.score,
            "similarity": one.similarity,
            "words": one.words,
            "found_by": list(one.found_by),
        }
        for number, one in enumerate(evidence, 1)
    ]


def describe_check(text: str, verdicts: Sequence[ClaimVerdict], reliability: Reliability, note: str = "") -> Json:
    """A checked answer.

    Args:
        text: the answer, of which the claims' spans are.
        verdicts: on its claims.
        reliability: of the whole.
        note: why nothing was settled, where that is so.
    """
    weakest = reliability.weakest
    return {
        "answer": text,
        "claims": [_describe_verdict(verdict) for verdict in verdicts],
        "reliability": {
            "claims": reliability.claims,
            "supported": reliability.supported,
            "share": reliability.share,
            "low": reliability.low,
            "high": reliability.high,
            "weakest": None if weakest is None else _describe_claim(weakest.claim),
        },
        "note": note,
    }


def _describe_verdict(verdict: ClaimVerdict) -> Json:
    return _describe_claim(verdict.claim) | {
        "verdict": verdict.verdict,
        "support": verdict.support,
        "thresholds": list(verdict.thresholds) if verdict.thresholds else None,
        "signals": dict(verdict.signals),
        "contributions": dict(verdict.contributions),
        "doubts": dict(verdict.doubts),
        "region_xyxy": [float(edge) for edge in verdict.region_xyxy] if verdict.region_xyxy else None,
        "read": verdict.read or None,
        "foils": [{"text": foil.text, "score": foil.score} for foil in verdict.foils],
        "evidence": [one.chunk.id for one in verdict.evidence],
    }


def _describe_claim(claim: Claim) -> Json:
    return {"claim": claim.text, "start": claim.start, "end": claim.end}
