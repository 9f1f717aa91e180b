"""What Captum measures: how a map answers to changes of the picture, and what each word of a claim does for its score.

Infidelity and max-sensitivity are those of Yeh et al. 2019 (arXiv:1901.09392). A word's score is its Shapley value
(Shapley 1953; sampled as in Castro et al. 2009, doi:10.1016/j.cor.2008.04.004): what the word adds to the cosine of
picture and text, averaged over the orders in which the words could be put in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explain.faithfulness_probe import Probe
from explain.schema import WordAttribution
from explain.words import find_words
from models.errors import IncompatibleMethodError

if TYPE_CHECKING:
    from models.clip import ImageTextModel

__all__ = ["attribute_claim", "attribute_label", "infidelity", "max_sensitivity"]

_NOISE = 0.1
"""Deviation of the noise that infidelity adds, as a part of the picture's own."""

_ALL_ORDERS = 5
"""Words up to which every order is tried; they have at most 32 different texts."""

_ORDERS = 16
"""Orders sampled for a longer claim; each second one is the reverse of that before it."""

_RADIUS = 0.02
"""How far a value of the picture moves for max-sensitivity, at most, in units of the prepared picture."""


def infidelity(probe: Probe, values: NDArray[np.float32], *, samples: int = 32, seed: int = 0) -> float:
    """How far a map is from foretelling what noise in the picture does to the score; lower is better.

    The map is scaled by the one factor that serves it best, since class activation maps have no unit.

    Args:
        probe: picture, model and target.
        values: the map in the probe's frame, float32 (h, w).
        samples: number of noises, shared by all maps of the same seed.
        seed: of the noise.

    Returns:
        At least 0, in units of the score squared.
    """
    from captum.metrics import infidelity as measured

    picture = probe.picture[None].float()
    generator = torch.Generator().manual_seed(seed)
    noise_size = _NOISE * picture.std()

    def perturb(given: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn(given.shape, generator=generator).to(given) * noise_size
        return noise, given - noise

    attribution = torch.from_numpy(values).to(picture).expand_as(picture)
    found = measured(
        lambda variants: probe.score(variants.to(probe.picture.dtype)).to(picture),
        perturb,
        picture,
        attribution,
        n_perturb_samples=samples,
        max_examples_per_batch=probe.batch,
        normalize=True,
    )
    return float(found)


def max_sensitivity(
    explain: Callable[[Tensor], Tensor], picture: Tensor, *, samples: int = 10, radius: float = _RADIUS, seed: int = 0
) -> float:
    """The largest change of a map, relative to its size, when each value of the picture moves by up to ``radius``.

    Args:
        explain: float (n, channels, h, w) pictures to (n, ...) maps.
        picture: float (channels, h, w).
        samples: number of pictures nearby.
        radius: in units of the prepared picture.
        seed: of the moves.

    Returns:
        At least 0; lower is better.
    """
    from captum.metrics import sensitivity_max

    generator = torch.Generator().manual_seed(seed)

    def nearby(given: Tensor | tuple[Tensor, ...], by: float) -> tuple[Tensor, ...]:
        plane = given if isinstance(given, Tensor) else given[0]
        return (plane + (2 * torch.rand(plane.shape, generator=generator).to(plane) - 1) * by,)

    found = sensitivity_max(
        lambda given: (explain(given if isinstance(given, Tensor) else given[0]),),
        picture[None],
        nearby,
        perturb_radius=radius,
        n_perturb_samples=samples,
    )
    return float(found)


def attribute_claim(live: ImageTextModel, image: Image.Image, claim: str, *, seed: int = 0) -> WordAttribution:
    """What each word of a claim adds to its cosine with a picture.

    A word that is absent is cut out of the text, so that every text is one the model could be given. The scores add up
    to the cosine of the whole claim less that of the empty text: exactly for up to five words, whose orders are all
    tried, and for every longer claim too, since each sampled order adds up to it.

    Args:
        live: the image-text model; each different text is encoded once.
        image: RGB picture.
        claim: of any length.
        seed: of the sampled orders.

    Returns:
        One score per word, in units of the cosine; above 0 where the word makes the claim fit better.

    Raises:
        IncompatibleMethodError: the claim has no word, or a cosine is not finite.
    """
    from captum.attr import ShapleyValueSampling

    spans = find_words(claim)
    if not spans:
        raise IncompatibleMethodError("There is no word to score; write what the picture is to be compared with.")
    picture = live.embed_images([image])[0]

    def cosines(present: Tensor) -> Tensor:
        texts = [_keep_words(claim, spans, row) for row in present.bool().tolist()]
        return torch.from_numpy(live.embed_texts(texts) @ picture)

    shapley = ShapleyValueSampling(cosines)
    # Captum's own orders come from the random numbers of the whole process, and would differ from call to call.
    shapley.permutation_generator = lambda count, samples: _orders(count, samples, seed)
    found = shapley.attribute(torch.ones(1, len(spans)), n_samples=_ORDERS, perturbations_per_eval=len(spans))
    scores: NDArray[np.float32] = found[0].numpy()
    if not np.isfinite(scores).all():
        raise IncompatibleMethodError(
            f"{live.spec.id}: the scores of the words are not finite; load the model in float32, or replace its weights"
        )
    return WordAttribution(claim, spans, scores, f"similarity:{claim}", live.spec.id)


def attribute_label(live: ImageTextModel, image: Image.Image, label: str) -> WordAttribution:
    """``attribute_claim`` for a label of a zero-shot classifier: of its texts, the one that fits the picture best."""
    texts = [text for text, owner in live.answers.items() if owner == label]
    return attribute_claim(live, image, texts[int(live.similarity([image], texts)[0].argmax())])


def _orders(count: int, samples: int, seed: int) -> Iterator[Sequence[int]]:
    """Every order of a few words; of more, sampled ones in pairs that run opposite ways."""
    if count <= _ALL_ORDERS:
        yield from permutations(range(count))
        return
    generator = torch.Generator().manual_seed(seed)
    for _ in range(samples // 2):
        order = torch.randperm(count, generator=generator).tolist()
        yield order
        yield order[::-1]


def _keep_words(text: str, spans: Sequence[tuple[int, int]], kept: Sequence[bool]) -> str:
    """The text without the words that are not kept; as it stands where all are, empty where none is."""
    if all(kept):
        return text
    if not any(kept):
        return ""
    pieces, reached = [], 0
    for (start, end), keep in zip(spans, kept, strict=True):
        pieces.append(text[reached : end if keep else start])
        reached = end
    return " ".join("".join((*pieces, text[reached:])).split())
