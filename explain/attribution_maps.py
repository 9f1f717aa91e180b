"""Signed maps by Captum: what each pixel adds to the score of a target, or takes from it.

Integrated gradients (Sundararajan et al. 2017) and GradientSHAP (Lundberg and Lee 2017) share out by how much the
picture's score differs from that of a picture without anything on it; occlusion (Zeiler and Fergus 2014) covers one
square after the other. Red and blue of such a map are of one scale: half of what it shows may speak against the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explain.cam import MapProblem
from explain.catalog import get_method
from explain.faithfulness_baselines import make_baseline
from explain.faithfulness_probe import ModelProbe, fixed_target, make_probe
from explain.schema import Heatmap, MapPart
from explain.targets import Target
from models.errors import IncompatibleMethodError
from models.schema import LiveModel

__all__ = ["attribute_picture", "gradient_shap", "integrated_gradients", "occlusion"]

Score = Callable[[Tensor], Tensor]
"""Float (n, channels, h, w) pictures to (n,) scores, in their graph."""

PIXELS = "pixels"
"""``Heatmap.layer`` of these maps: no layer is looked into."""
STEPS = 32
SAMPLES = 24
_BATCH = 8
_NOISE = 0.05
"""Deviation of GradientSHAP's noise, as a part of the picture's own."""
_WINDOWS = 7
"""Squares along the shorter side; each is moved by half its own side."""
_SHOWN = 0.995
"""Share of the pixels that the colour scale reaches: single pixels stand out by far and would leave all others grey."""


def integrated_gradients(
    score: Score, picture: Tensor, baseline: Tensor, *, steps: int = STEPS, batch: int = _BATCH
) -> tuple[Tensor, float]:
    """The gradient averaged on the way from a baseline to the picture, times the way.

    Args:
        score: of one target.
        picture: float (channels, h, w).
        baseline: what stands for nothing, likewise.
        steps: points on the way.
        batch: of them at a time.

    Returns:
        (channels, h, w), and the convergence delta: by what their sum misses the difference of the two scores.
    """
    from captum.attr import IntegratedGradients

    found, delta = IntegratedGradients(score).attribute(
        picture[None],
        baselines=baseline[None],
        n_steps=steps,
        internal_batch_size=batch,
        return_convergence_delta=True,
    )
    return found[0].detach(), float(delta[0])


def gradient_shap(
    score: Score, picture: Tensor, baselines: Tensor, *, samples: int = SAMPLES, batch: int = _BATCH, seed: int = 0
) -> tuple[Tensor, float]:
    """The same at random points of the ways from several baselines to the picture with a little noise.

    Args:
        score: of one target.
        picture: float (channels, h, w).
        baselines: float (n, channels, h, w), drawn from at random.
        samples: points, rounded up to whole batches.
        batch: of them at a time.
        seed: of points, baselines and noise.

    Returns:
        (channels, h, w), and the convergence delta, averaged over the points.
    """
    from captum.attr import GradientShap

    total, deltas, rounds = torch.zeros_like(picture), [], -(-samples // batch)
    with _seeded(seed):
        for _ in range(rounds):
            found, delta = GradientShap(score).attribute(
                picture[None],
                baselines=baselines,
                n_samples=batch,
                stdevs=float(_NOISE * picture.std()),
                return_convergence_delta=True,
            )
            total += found[0].detach()
            deltas.append(float(delta.mean()))
    return total / rounds, float(np.mean(deltas))


def occlusion(
    score: Score, picture: Tensor, baseline: Tensor, *, window_px: int, stride_px: int, batch: int = _BATCH
) -> Tensor:
    """By how much the score falls when a square is replaced by the baseline, averaged over the squares of a pixel.

    Args:
        score: of one target.
        picture: float (channels, h, w).
        baseline: likewise.
        window_px: side of the square.
        stride_px: by what it is moved.
        batch: squares at a time.

    Returns:
        (channels, h, w), the same in each channel.
    """
    from captum.attr import Occlusion

    found: Tensor = Occlusion(score).attribute(
        picture[None],
        sliding_window_shapes=(len(picture), window_px, window_px),
        strides=(len(picture), stride_px, stride_px),
        baselines=baseline[None],
        perturbations_per_eval=batch,
    )
    return found[0].detach()


def attribute_picture(
    live: LiveModel, image: Image.Image, methods: Sequence[str], target: Target, *, seed: int = 0
) -> tuple[tuple[Heatmap, ...], tuple[MapProblem, ...]]:
    """Signed maps of a picture at the model's own resolution, channels added up.

    Args:
        live: the model; its lock is held during each method.
        image: RGB.
        methods: catalog names of signed methods.
        target: what is explained; what it means for this picture is held fast.
        seed: of GradientSHAP.

    Returns:
        The maps, and those that could not be had with the reason.
    """
    probe = make_probe(live, image, target)
    if not isinstance(probe, ModelProbe):
        why = f"{live.spec.id} cuts pictures into tiles or patches, and no gradient reaches back through that"
        return (), tuple(MapProblem(method, target.name, PIXELS, f"{why}; use a CAM.") for method in methods)
    picture = probe.picture.float()
    with live.lock, torch.no_grad():
        name = target.names(probe.outputs(picture[None]))[0]
    try:
        fixed = fixed_target(name, live.labels)
    except IncompatibleMethodError:
        fixed = target

    def score(variants: Tensor) -> Tensor:
        return fixed(probe.outputs(variants)).float()

    found, problems = [], []
    for method in methods:
        with live.lock:
            values, delta = _METHODS[method](score, picture, seed)
        raw = values.sum(dim=0).cpu().numpy().astype(np.float32)
        widest = float(np.quantile(np.abs(raw), _SHOWN)) or float(np.abs(raw).max())
        if not (np.isfinite(raw).all() and widest > 0):
            message = f"{get_method(method).title} of {live.spec.id} for {name}: no pixel changes the score."
            problems.append(MapProblem(method, name, PIXELS, message))
            continue
        part = MapPart(raw, probe.shown_xyxy)
        change = float(raw.sum(dtype=np.float64)) - (delta or 0.0)
        missed = None if delta is None or not change else abs(delta / change)
        shown = (-widest, widest)
        found.append(Heatmap((part,), image.size, *shown, method, name, PIXELS, live.spec.id, delta=missed))
    return tuple(found), tuple(problems)


def _mean_colour(picture: Tensor) -> Tensor:
    return picture.mean(dim=(1, 2), keepdim=True).expand_as(picture).contiguous()


def _by_path(score: Score, picture: Tensor, _seed: int) -> tuple[Tensor, float | None]:
    return integrated_gradients(score, picture, _mean_colour(picture))


def _by_chance(score: Score, picture: Tensor, seed: int) -> tuple[Tensor, float | None]:
    everything = torch.ones(1, *picture.shape[1:], dtype=torch.bool, device=picture.device)
    blurred = make_baseline("blur", picture)(everything)
    return gradient_shap(score, picture, torch.cat([_mean_colour(picture)[None], blurred]), seed=seed)


def _by_squares(score: Score, picture: Tensor, _seed: int) -> tuple[Tensor, float | None]:
    window = max(2, min(picture.shape[1:]) // _WINDOWS)
    return occlusion(score, picture, _mean_colour(picture), window_px=window, stride_px=max(1, window // 2)), None


_METHODS: Mapping[str, Callable[[Score, Tensor, int], tuple[Tensor, float | None]]] = MappingProxyType(
    {"integrated_gradients": _by_path, "occlusion": _by_squares, "gradient_shap": _by_chance}
)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Captum draws from the random numbers of the whole process; they go on as if nothing had been drawn."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(state)
