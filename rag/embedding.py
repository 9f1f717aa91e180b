"""The two encoders of retrieval: pictures and texts in one space, and sentences in their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import ModelUnavailableError
from rag.index import Origin

if TYPE_CHECKING:
    from PIL import Image

    from models.clip import ImageTextModel
    from models.loading import ModelLoader

__all__ = ["DEFAULT_PICTURE_MODEL", "Embedder", "TextEncoder", "load_embedder"]

DEFAULT_PICTURE_MODEL = "bundled-openclip"
SENTENCE_WIDTH = 384

Vectors = NDArray[np.float32]


class TextEncoder(Protocol):
    """What retrieval needs of a sentence encoder."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Texts as (n, d) float32 vectors of length 1."""


@dataclass(frozen=True)
class Embedder:
    """What turns pictures and texts into vectors.

    Attributes:
        pictures: for pictures, regions, and the texts that describe one.
        sentences: for passages and captions among each other.
        sentence_model: the latter's name.
    """

    pictures: ImageTextModel
    sentences: TextEncoder
    sentence_model: str

    @property
    def origin(self) -> Origin:
        """What an index built with these says of them."""
        return Origin(
            picture_model=self.pictures.spec.id,
            picture_weights=self.pictures.status.weights_sha256,
            picture_width=self.pictures.embed_texts(["a"]).shape[1],
            sentence_model=self.sentence_model,
            sentence_width=self.sentences.embed(["a"]).shape[1],
        )

    def embed_pictures(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB pictures as (n, d) float32 vectors of length 1."""
        return self.pictures.embed_images(images)


def load_embedder(
    loader: ModelLoader, model_id: str = DEFAULT_PICTURE_MODEL, sentences: TextEncoder | None = None
) -> Embedder:
    """The encoders, loaded now if they are not in memory.

    Args:
        loader: of the models.
        model_id: zoo id of an image-text model.
        sentences: the packaged sentence encoder where somebody has it already.

    Raises:
        ModelUnavailableError: the model cannot be had, or is no image-text model.
    """
    from models.clip import ImageTextModel
    from models.clip_sentence import ENCODER_NAME, SentenceEncoder

    live = loader.load(model_id)
    if not isinstance(live, ImageTextModel):
        raise ModelUnavailableError(
            f"{model_id} compares no pictures with texts", f"name a model of kind clip, such as {DEFAULT_PICTURE_MODEL}"
        )
    return Embedder(live, sentences or SentenceEncoder(), ENCODER_NAME)
