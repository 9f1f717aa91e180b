"""Vision-language models: scoring labels beside writing, many questions on one image, heatmaps beside a forward pass.

python -m benchmarks.vlm
python -m benchmarks.vlm --json --save
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from benchmarks.report import Figure, arguments, interleaved, median, report
from explain.cam import explain_inputs
from explain.catalog import DEFAULT_METHODS
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import Precision
from models.vlm import VisionLanguageModel

BASE = "bundled-paligemma"
WRITTEN = 20
PHOTO_WH = (1080, 810)
QUESTIONS = tuple(
    f"{asked} {rest}"
    for asked in ("Is", "Was", "Could", "Did")
    for rest in (
        "this image made by AI?",
        "the face in it swapped?",
        "a camera used to take it?",
        "somebody draw the background?",
    )
)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    options = arguments("Label scoring, shared images and heatmaps of the bundled PaliGemma.", argv)
    warnings.filterwarnings("ignore")
    live = _load("fp32")
    pictures = [_picture(seed) for seed in range(4)]
    figures = [
        *_scoring_figures(live, pictures),
        *_sharing_figures(live, _picture(0, PHOTO_WH)),
        *_heatmap_figures(live),
    ]
    report("vlm", [*figures, _memory_figure()], options)
    return 0


def _load(precision: Precision) -> VisionLanguageModel:
    live = ModelLoader(load_zoo(), offline=True).load(BASE, precision=precision)
    if not isinstance(live, VisionLanguageModel):
        raise TypeError(f"{BASE} is no vision-language model")
    return live


def _picture(seed: int, size_wh: tuple[int, int] = (256, 256)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_wh[::-1], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _scoring_figures(live: VisionLanguageModel, pictures: Sequence[Image.Image]) -> list[Figure]:
    """All labels of 16 prompts against writing 20 tokens for each, as zero-shot answers were read before."""
    asked = QUESTIONS[:4]
    core = live.core

    def score() -> None:
        for picture in pictures:
            live.ask(picture, asked)

    def score_one_by_one() -> None:
        for picture in pictures:
            for question in asked:
                live.asking(question=question).predict([picture])

    def write() -> None:
        for picture in pictures:
            for question in asked:
                inputs = core.encode([picture], [core.family.prompt(core.processor, question)])
                with torch.no_grad():
                    core.module.generate(  # type: ignore[operator] # a mixin of the library
                        **inputs, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN, do_sample=False
                    )

    rounds = interleaved({"score": score, "single": score_one_by_one, "write": write}, rounds=5)
    prompts = f"{len(pictures)} pictures with {len(asked)} questions each"
    return [
        Figure(
            "label_scoring_speedup_over_generate",
            median([one["write"] / one["score"] for one in rounds]),
            5.0,
            "higher",
            f"{prompts}: the library's generate of {WRITTEN} tokens each / scoring the labels, each picture seen once",
        ),
        Figure(
            "single_label_scoring_speedup_over_generate",
            median([one["write"] / one["single"] for one in rounds]),
            None,
            "higher",
            "the same where scoring looks at the picture anew for every question",
        ),
    ]


def _sharing_figures(live: VisionLanguageModel, picture: Image.Image) -> list[Figure]:
    def together() -> None:
        live.ask(picture, QUESTIONS)

    def one_by_one() -> None:
        for question in QUESTIONS:
            live.asking(question=question).predict([picture])

    rounds = interleaved({"together": together, "single": one_by_one}, rounds=7)
    return [
        Figure(
            "sixteen_questions_speedup",
            median([one["single"] / one["together"] for one in rounds]),
            4.0,
            "higher",
            f"{len(QUESTIONS)} single predictions / the same questions at once, on a photograph of {picture.width} x "
            f"{picture.height} px",
        )
    ]


def _heatmap_figures(live: VisionLanguageModel) -> list[Figure]:
    picture = _picture(0)
    inputs = live.prepare([picture])
    methods = DEFAULT_METHODS

    def forward() -> None:
        with torch.no_grad():
            live.module(**inputs, logits_to_keep=1)

    def explain() -> None:
        explanation = explain_inputs(live, inputs, [picture.size], methods=methods)[0]
        for heatmap in explanation.heatmaps:
            heatmap.at(picture.size)

    rounds = interleaved({"forward": forward, "explain": explain}, rounds=15, repeats=3)
    return [
        Figure(
            "seven_cams_over_forward",
            median([one["explain"] / one["forward"] for one in rounds]),
            2.5,
            "lower",
            f"prediction and {len(methods)} heatmaps at picture size / one plain forward pass of the prompt",
        )
    ]


def _memory_figure() -> Figure:
    """Bytes of the weights; tower and embeddings stay as they are, which weighs much in a small model."""
    sizes = {}
    for precision in ("fp32", "nf4"):
        module = _load(precision).module
        sizes[precision] = sum(tensor.numel() * tensor.element_size() for tensor in module.parameters())
    return Figure(
        "nf4_memory_over_fp32",
        sizes["nf4"] / sizes["fp32"],
        None,
        "lower",
        f"bytes of the weights in nf4 / in fp32 ({sizes['fp32'] / 1e6:.1f} MB), tower and embeddings not quantised",
    )


if __name__ == "__main__":
    sys.exit(main())
