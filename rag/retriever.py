"""Questions, pictures and regions to evidence: what an index holds that is about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag.embedding import Embedder
from rag.index import EVERYTHING, PICTURE, SENTENCE, Filter, Found, Index
from rag.ranking import fuse_rankings
from rag.schema import Chunk, Evidence

if TYPE_CHECKING:
    from PIL import Image

    from models.schema import Box

__all__ = ["Retriever"]

WORDS, LOOK, REGION = "words", "look", "region"
_DEEPER = 5
"""Each search looks at this many times what is wanted: what one ranks tenth, another may rank first."""


@dataclass(frozen=True)
class Retriever:
    """Searches one index.

    Attributes:
        index: where.
        embedder: of the models that it was built with.
    """

    index: Index
    embedder: Embedder

    def __post_init__(self) -> None:
        """Refuse models that the index was not built with."""
        self.index.check(self.embedder.origin)

    def find(
        self, question: str, image: Image.Image | None = None, limit: int = 8, only: Filter = EVERYTHING
    ) -> tuple[Evidence, ...]:
        """Evidence for a question, and for the picture that it is about where there is one; see the two below."""
        if image is None:
            return self.find_by_text(question, limit, only)
        found = self._search_text(question, limit * _DEEPER, only) if question.strip() else {}
        look = self.index.search_vector(PICTURE, self.embedder.embed_pictures([image])[0], limit * _DEEPER, only)
        return _join({**found, LOOK: look})[:limit]

    def find_by_text(self, text: str, limit: int = 8, only: Filter = EVERYTHING) -> tuple[Evidence, ...]:
        """Pictures and passages for a question or a description, the best first.

        Three searches are joined by reciprocal-rank fusion: pictures that look like the text, passages and captions
        that mean it, and those that share its words.

        Args:
            text: in any language the encoders know.
            limit: most evidence.
            only: which chunks count.
        """
        if not text.strip():
            return ()
        return _join(self._search_text(text, limit * _DEEPER, only))[:limit]

    def find_by_image(self, image: Image.Image, limit: int = 8, only: Filter = EVERYTHING) -> tuple[Evidence, ...]:
        """Pictures that look like an RGB picture, by cosine, the best first."""
        return _rank(self.index.search_vector(PICTURE, self.embedder.embed_pictures([image])[0], limit, only))

    def find_by_region(
        self, image: Image.Image, box_xyxy: Box, limit: int = 8, only: Filter = EVERYTHING
    ) -> tuple[Evidence, ...]:
        """Pictures that look like a part of an RGB picture.

        Args:
            image: the whole picture.
            box_xyxy: in its pixels.
            limit: most evidence.
            only: which chunks count.

        Raises:
            ValueError: the box covers nothing of the picture.
        """
        vector = self.embedder.pictures.embed_regions(image, [box_xyxy])[0]
        return _rank(self.index.search_vector(PICTURE, vector, limit, only), REGION)

    def _search_text(self, text: str, depth: int, only: Filter) -> dict[str, list[Found]]:
        return {
            PICTURE: self.index.search_vector(PICTURE, self.embedder.pictures.embed_texts([text])[0], depth, only),
            SENTENCE: self.index.search_vector(SENTENCE, self.embedder.sentences.embed([text])[0], depth, only),
            WORDS: self.index.search_words(text, depth, only),
        }


def _rank(found: Sequence[Found], name: str = PICTURE) -> tuple[Evidence, ...]:
    return tuple(Evidence(one.chunk, one.score, similarity=one.score, found_by=(name,)) for one in found)


def _join(found: Mapping[str, Sequence[Found]]) -> tuple[Evidence, ...]:
    """The searches' results as one ranking; the cosine kept is of the search that knows most of what is alike."""
    chunks: dict[str, Chunk] = {one.chunk.id: one.chunk for ranking in found.values() for one in ranking}
    scores = {name: {one.chunk.id: one.score for one in ranking} for name, ranking in found.items()}
    fused = fuse_rankings({name: [one.chunk.id for one in ranking] for name, ranking in found.items()})
    return tuple(
        Evidence(
            chunk=chunks[chunk_id],
            score=score,
            similarity=next((scores[name][chunk_id] for name in (LOOK, SENTENCE, PICTURE) if name in found_by), None),
            words=scores.get(WORDS, {}).get(chunk_id),
            found_by=found_by,
        )
        for chunk_id, (score, found_by) in fused.items()
    )
