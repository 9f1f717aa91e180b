"""Targets for image-text models: how well a picture fits a text, alone or held against its foils.

The cosine of one picture and one text has no zero point, and most of its map is what every text would light up. Raw
maps of CLIP are known to come out inverted for that reason (Li et al. 2023, "CLIP Surgery", arXiv:2304.05653): the
background, common to all texts, outweighs the thing named. With foils the common part cancels, so that what remains is
what speaks for this text and not for the others; nothing is turned round after the fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from explain.targets import Target
from models.clip import ImageTextModel
from models.errors import IncompatibleMethodError

__all__ = ["ImageTextSimilarity", "similarity_target"]


@dataclass(frozen=True)
class ImageTextSimilarity(Target):
    """Cosine of the picture and a text, less the mean cosine of the picture and its foils.

    Attributes:
        text: what the picture is compared with.
        foils: texts that the picture must not fit as well; none for the plain cosine.
        direction: float32 (d,), the text's vector less the mean of the foils' vectors.
    """

    text: str
    foils: tuple[str, ...]
    direction: Tensor = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """``similarity:TEXT``, or ``contrast:TEXT`` followed by the foils after vertical bars."""
        return f"contrast:{' | '.join((self.text, *self.foils))}" if self.foils else f"similarity:{self.text}"

    def __call__(self, outputs: Any) -> Tensor:  # noqa: ANN401 - as the other targets
        """(n,) values in [-1, 1], or in [-2, 2] with foils.

        Raises:
            IncompatibleMethodError: the outputs are not those of an image-text model.
        """
        embeds = getattr(outputs, "image_embeds", None)
        if not isinstance(embeds, Tensor):
            raise IncompatibleMethodError(
                "Similarity to a text needs an image-text model such as CLIP; choose one, or explain a label."
            )
        return embeds @ self.direction.to(embeds)


def similarity_target(live: ImageTextModel, text: str, foils: Sequence[str] = ()) -> ImageTextSimilarity:
    """The target for a text, embedded by the model that is to be explained.

    Args:
        live: the image-text model.
        text: what the picture is compared with; of any length.
        foils: texts to hold it against, for instance the claim with one word changed.

    Raises:
        IncompatibleMethodError: the text is empty, or is among its own foils.
    """
    if not text.strip() or not all(foil.strip() for foil in foils):
        raise IncompatibleMethodError("A similarity needs a text; write what the picture is to be compared with.")
    if text in foils:
        raise IncompatibleMethodError(f"{text!r} cannot be its own foil; change a word in the foil.")
    own, *others = torch.from_numpy(live.embed_texts([text, *foils]))
    return ImageTextSimilarity(text, tuple(foils), own - torch.stack(others).mean(0) if others else own)
