"""Activations times gradients: seven class activation maps from one pass.

The weighting is pytorch-grad-cam's own (``get_cam_image``), fed with the activations and gradients of one
``capture``, so maps equal that library's. Only its singular value decomposition is replaced: the two Eigen methods
need a single direction, which Lanczos finds without decomposing the rest.

Weightings reduce over all cells of an image and never ask how these are arranged. So the cells of all its grids
(tiles of a vision-language model, or the single grid of a classifier) are weighted together and arranged afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from explain.capture import Capture, capture
from explain.catalog import get_method
from explain.geometry import cells_of
from explain.projection import principal_projection
from explain.schema import Heatmap, MapPart, WordAttribution
from explain.targets import Target, default_target
from explain.words import Reader, read_words
from models.errors import EmptyHeatmapError, IncompatibleMethodError
from models.schema import Inputs, LiveModel, Prediction, TokenLayout

__all__ = [
    "NO_TARGET",
    "Explanation",
    "MapProblem",
    "explain_batch",
    "explain_inputs",
    "heatmaps",
    "principal_projection",
]

Cells = NDArray[np.float32]
Weighting = Callable[[Cells, Cells], Cells]
Split = Callable[[Tensor, str], list[Tensor]]

NO_TARGET = "none"
"""``Heatmap.target`` of a method that is not class-aware: its map is the same whatever is asked."""

_DUST = 1e-6
"""What is smaller than this part of what it was made from is rounding of float32, not evidence."""

_CANCELLED = 5e-3
"""Products of activations and gradients that add up to less than this part of their size cancel by construction:
rounding leaves about 1e-6 of them in float32 and 1e-3 in bfloat16, while random ones of 1000 channels leave 3e-2."""

_LIBRARY_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "gradcam": "GradCAM",
        "gradcampp": "GradCAMPlusPlus",
        "layercam": "LayerCAM",
        "hirescam": "HiResCAM",
        "xgradcam": "XGradCAM",
    }
)


@dataclass(frozen=True)
class MapProblem:
    """A map that could not be had, while others could.

    Attributes:
        method: catalog name.
        target: as in ``Heatmap``.
        layer: dotted name.
        message: one line with the reason and the remedy.
    """

    method: str
    target: str
    layer: str
    message: str


@dataclass(frozen=True)
class Explanation:
    """What one pass tells of one image.

    Attributes:
        prediction: what the model says, from that same pass.
        heatmaps: in the order of layers, targets and methods; a method that is not class-aware comes once per layer.
        problems: the maps that are missing from ``heatmaps``, and why.
        words: what the question's words did, target by target; empty when not asked for.
    """

    prediction: Prediction
    heatmaps: tuple[Heatmap, ...]
    problems: tuple[MapProblem, ...]
    words: tuple[WordAttribution, ...] = ()

    def heatmap(self, method: str) -> Heatmap:
        """The first heatmap of a method.

        Raises:
            EmptyHeatmapError: the method gave none; the message says why.
        """
        for heatmap in self.heatmaps:
            if heatmap.method == method:
                return heatmap
        for problem in self.problems:
            if problem.method == method:
                raise EmptyHeatmapError(problem.message)
        raise EmptyHeatmapError(f"{get_method(method).title} was not computed; ask for it when explaining.")


def explain_batch(
    live: LiveModel,
    images: Sequence[Image.Image],
    *,
    methods: Sequence[str],
    targets: Sequence[Target] | None = None,
    layers: Sequence[str] | None = None,
    words: bool = False,
) -> list[Explanation]:
    """Predictions and heatmaps of RGB images from a single pass of the model.

    Args:
        live: the model; its lock is held during the pass.
        images: n RGB pictures.
        methods: catalog names.
        targets: what to explain; the model's ``default_target`` for each image's own prediction when not given.
        layers: dotted names; the model's target layer when not given.
        words: score the words of the question too, from the same pass.

    Returns:
        n explanations, in order.

    Raises:
        IncompatibleMethodError: a method or layer is unknown, or does not fit the model; words are asked of a model
            that reads no question.
    """
    return explain_inputs(
        live,
        live.prepare(images),
        [image.size for image in images],
        methods=methods,
        targets=targets,
        layers=layers,
        words=words,
    )


def explain_inputs(
    live: LiveModel,
    inputs: Inputs,
    sizes_wh: Sequence[tuple[int, int]],
    *,
    methods: Sequence[str],
    targets: Sequence[Target] | None = None,
    layers: Sequence[str] | None = None,
    words: bool = False,
) -> list[Explanation]:
    """``explain_batch`` for inputs that are already prepared; ``sizes_wh`` are those of the original images."""
    entries = [get_method(method) for method in methods]
    signed = [entry.title for entry in entries if entry.signed]
    if signed:
        raise IncompatibleMethodError(f"{signed[0]} needs passes of its own; ask explain.maps.explain_picture for it.")
    wanted = tuple(targets or (default_target(live),))
    chosen = ((live.target_layer,) if layers is None else tuple(layers)) if entries else ()
    embedding = _embedding(live) if words else None
    with live.lock:
        taken = capture(
            live.module,
            lambda: live.forward(inputs),
            (*chosen, embedding) if embedding else chosen,
            wanted if words or any(entry.needs_gradients for entry in entries) else (),
        )
        layouts = {layer: live.layout(inputs, sizes_wh, layer) for layer in chosen}
        predictions = live.read(taken.outputs, taken.forward_s)
    maps = heatmaps(
        taken,
        layouts,
        lambda tensor, layer: live.split(tensor, inputs, layer),
        methods=methods,
        targets=wanted,
        model_id=live.spec.id,
        default_layer=live.target_layer if chosen else "",
    )
    found = [Explanation(prediction, *of_image) for prediction, of_image in zip(predictions, maps, strict=True)]
    if embedding is None or not isinstance(live, Reader):
        return found
    return [_with_words(one, taken, live, inputs, embedding, image, wanted) for image, one in enumerate(found)]


def _embedding(live: LiveModel) -> str:
    if not isinstance(live, Reader):
        raise IncompatibleMethodError(f"{live.spec.id} reads no question, so no word of one can be highlighted.")
    return str(live.core.anatomy.embedding)


def _with_words(
    explanation: Explanation,
    taken: Capture,
    live: Reader,
    inputs: Inputs,
    embedding: str,
    image: int,
    targets: Sequence[Target],
) -> Explanation:
    """The explanation with the words' scores, or with the reason why there are none: maps do not depend on them."""
    try:
        return replace(explanation, words=read_words(taken, live, inputs, embedding, image, targets))
    except IncompatibleMethodError as error:
        problem = MapProblem("words", targets[0].names(taken.outputs)[image], embedding, str(error))
        return replace(explanation, problems=(*explanation.problems, problem))


