"""How near a picture and a claim are beside what either is near to anyway: strangers' captions and strangers' pictures.

Some pictures and some sentences lie near to everything (hubs, Radovanovic et al. 2010), so that one cosine does not
mean the same for all. Cross-domain similarity local scaling takes off what each has with its nearest strangers
(CSLS: Conneau et al. 2018, arXiv:1710.04087; for image-text retrieval see Bogolin et al. 2022, arXiv:2112.12777).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.errors import ExhibitError

__all__ = ["Strangers", "load_strangers", "save_strangers"]

NEAREST = 10


@dataclass(frozen=True)
class Strangers:
    """Vectors of pictures and of captions that have nothing to do with what is checked.

    Attributes:
        pictures: float32 (p, d), of length 1.
        captions: float32 (c, d), of length 1.
    """

    pictures: NDArray[np.float32]
    captions: NDArray[np.float32]

    def beside(self, picture: NDArray[np.float32], claims: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of a picture and each claim, less half of what each of the two has with its nearest strangers.

        Args:
            picture: float32 (d,), of length 1.
            claims: float32 (n, d), of length 1.

        Returns:
            float32 (n,), in [-2, 2]; near 0 for a claim that fits no better than strangers' do.
        """
        usual_of_picture = _nearest(picture[None] @ self.captions.T)
        usual_of_claims = _nearest(claims @ self.pictures.T)
        return np.asarray(claims @ picture - (usual_of_picture + usual_of_claims) / 2, np.float32)


def save_strangers(strangers: Strangers, file: Path) -> None:
    """Write them in half precision as safetensors."""
    state = {"pictures": strangers.pictures, "captions": strangers.captions}
    save_file({name: np.ascontiguousarray(vectors.astype(np.float16)) for name, vectors in state.items()}, file)


def load_strangers(file: Path) -> Strangers:
    """Stored strangers.

    Raises:
        ExhibitError: the file is missing, damaged, or holds something else.
    """
    try:
        state = load_file(file)
        pictures, captions = (state[name].astype(np.float32) for name in ("pictures", "captions"))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ExhibitError(f"{file}: cannot be read as strangers' vectors ({str(error).splitlines()[0]})") from error
    if pictures.ndim != 2 or pictures.shape[1:] != captions.shape[1:]:
        raise ExhibitError(f"{file}: cannot be read as strangers' vectors (pictures and captions differ in length)")
    return Strangers(pictures, captions)


def _nearest(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, m) to the mean of the largest few of each row, (n,)."""
    return np.asarray(np.sort(cosines, axis=1)[:, -NEAREST:].mean(1), np.float32)
