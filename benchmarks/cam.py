"""Class activation maps: the one-pass engine beside a plain forward pass and pytorch-grad-cam.

python -m benchmarks.cam
python -m benchmarks.cam --json --save
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.report import Figure, arguments, interleaved, median, report
from explain.cam import explain_inputs, principal_projection
from explain.targets import ClassLogit
from models.classifier import ImageClassifier
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import Inputs, LiveModel, LoadState, ModelSpec, ModelStatus

METHODS = ("gradcam", "gradcampp", "layercam", "eigencam", "eigengradcam")
LABELS = ("fake", "real")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    options = arguments("Five CAMs from one pass, against a plain forward pass and pytorch-grad-cam.", argv)
    warnings.filterwarnings("ignore")
    figures = [
        *_model_figures(_vit_base(), "", rounds=5, repeats=2),
        *_model_figures(_bundled_resnet(), "_bundled_resnet", rounds=15, repeats=5),
        *_eigencam_figures(),
    ]
    report("cam", figures, options)
    return 0


def _vit_base() -> LiveModel:
    """ViT-B/16 at 224 px with random weights: what the original paper measures, without a download."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    module = ViTForImageClassification(ViTConfig())
    spec = ModelSpec(
        id="vit-b-16",
        name="ViT-B/16, random weights",
        task="deepfake",
        kind="classifier",
        source="random",
        licence="none",
        size_mb=343,
        memory_mb=700,
    )
    return ImageClassifier(spec, ModelStatus(LoadState.BASE, "random weights"), module, ViTImageProcessor(), LABELS)


def _bundled_resnet() -> LiveModel:
    live = ModelLoader(load_zoo(), offline=True).load("bundled-resnet")
    if not isinstance(live, LiveModel):
        raise TypeError("bundled-resnet is not a classifier")
    return live


def _model_figures(live: LiveModel, suffix: str, *, rounds: int, repeats: int) -> list[Figure]:
    """The three figures of one model on one picture."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))
    inputs = live.prepare([picture])

    def explain(labels: Sequence[str]) -> None:
        targets = [ClassLogit(label, live.labels) for label in labels]
        explanation = explain_inputs(live, inputs, [picture.size], methods=METHODS, targets=targets)[0]
        for heatmap in explanation.heatmaps:
            heatmap.at(picture.size)

    def forward() -> None:
        with torch.no_grad():
            live.forward(inputs)

    table = interleaved(
        {
            "forward": forward,
            "five": lambda: explain(live.labels[:1]),
            "two targets": lambda: explain(live.labels[:2]),
            "peer": _peer(live, inputs),
        },
        rounds=rounds,
        repeats=repeats,
    )
    name = live.spec.name
    seconds = {key: median([times[key] for times in table]) for key in table[0]}
    shown = ", ".join(f"{key} {1000 * value:.1f} ms" for key, value in seconds.items())
    return [
        Figure(
            f"five_cams_over_forward{suffix}",
            median([times["five"] / times["forward"] for times in table]),
            1.15,
            "lower",
            f"{name}: prediction and five heatmaps at 224 px over one plain forward pass ({shown})",
        ),
        Figure(
            f"speedup_over_pytorch_grad_cam{suffix}",
            median([times["peer"] / times["five"] for times in table]),
            10,
            "higher",
            f"{name}: pytorch-grad-cam called once for each of the five methods, over the same",
        ),
        Figure(
            f"further_target_over_forward{suffix}",
            median([(times["two targets"] - times["five"]) / times["forward"] for times in table]),
            0.15,
            "lower",
            f"{name}: what a second label's heatmaps add, over one plain forward pass",
        ),
    ]


class _Logits(nn.Module):
    """A model as pytorch-grad-cam wants it: pixels to logits."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        return self.module(pixel_values=pixels).logits


def _peer(live: LiveModel, inputs: Inputs) -> Callable[[], None]:
    """pytorch-grad-cam called for each method as its README does, on a copy whose weights ask for gradients."""
    import copy

    import pytorch_grad_cam as library
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module = copy.deepcopy(live.module).requires_grad_(True)
    layers = [module.get_submodule(live.target_layer)]
    pixels = inputs["pixel_values"]
    tokens = live.layout(inputs, [(224, 224)])[0].grids[0].tokens
    rows, cols = (0, 0) if tokens is None else tokens.shape

    def to_map(activation: Tensor) -> Tensor:
        return activation[:, -rows * cols :].reshape(len(activation), rows, cols, -1).permute(0, 3, 1, 2)

    model: Any = _Logits(module)
    kinds = [library.GradCAM, library.GradCAMPlusPlus, library.LayerCAM, library.EigenCAM, library.EigenGradCAM]

    def five() -> None:
        for kind in kinds:
            with kind(model=model, target_layers=layers, reshape_transform=None if tokens is None else to_map) as cam:
                cam(pixels, [ClassifierOutputTarget(0)])

    return five


def _eigencam_figures() -> list[Figure]:
    """One decomposition of the size that Qwen2-VL's vision tower gives."""
    from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

    rng = np.random.default_rng(0)
    strong = 3 * rng.standard_normal((1280, 1)) @ rng.random((1, 48 * 64))
    activation = (strong + rng.standard_normal((1280, 48 * 64))).astype(np.float32)
    batch = activation.reshape(1, 1280, 48, 64)
    likeness = abs(np.corrcoef(principal_projection(activation), get_2d_projection(batch)[0].ravel())[0, 1])
    table = interleaved(
        {"ours": lambda: principal_projection(activation), "peer": lambda: get_2d_projection(batch)}, rounds=3
    )
    ours_ms = 1000 * median([times["ours"] for times in table])
    return [
        Figure(
            "eigencam_speedup",
            median([times["peer"] / times["ours"] for times in table]),
            50,
            "higher",
            f"pytorch-grad-cam's decomposition of 1280 x 48 x 64 over ours ({ours_ms:.1f} ms), "
            f"|correlation| {likeness:.6f}",
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
