"""Image-text models (CLIP, SigLIP, OpenCLIP) as live models: pictures, regions and texts as vectors of one space.

A cosine of a picture and a text has no zero point: nonsense can score nearly as high as a match. What is said of a
picture therefore always compares texts: labels against each other, or a claim against its foils.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from models.anatomy import Anatomy, trace
from models.clip_texts import split_text
from models.clip_towers import Towers
from models.errors import ModelUnavailableError
from models.schema import Box, Inputs, LayerPreset, ModelSpec, ModelStatus, Prediction, TokenGrid, TokenLayout

__all__ = ["ImageTextModel", "Similarities", "Vectors", "square_around"]

Vectors = NDArray[np.float32]
"""(n, d), each row of length 1."""

_IMAGES_AT_ONCE = 16
_TEXTS_AT_ONCE = 64
_REMEMBERED = 8192  # vectors of 2 to 4 kB


@dataclass(frozen=True)
class Similarities:
    """What one pass over pictures gives.

    Attributes:
        logits: (n, labels) cosine with each label's texts, times the network's scale, plus its bias.
        image_embeds: (n, d) vectors of length 1.
    """

    logits: Tensor
    image_embeds: Tensor


class ImageTextModel:
    """One loaded image-text model; implements ``models.schema.LiveModel`` as a zero-shot classifier.

    Attributes:
        spec: the entry that was asked for.
        status: what stands behind the answers.
        towers: the network, with its preparation of pictures and texts.
        answers: text to the label it stands for; a label's texts are averaged.
        labels: in the order of the logits.
        lock: held around every forward pass.
    """

    def __init__(self, spec: ModelSpec, status: ModelStatus, towers: Towers, answers: Mapping[str, str]) -> None:
        self.spec = spec
        self.status = status
        self.towers = towers
        self.answers = dict(answers)
        self.labels = tuple(dict.fromkeys(answers.values()))
        self.lock = RLock()
        self._images = _Memory(_REMEMBERED)
        self._texts = _Memory(_REMEMBERED)
        towers.network.eval().requires_grad_(requires_grad=False)

    def with_answers(self, answers: Mapping[str, str]) -> ImageTextModel:
        """The same network asked something else; weights, lock and remembered vectors are shared.

        Args:
            answers: text to the label it stands for.
        """
        other = ImageTextModel(self.spec, self.status, self.towers, answers)
        other.lock, other._images, other._texts = self.lock, self._images, self._texts
        other.__dict__ |= {name: value for name, value in vars(self).items() if name == "anatomy"}
        return other

    @property
    def module(self) -> nn.Module:
        """The network, both towers."""
        return self.towers.network

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.module.parameters()).device

    @cached_property
    def anatomy(self) -> Anatomy:
        """Layers and token grid of the image tower, found by one pass over noise when first needed.

        Raises:
            IncompatibleMethodError: the tower has no layer that can be explained.
        """
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        pixels = self.prepare([Image.fromarray(noise)])["pixel_values"]

        def forward(values: Tensor) -> Similarities:
            # The vector itself stands for the logits, so that the layers do not hang on the labels asked for.
            embeds = functional.normalize(self.towers.encode_images(values), dim=-1)
            return Similarities(embeds, embeds)

        with self.lock:
            return trace(self.module, forward, pixels, self.towers.patch_px)

    @property
    def target_layer(self) -> str:
        """Dotted name, within ``module``, of the layer explained by default."""
        return self.layers[0].name

    @property
    def layers(self) -> Sequence[LayerPreset]:
        """Layers of the image tower whose gradients are alive, the default first."""
        return self.anatomy.layers

    def embed_images(self, images: Sequence[Image.Image]) -> Vectors:
        """RGB pictures as (n, d) float32 vectors of length 1; a picture seen before costs its hash only."""
        return self._remember(
            self._images, list(map(_fingerprint, images)), lambda places: self._encode([images[at] for at in places])
        )

    def embed_regions(self, image: Image.Image, boxes_xyxy: Sequence[Box]) -> Vectors:
        """Regions of a picture as (n, d) float32 vectors of length 1, cached by the picture's hash and the box.

        Args:
            image: RGB picture.
            boxes_xyxy: in its pixels. Each is widened to a square, since most models crop what is not square.

        Raises:
            ValueError: a box has no area or lies outside the picture.
        """
        picture = _fingerprint(image)
        squares = [square_around(box, image.size) for box in boxes_xyxy]
        return self._remember(
            self._images,
            [(picture, square) for square in squares],
            lambda places: self._encode([_crop(image, squares[at]) for at in places]),
        )

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts as (n, d) float32 vectors of length 1.

        A text beyond the context length is split (``split_texts``) and pooled: the mean of its pieces' vectors,
        weighted by their tokens, brought to length 1 again.
        """
        return self._remember(self._texts, texts, lambda places: self._encode_texts([texts[at] for at in places]))

    def split_texts(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """The pieces in which each text is read; one piece where it fits the context length."""
        return [split_text(text, self.towers.count_tokens, self.towers.context) for text in texts]

    def similarity(self, images: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosines (n, m) in [-1, 1] of n RGB pictures and m texts."""
        cosines: NDArray[np.float32] = np.clip(self.embed_images(images) @ self.embed_texts(texts).T, -1, 1)
        return cosines

    def batches(self, images: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
        """As many images as one pass takes."""
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            yield images[start : start + _IMAGES_AT_ONCE]

    def prepare(self, images: Sequence[Image.Image]) -> Inputs:
        """RGB images to ``pixel_values`` (n, 3, height, width) on the model's device."""
        return {"pixel_values": self.towers.prepare(images).to(self.device).contiguous()}

    def forward(self, inputs: Inputs) -> Similarities:
        """One pass of the image tower over prepared inputs; gradients stay as the caller set them."""
        return self._compare(self.towers.encode_images(inputs["pixel_values"]))

    def score(self, inputs: Inputs) -> Similarities:
        """What ``forward`` gives, up to rounding, without a graph and in the fastest way there is."""
        with self.lock:
            return self._compare(self.towers.read_images(inputs["pixel_values"]))

    def split(self, activation: Tensor, inputs: Inputs, layer: str) -> list[Tensor]:  # noqa: ARG002 - any layer
        """One tensor per image, (c, h, w) or (tokens, c): images lie along the first axis of every layer."""
        return list(activation.unbind())

    def layout(
        self,
        inputs: Inputs,
        sizes_wh: Sequence[tuple[int, int]],
        layer: str | None = None,  # noqa: ARG002 - a channels-first map's own rows and columns are the grid
    ) -> list[TokenLayout]:
        """Where each image's cells lie: one grid over the part of the image that the tower saw.

        Raises:
            IncompatibleMethodError: that part cannot be told, or the tower has no layer to explain.
        """
        height, width = inputs["pixel_values"].shape[-2:]
        layouts = []
        for size_wh in sizes_wh:
            x0, y0, x1, y1 = self.towers.seen_box(size_wh)
            tokens = None
            if self.anatomy.cell_px is not None:
                tokens = self.anatomy.tokens(height, width)
                if self.anatomy.floors:
                    rows, cols = tokens.shape
                    x1 = x0 + (x1 - x0) * cols * self.anatomy.cell_px / width
                    y1 = y0 + (y1 - y0) * rows * self.anatomy.cell_px / height
            layouts.append(TokenLayout(size_wh, (TokenGrid((x0, y0, x1, y1), tokens),)))
        return layouts

    def predict(self, images: Sequence[Image.Image]) -> list[Prediction]:
        """Predictions for RGB images, in their order.

        Raises:
            ModelUnavailableError: the network answers with numbers that are not finite.
        """
        predictions: list[Prediction] = []
        for part in self.batches(images):
            inputs = self.prepare(part)
            begin = perf_counter()
            with self.lock, torch.no_grad():
                outputs = self.forward(inputs)
            predictions += self.read(outputs, perf_counter() - begin)
        return predictions

    def read(self, outputs: Similarities, latency_s: float) -> list[Prediction]:
        """Predictions from the outputs of ``forward``: softmax over the labels, which sum to 1 even for SigLIP.

        Args:
            outputs: of n images.
            latency_s: seconds of the whole pass; each image gets an equal share.

        Raises:
            ModelUnavailableError: a logit is not finite.
        """
        logits = outputs.logits.detach().double().cpu()
        if not bool(torch.isfinite(logits).all()):
            raise ModelUnavailableError(
                f"{self.spec.id}: the model answers with numbers that are not finite on {self.device}; "
                "run it on the CPU, or replace its weights"
            )
        return [
            Prediction(
                model_id=self.spec.id,
                label=self.labels[int(row.argmax())],
                probabilities=dict(zip(self.labels, row.softmax(0).tolist(), strict=True)),
                logits=dict(zip(self.labels, row.tolist(), strict=True)),
                latency_s=latency_s / max(len(logits), 1),
                status=self.status,
            )
            for row in logits
        ]

    @cached_property
    def _directions(self) -> Tensor:
        """(labels, d) of length 1: the mean of each label's texts."""
        vectors = torch.from_numpy(self.embed_texts(list(self.answers)))
        owners = list(self.answers.values())
        means = [vectors[[at for at, owner in enumerate(owners) if owner == label]].mean(0) for label in self.labels]
        return functional.normalize(torch.stack(means), dim=-1).to(self.device)

    def _remember(
        self, memory: _Memory, keys: Sequence[Hashable], encode: Callable[[Sequence[int]], Vectors]
    ) -> Vectors:
        """A vector for each key, encoding only those that are not remembered, each once."""
        found = {key: memory.get(key) for key in keys}
        places = [keys.index(key) for key, vector in found.items() if vector is None]
        if places:
            for at, vector in zip(places, encode(places), strict=True):
                found[keys[at]] = vector
                memory.put(keys[at], vector)
        width = next((len(vector) for vector in found.values() if vector is not None), 0)
        return np.array([found[key] for key in keys], dtype=np.float32).reshape(len(keys), width)

    def _compare(self, vectors: Tensor) -> Similarities:
        directions = self._directions
        embeds = functional.normalize(vectors.float(), dim=-1)
        return Similarities(embeds @ directions.T * self.towers.logit_scale + self.towers.logit_bias, embeds)

    def _encode(self, images: Sequence[Image.Image]) -> Vectors:
        parts = []
        for part in self.batches(images):
            inputs = self.prepare(part)
            with self.lock:
                parts.append(self.towers.read_images(inputs["pixel_values"]))
        return _normalised(parts)

    def _encode_texts(self, texts: Sequence[str]) -> Vectors:
        split = self.split_texts(texts)
        pieces = [piece for pieces in split for piece in pieces]
        parts = []
        for start in range(0, len(pieces), _TEXTS_AT_ONCE):
            with self.lock, torch.no_grad():
                parts.append(self.towers.encode_texts(pieces[start : start + _TEXTS_AT_ONCE]))
        vectors = torch.from_numpy(_normalised(parts))
        pooled = []
        for place, own in enumerate(split):
            start = sum(map(len, split[:place]))
            weights = torch.tensor([float(self.towers.count_tokens(piece)) for piece in own])
            pooled.append((vectors[start : start + len(own)] * weights[:, None]).sum(0))
        return _normalised([torch.stack(pooled)])


def square_around(box_xyxy: Box, size_wh: tuple[int, int]) -> tuple[int, int, int, int]:
    """The smallest square around a box, in whole pixels, moved into the picture where there is room for it.

    Args:
        box_xyxy: in pixels of the picture.
        size_wh: of the picture.

    Returns:
        ``xyxy``; reaches beyond the picture only along a side that is shorter than the square.

    Raises:
        ValueError: the box has no area or lies outside the picture.
    """
    width, height = size_wh
    x0, y0, x1, y1 = max(box_xyxy[0], 0), max(box_xyxy[1], 0), min(box_xyxy[2], width), min(box_xyxy[3], height)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"the box {box_xyxy} covers nothing of a picture of {width} x {height}")
    side = int(np.ceil(max(x1 - x0, y1 - y0)))
    starts = []
    for low, high, length in ((x0, x1, width), (y0, y1, height)):
        start = round((low + high - side) / 2)
        starts.append(min(max(start, 0), length - side) if side <= length else (length - side) // 2)
    return starts[0], starts[1], starts[0] + side, starts[1] + side


class _Memory:
    """The latest vectors by key; safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._vectors: OrderedDict[Hashable, NDArray[np.float32]] = OrderedDict()
        self._guard = RLock()

    def get(self, key: Hashable) -> NDArray[np.float32] | None:
        with self._guard:
            if key not in self._vectors:
                return None
            self._vectors.move_to_end(key)
            return self._vectors[key]

    def put(self, key: Hashable, vector: NDArray[np.float32]) -> None:
        with self._guard:
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
            while len(self._vectors) > self._most:
                self._vectors.popitem(last=False)


def _fingerprint(image: Image.Image) -> str:
    """SHA-256 of the decoded pixels and their arrangement: what the model sees, whatever file it came from."""
    digest = hashlib.sha256(f"{image.mode} {image.size}".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def _crop(image: Image.Image, square_xyxy: tuple[int, int, int, int]) -> Image.Image:
    """A square of the picture; where it reaches beyond, the picture's mean colour stands."""
    x0, y0, x1, y1 = square_xyxy
    if x0 >= 0 and y0 >= 0 and x1 <= image.width and y1 <= image.height:
        return image.crop(square_xyxy)
    inside = image.crop((max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)))
    red, green, blue = (round(float(value)) for value in np.asarray(inside).reshape(-1, 3).mean(0))
    canvas = Image.new("RGB", (x1 - x0, y1 - y0), (red, green, blue))
    canvas.paste(inside, (max(-x0, 0), max(-y0, 0)))
    return canvas


def _normalised(parts: Sequence[Tensor]) -> Vectors:
    vectors: Vectors = functional.normalize(torch.cat(list(parts)).detach().float(), dim=-1).cpu().numpy()
    return vectors
