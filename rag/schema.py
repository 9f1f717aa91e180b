"""Frozen values of the room: sources, chunks, evidence, an answer, its claims and what the picture says of them.

A source's id is its path within the corpus, a chunk's is that path and the chunk's number (``notes/lab.md#2``): both
stay the same for the same files wherever the folder lies, so that a citation can be looked up again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from models.schema import Box  # brings torch along, which a search does not need

__all__ = [
    "SOURCE_KINDS",
    "VERDICTS",
    "Answer",
    "Chunk",
    "Claim",
    "ClaimVerdict",
    "Evidence",
    "Foil",
    "Reliability",
    "Source",
    "SourceKind",
    "VerdictName",
    "measure_reliability",
]

SourceKind = Literal["image", "text", "markdown", "pdf", "html"]
SOURCE_KINDS: tuple[SourceKind, ...] = get_args(SourceKind)
VerdictName = Literal["supported", "refuted", "not_enough_evidence"]
VERDICTS: tuple[VerdictName, ...] = get_args(VerdictName)

_Z = 1.959963984540054
"""Half-width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Source:
    """One file of a corpus.

    Attributes:
        id: path within the corpus, parts joined by ``/``.
        kind: what the file was read as.
        sha256: hex SHA-256 of all that its chunks come from; for a picture its bytes and its caption's.
    """

    id: str
    kind: SourceKind
    sha256: str


@dataclass(frozen=True)
class Chunk:
    """The smallest thing that is found: a picture with its captions, or a passage of a document.

    Attributes:
        source: the file it is from.
        number: place among the chunks of that file, from 0.
        text: the passage, or the picture's captions (one a line); may be empty for a picture.
        heading: title or headings above the passage.
        page: page of a PDF, from 1.
        picture: a picture as a JPEG of moderate size, so that an index can be shown where its files are not.
    """

    source: Source
    number: int
    text: str
    heading: str = ""
    page: int | None = None
    picture: bytes | None = field(default=None, repr=False)

    @property
    def id(self) -> str:
        """``SOURCE#NUMBER``."""
        return f"{self.source.id}#{self.number}"


@dataclass(frozen=True)
class Evidence:
    """A retrieved chunk and why it was.

    Attributes:
        chunk: what was found.
        score: what the results are ranked by: reciprocal-rank fusion where two searches were joined (Cormack et al.
            2009), else the one search's own score. Comparable only within one answer.
        similarity: cosine of the query's and the chunk's vector in [-1, 1]; None where words alone found it.
        words: BM25 of the query in the chunk's text, 0 or more; None where the vector alone found it.
        found_by: names of the searches that found it: ``picture`` (looks like the question), ``sentence`` (means it),
            ``words`` (shares its words), ``look`` (looks like the picture that was given), ``region`` (looks like a
            part of it).
    """

    chunk: Chunk
    score: float
    similarity: float | None = None
    words: float | None = None
    found_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One checkable statement of an answer.

    Attributes:
        text: the statement, able to stand alone.
        start: offset of its first character in the answer.
        end: offset behind its last; ``answer[start:end]`` is what a page colours. Equals ``text`` unless a finer
            splitter has rewritten it.
    """

    text: str
    start: int
    end: int

    def __post_init__(self) -> None:
        """Refuse an empty claim or span."""
        if not self.text.strip() or not 0 <= self.start < self.end:
            raise ValueError(f"a claim needs words and a span, not {self.text!r} at {self.start}:{self.end}")


@dataclass(frozen=True)
class Foil:
    """A text that is false if the claim is true, one word of it swapped, and how well it fits the picture.

    Attributes:
        text: the changed claim.
        score: cosine with the picture in [-1, 1].
    """

    text: str
    score: float


@dataclass(frozen=True)
class ClaimVerdict:
    """What a picture says of a claim, and what made it say so.

    Attributes:
        claim: the statement.
        verdict: ``supported``, ``refuted``, or ``not_enough_evidence`` where the signals do not settle it.
        support: in [0, 1], calibrated: the share of claims with this score that are true.
        signals: name to measured value, each in its own unit; a signal that could not be measured is absent.
        contributions: name to what the signal added to the log-odds of ``support``.
        doubts: name of a way of being false to its share of what speaks against the claim; empty without calibration.
        region_xyxy: the part of the picture that fits best, in its original pixels; None where none stands out.
        foils: counter-claims with their scores, the best fitting first.
        evidence: retrieved chunks that were used.
        read: the text in the picture where a quotation of the claim would stand; empty where none was sought or found.
        thresholds: support below which a claim is refuted, and from which it is supported.
    """

    claim: Claim
    verdict: VerdictName
    support: float
    signals: Mapping[str, float] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)
    doubts: Mapping[str, float] = field(default_factory=dict)
    region_xyxy: Box | None = None
    foils: tuple[Foil, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    thresholds: tuple[float, float] | None = None
    read: str = ""

    def __post_init__(self) -> None:
        """Refuse a verdict that is none, or a support outside [0, 1]."""
        if self.verdict not in VERDICTS:
            raise ValueError(f"{self.verdict!r} is no verdict; it is one of {', '.join(VERDICTS)}")
        if not 0 <= self.support <= 1:  # also NaN
            raise ValueError(f"a support lies in [0, 1], not at {self.support}")


@dataclass(frozen=True)
class Answer:
    """An answer to a question, with what it rests on.

    Attributes:
        question: as asked.
        text: the answer; so far, while it is being written.
        answerer: name of the answerer, with its model (``endpoint:llama3``).
        evidence: what the answerer was given, in the order in which it cites it: ``[1]`` is the first.
        done: whether the text is whole.
    """

    question: str
    text: str
    answerer: str
    evidence: tuple[Evidence, ...] = ()
    done: bool = True


@dataclass(frozen=True)
class Reliability:
    """How far to believe an answer.

    Attributes:
        claims: how many were checked.
        supported: how many of them the picture supports.
        share: ``supported`` of ``claims``; None for an answer without claims.
        low: lower end of its 95 % interval (Wilson 1927), which stays wide for few claims.
        high: upper end.
        weakest: the claim of least support; None without claims.
    """

    claims: int
    supported: int
    share: float | None
    low: float
    high: float
    weakest: ClaimVerdict | None


def measure_reliability(verdicts: Sequence[ClaimVerdict]) -> Reliability:
    """The share of claims that are supported, with its interval, and the weakest claim.

    Args:
        verdicts: of one answer, in any order; of equally weak ones the first is named.
    """
    if not verdicts:
        return Reliability(0, 0, None, 0.0, 1.0, None)
    count = len(verdicts)
    supported = sum(one.verdict == "supported" for one in verdicts)
    share = supported / count
    scale = 1 + _Z**2 / count
    middle = (share + _Z**2 / (2 * count)) / scale
    reach = _Z / scale * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    weakest = min(verdicts, key=lambda one: one.support)
    return Reliability(count, supported, share, max(0.0, middle - reach), min(1.0, middle + reach), weakest)
