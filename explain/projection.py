"""The one direction that the two Eigen methods need, found without decomposing the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["principal_projection"]

Cells = NDArray[np.float32]

_DUST = 1e-6
"""What is smaller than this part of what it was made from is rounding of float32, not evidence."""

_SMALL = 64
"""Up to this many rows an exact decomposition is faster than Lanczos."""

_RESTARTS = 20
"""Lanczos restarts before decomposing exactly; pure noise of 1280 x 3072 needs three."""


def principal_projection(cells: Cells) -> Cells:
    """Projection of every cell on the first principal direction of all cells, as in Eigen-CAM.

    The direction is that of pytorch-grad-cam's decomposition (channels centred over the cells). Its sign, which no
    decomposition defines, is the one in which the projection rises with the mean over channels. Where that mean is the
    same everywhere (as after a LayerNorm), the side that stands out most is positive, as in Seg-Eigen-CAM (Chung and
    Ying 2025, doi:10.3390/app15137562).

    Args:
        cells: (channels, cells).

    Returns:
        (cells,) with mean 0; zeros if all cells are equal, NaN if any value is not finite.
    """
    whole = float(np.vdot(cells, cells))
    if not np.isfinite(whole):
        return np.full(cells.shape[1], np.nan, np.float32)
    centred = cells - cells.mean(axis=1, keepdims=True)
    if float(np.vdot(centred, centred)) <= _DUST**2 * whole:
        return np.zeros(cells.shape[1], np.float32)
    if centred.shape[0] <= centred.shape[1]:
        projection = centred.T @ _strongest(centred)[1]
    else:
        strength, direction = _strongest(centred.T)
        projection = np.sqrt(strength) * direction
    mean = cells.mean(axis=0)
    mean -= mean.mean()
    if float(np.vdot(mean, mean)) * len(cells) > _DUST**2 * whole:
        flip = float(np.vdot(projection, mean)) < 0
    else:
        flip = -projection.min() > projection.max()
    return (-projection if flip else projection).astype(np.float32)


def _strongest(matrix: Cells) -> tuple[float, Cells]:
    """First eigenvalue and eigenvector of ``matrix @ matrix.T``, for a matrix with no more rows than columns."""
    rows = matrix.shape[0]
    if rows <= _SMALL:
        values, vectors = np.linalg.eigh(matrix @ matrix.T)
        return values[-1], vectors[:, -1]
    # scipy takes a while to load, and small maps do not need it.
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    squared = LinearOperator((rows, rows), matvec=lambda vector: matrix @ (matrix.T @ vector), dtype=matrix.dtype)
    longest = matrix[:, np.einsum("ij,ij->j", matrix, matrix).argmax()]
    try:
        # A fixed start makes the result repeatable.
        values, vectors = eigsh(squared, k=1, which="LA", v0=longest, tol=_DUST, maxiter=_RESTARTS)
    except ArpackNoConvergence:
        # The first directions are nearly equally strong.
        values, vectors = eigh(matrix @ matrix.T, subset_by_index=[rows - 1, rows - 1])
    return values[0], vectors[:, 0]