def heatmaps(
    taken: Capture,
    layouts: Mapping[str, Sequence[TokenLayout]],
    split: Split,
    *,
    methods: Sequence[str],
    targets: Sequence[Target],
    model_id: str,
    default_layer: str = "",
) -> list[tuple[tuple[Heatmap, ...], tuple[MapProblem, ...]]]:
    """Heatmaps of every image, layer, target and method of a capture.

    Args:
        taken: activations and gradients of n images.
        layouts: layer to where its cells lie, image by image.
        split: a layer's output for the batch, or its gradient, and the layer's name to one tensor per image.
        methods: catalog names.
        targets: those of the capture, in its order; they name the maps.
        model_id: zoo id for the heatmaps.
        default_layer: the layer recommended where another one gives nothing.

    Returns:
        For each image its heatmaps, and the maps that are empty with the reason.

    Raises:
        IncompatibleMethodError: a method is unknown, or a layer has not the cells that a layout names.
    """
    weightings = {method: _weighting(method) for method in methods}
    names = [target.names(taken.outputs) for target in targets]
    activations = {layer: split(taken.activations[layer], layer) for layer in layouts}
    gradients = {layer: [split(one, layer) for one in taken.gradients[layer]] for layer in layouts}
    per_image = []
    for image in range(len(taken.outputs.logits)):
        found: list[Heatmap] = []
        problems: list[MapProblem] = []
        told = [name[image] for name in names]
        for layer in layouts:
            layout = layouts[layer][image]
            cells, shapes = _cells(activations[layer][image], layout)
            slopes = [_cells(gradient[image], layout)[0] for gradient in gradients[layer]]
            better = default_layer if layer != default_layer else ""
            for method, name, raw, reason in _raw_maps(weightings, told, cells, slopes, better):
                if reason:
                    message = f"{get_method(method).title} of {model_id} at layer {layer} for {name}: {reason}."
                    problems.append(MapProblem(method, name, layer, message))
                    continue
                low, high = max(float(raw.min()), 0.0), max(float(raw.max()), 0.0)
                parts = _parts(np.maximum(raw, 0), shapes, layout)
                found.append(Heatmap(parts, layout.size_wh, low, high, method, name, layer, model_id))
        per_image.append((tuple(found), tuple(problems)))
    return per_image


