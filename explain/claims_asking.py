"""Statements about the picture of an examination, held against it by the verifier of the room ``rag``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from explain.examination import CheckedClaims, Examination, Problem
from models.errors import ExhibitError
from models.loading import ModelLoader
from rag.schema import Claim

if TYPE_CHECKING:
    from rag.verifier import Verifier

__all__ = ["ClaimChecker"]

LOGGER = logging.getLogger(__name__)
PHOTOGRAPHS = "photographs"


class ClaimChecker:
    """Checks claims against pictures; the verifier is loaded once, with the first claim.

    Args:
        loader: with a zoo that has the bundled image-text model.
        domain: kind of pictures, one of ``rag.verifier.DOMAINS``.
    """

    def __init__(self, loader: ModelLoader, domain: str = PHOTOGRAPHS) -> None:
        self._loader = loader
        self.domain = domain
        self._loaded: Verifier | None = None

    def check(self, examination: Examination, claims: Sequence[str]) -> Examination:
        """The examination with what the picture says of claims.

        Args:
            examination: of the picture.
            claims: a sentence each, able to stand alone.

        Returns:
            The same with ``claims``; where the verifier cannot be had, with that as a problem. Without claims nothing
            changes.
        """
        if not claims:
            return examination
        started = time.perf_counter()
        try:
            checked = self._judge(examination, claims)
        except ExhibitError as error:
            LOGGER.warning("claims: %s", error)
            return replace(examination, problems=(*examination.problems, Problem("claims", str(error))))
        return replace(
            examination,
            claims=checked,
            timings_s={**examination.timings_s, "claims": time.perf_counter() - started},
        )

    def _judge(self, examination: Examination, claims: Sequence[str]) -> CheckedClaims:
        verifier = self._verifier()
        text = "\n".join(claims)
        verdicts = verifier.verify(examination.source.rgb, list(_place(claims)))
        status = verifier.clip.status
        return CheckedClaims(
            verifier.clip.spec.id, status.weights_sha256, self.domain, text, tuple(verdicts), verifier.note
        )

    def _verifier(self) -> Verifier:
        if self._loaded is None:
            from rag.verifier import load_verifier

            self._loaded = load_verifier(self._loader, domain=self.domain)
        return self._loaded


def _place(claims: Sequence[str]) -> Iterator[Claim]:
    """Claims with their places in the text that has a line for each."""
    start = 0
    for claim in claims:
        yield Claim(claim, start, start + len(claim))
        start += len(claim) + 1
