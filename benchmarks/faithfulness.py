"""Faithfulness: insertion and deletion of five maps beside torchcam and Quantus, and what the badges cost.

python -m benchmarks.faithfulness
python -m benchmarks.faithfulness --json --save
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.report import Figure, arguments, interleaved, median, report
from explain.cam import explain_batch
from explain.faithfulness import FaithfulnessSettings, badges_of, measure_maps
from explain.faithfulness_probe import ModelProbe, make_probe
from explain.targets import ClassLogit
from models.lean import lean_network
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import LiveModel

METHODS = ("gradcam", "gradcampp", "layercam", "eigencam", "eigengradcam")
STEPS = 20
PEER = FaithfulnessSettings(
    steps=STEPS, insertion_baseline="zero", deletion_baseline="zero", average_drop=False, random=0
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    options = arguments("Insertion and deletion of five maps, against torchcam and Quantus; the cost of badges.", argv)
    warnings.filterwarnings("ignore")
    live = ModelLoader(load_zoo(), offline=True, device="cpu").load("bundled-resnet")
    if not isinstance(live, LiveModel):
        raise TypeError("bundled-resnet is not a classifier")
    report("faithfulness", _figures(live), options)
    return 0


def _figures(live: LiveModel) -> list[Figure]:
    picture = _picture()
    label = live.predict([picture])[0].label
    target = ClassLogit(label, live.labels)
    heatmaps = explain_batch(live, [picture], methods=METHODS, targets=[target])[0].heatmaps
    inputs = live.prepare([picture])
    network = lean_network(live, inputs)  # once per model, not per picture
    forward = None if network is None else lambda given: network(**given)
    probe = make_probe(live, picture, target, forward=forward)
    if not isinstance(probe, ModelProbe) or len(heatmaps) != len(METHODS):
        raise TypeError("the picture gives not all five maps; choose another seed")
    maps = np.stack([probe.place(heatmap) for heatmap in heatmaps])
    torchcam, values = _torchcam(live, inputs["pixel_values"], maps, live.labels.index(label))
    ours = measure_maps(probe, heatmaps, PEER)
    torchcam()
    astray = np.abs(np.subtract([(one.insertion.auc, one.deletion.auc) for one in ours], values)).max()

    def measure(settings: FaithfulnessSettings, of: Callable[..., object]) -> None:
        of(make_probe(live, picture, target, forward=forward), heatmaps, settings)

    def one_pass() -> None:
        with torch.no_grad():
            live.forward(inputs)

    table = interleaved(
        {
            "forward": one_pass,
            "ours": lambda: measure(PEER, measure_maps),
            "badges": lambda: measure(FaithfulnessSettings(), badges_of),
            "torchcam": torchcam,
            "quantus": _quantus(live, inputs["pixel_values"], maps, live.labels.index(label)),
        },
        rounds=5,
    )
    seconds = {key: median([times[key] for times in table]) for key in table[0]}
    shown = ", ".join(f"{key} {1000 * value:.0f} ms" for key, value in seconds.items())
    return [
        Figure(
            "speedup_over_fastest_peer",
            median([min(times["torchcam"], times["quantus"]) / times["ours"] for times in table]),
            4,
            "higher",
            f"insertion and deletion of five maps of {live.spec.name}, {STEPS} steps (Quantus, whose steps must divide "
            f"the pixels, 18), the faster of torchcam and Quantus over ours ({shown}); the areas differ from "
            f"torchcam's by at most {astray:.1g}",
        ),
        Figure(
            "badge_over_forward",
            median([times["badges"] / times["forward"] for times in table]),
            150,
            "lower",
            "badges of the same five maps, 20 random maps and a blob in the centre included, in passes at batch 1",
        ),
    ]


def _picture() -> Image.Image:
    """Soft shapes and a little grain, so that every method finds something."""
    rng = np.random.default_rng(3)
    soft = np.asarray(Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((256, 256)), float)
    return Image.fromarray((soft + rng.normal(0, 8, soft.shape)).clip(0, 255).astype(np.uint8))


class _Logits(nn.Module):
    """A model as the peers want it: pixels to logits."""

    def __init__(self, live: LiveModel) -> None:
        super().__init__()
        self.network = live.module

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        return logits


class _Given:
    """What torchcam's metric asks of an extractor; hands over a map that is there already, at no cost."""

    def __init__(self, model: nn.Module, cam: Tensor) -> None:
        self.model, self._cam = model, cam

    def __call__(self, *_: Any, **__: Any) -> list[Tensor]:  # noqa: ANN401
        return [self._cam]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def _torchcam(
    live: LiveModel, pixels: Tensor, maps: np.ndarray, label: int
) -> tuple[Callable[[], None], list[tuple[float, float]]]:
    """The metric for each map, with its own settings, and where it leaves insertion and deletion."""
    from torchcam.metrics import DeletionInsertionMetric

    model = _Logits(live).eval()
    values: list[tuple[float, float]] = []

    def run() -> None:
        values.clear()
        for cam in maps:
            extractor = _Given(model, torch.from_numpy(cam)[None])
            metric = DeletionInsertionMetric(extractor, nn.Softmax(dim=-1), steps=STEPS)
            metric.update(pixels, label)
            found = metric.summary()
            values.append((found["insertion_auc"], found["deletion_auc"]))

    return run, values


def _quantus(live: LiveModel, pixels: Tensor, maps: np.ndarray, label: int) -> Callable[[], None]:
    """Pixel flipping of the five maps as one batch: hottest first deletes, coldest first, read backwards, inserts."""
    from quantus.metrics.faithfulness.pixel_flipping import PixelFlipping

    model, shown = _Logits(live).eval(), pixels.repeat(len(maps), 1, 1, 1).numpy()
    zero: Any = 0.0  # the hint there says a name, but numbers are taken too
    flipping = PixelFlipping(
        features_in_step=maps[0].size // 6,  # of the values of three channels
        perturb_baseline=zero,
        disable_warnings=True,
        abs=False,
        normalise=False,
    )

    def run() -> None:
        for order in (maps, -maps):
            flipping(model, shown, np.full(len(maps), label), a_batch=order[:, None].copy(), device="cpu", softmax=True)

    return run


if __name__ == "__main__":
    sys.exit(main())