def _raw_maps(
    weightings: Mapping[str, Weighting], names: Sequence[str], cells: Cells, slopes: Sequence[Cells], better: str
) -> Iterator[tuple[str, str, Cells, str]]:
    """Method, target's name, raw values (cells,) and why these show nothing, for every target and method of a layer."""
    alive = [bool(slope.any()) for slope in slopes]
    for index, method in product(range(max(len(names), 1)), weightings):
        aware = get_method(method).class_aware
        if index and not aware:
            continue
        with np.errstate(all="ignore"):  # overflow is judged below, by the map
            raw = weightings[method](cells, slopes[index] if aware else cells)
        span = float(raw.min()), float(raw.max())
        reason = _emptiness(span, alive=not aware or alive[index], better_layer=better)
        if method == "hirescam" and not reason:
            reason = _cancellation(span, cells, slopes[index])
        yield method, names[index] if aware else NO_TARGET, raw, reason


class _NoModel:
    """What the library's constructor asks of a model, so that it neither hooks nor switches the real one."""

    def eval(self) -> None:
        """Nothing to switch."""

    def parameters(self) -> Iterator[Tensor]:
        """One value, whose device the library reads."""
        yield torch.empty(0)


def _weighting(method: str) -> Weighting:
    """A function of (channels, cells) activations and gradients to (cells,) raw values."""
    if method == "eigencam":
        return lambda activations, _gradients: principal_projection(activations)
    if method == "eigengradcam":
        return lambda activations, gradients: principal_projection(activations * gradients)
    import pytorch_grad_cam

    weigher = getattr(pytorch_grad_cam, _LIBRARY_NAMES[method])(_NoModel(), [])

    def weigh(activations: Cells, gradients: Cells) -> Cells:
        image = weigher.get_cam_image(None, None, None, activations[None, :, None], gradients[None, :, None], False)
        return image[0, 0]

    return weigh


def _cells(own: Tensor, layout: TokenLayout) -> tuple[Cells, list[tuple[int, int]]]:
    """(channels, cells) of one image over all its grids, and each grid's rows and columns."""
    grids = [cells_of(own.numpy(), grid) for grid in layout.grids]
    flat = [grid.reshape(grid.shape[0], -1) for grid in grids]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1), [grid.shape[1:] for grid in grids]


def _emptiness(span: tuple[float, float], *, alive: bool, better_layer: str) -> str:
    """Why a raw map from one value to another shows nothing, and the remedy; empty text if it shows something."""
    low, high = span
    other = f"choose layer {better_layer}" if better_layer else "choose an earlier layer"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"the map is not finite; {other}, or load the model in float32"
    if not alive:
        return f"the map is zero because the target does not depend on the picture's cells there; {other}"
    if high <= 0 and low < 0:
        return (
            f"every cell speaks against the target, which this method shows as zero; explain another label, or {other}"
        )
    if high - max(low, 0) <= _DUST * max(high, -low):
        return f"the map is the same everywhere; {other}, or another method"
    return ""


def _cancellation(span: tuple[float, float], cells: Cells, gradient: Cells) -> str:
    """Why sums of activation times gradient are rounding; empty text if they are not.

    A network that normalises each cell right behind the layer does not care how large the cell is, so its gradient is
    at right angles to the cell: the sum is 0 however much the cell counts, and its rounding would look like heat.
    """
    size = float(np.abs(cells * gradient).sum(axis=0).max())
    if max(-span[0], span[1]) > _CANCELLED * size:
        return ""
    return "the network normalises this layer's cells next, so that activation and gradient cancel; use another method"


def _parts(values: Cells, shapes: Sequence[tuple[int, int]], layout: TokenLayout) -> tuple[MapPart, ...]:
    """A map over all cells, cut into the grids of its layout."""
    parts, start = [], 0
    for (rows, cols), grid in zip(shapes, layout.grids, strict=True):
        parts.append(MapPart(values[start : start + rows * cols].reshape(rows, cols), grid.box_xyxy))
        start += rows * cols
    return tuple(parts)
