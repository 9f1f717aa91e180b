"""The same network, faster: for the hundreds of passes that measuring one picture takes, and for many pictures.

A convolution and the batch normalisation behind it are one linear map, so they are folded into one; processors convolve
fastest when a pixel's channels lie side by side; and a rectifier that works in place spares the memory that costs more
time than its arithmetic. The answers stay the same up to rounding, which is checked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.classifier import ImageClassifier
from models.novelty import read_features
from models.schema import Inputs, LiveModel

__all__ = ["lean_classifier", "lean_module", "lean_network"]

_ALIKE = 1e-4
"""Largest difference of a logit, relative to the largest logit, that rounding explains; also of a feature."""
_NOISE_PX = 256


def lean_network(live: LiveModel, inputs: Inputs) -> nn.Module | None:
    """A faster copy of a convolutional network on a processor, for passes without gradients.

    Args:
        live: the model. It is not changed; the copy has weights of its own.
        inputs: prepared inputs of a picture, to check the copy with.

    Returns:
        The copy; ``None`` where there is nothing to gain (no batch normalisation, another device than a CPU) or where
        it would answer otherwise, as it would where a rectifier overwrites what is needed again.
    """
    with live.lock:
        return lean_module(live.module, lambda network: network(**inputs).logits)


def lean_module(module: nn.Module, answer: Callable[[nn.Module], Tensor]) -> nn.Module | None:
    """A faster copy of a convolutional network on a processor, for passes without gradients.

    Args:
        module: the network. It is not changed; the copy has weights of its own.
        answer: lets a network answer, to check the copy with.

    Returns:
        The copy; ``None`` as for ``lean_network``.
    """
    on_cpu = all(weight.device.type == "cpu" for weight in module.parameters())
    if not on_cpu or not any(isinstance(part, nn.BatchNorm2d) for part in module.modules()):
        return None
    network = copy.deepcopy(module).eval()
    with torch.no_grad():
        expected = answer(module)
        _fold(network, answer)
        for part in network.modules():
            if isinstance(part, nn.ReLU | nn.ReLU6):
                part.inplace = True
        # With weights laid out so, a convolution lays out what it makes so as well.
        network = network.to(memory_format=torch.channels_last)
        found = answer(network)
    alike = bool((found - expected).abs().max() <= _ALIKE * expected.abs().max())
    return network if alike else None


def lean_classifier(live: LiveModel) -> LiveModel:
    """The same classifier with its network in the faster form, to score with: gradients are not for it.

    Returns:
        The model itself where it is no image classifier, has no faster form, or one whose layers give other features.
    """
    if not isinstance(live, ImageClassifier):
        return live
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (_NOISE_PX, _NOISE_PX, 3), dtype=np.uint8))
    inputs = live.prepare([noise])
    network = lean_network(live, inputs)
    if network is None:
        return live
    expected, _ = read_features(live, inputs, [noise.size])  # also finds the layers, whose names the copy takes over
    lighter = copy.copy(live)
    lighter.module = network
    found, _ = read_features(lighter, inputs, [noise.size])
    return lighter if bool(np.abs(found - expected).max() <= _ALIKE) else live


def _fold(network: nn.Module, answer: Callable[[nn.Module], Tensor]) -> None:
    """Folds each batch normalisation into the convolution whose output it was seen to take."""
    made_by: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    handles = []
    for name, part in network.named_modules():
        if isinstance(part, nn.Conv2d):

            def made(_part: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:  # noqa: ANN401
                made_by[id(output)] = (name, output)  # the output is kept, so that its id stays its own

            handles.append(part.register_forward_hook(made))
        elif isinstance(part, nn.BatchNorm2d):

            def taken(_part: nn.Module, given: tuple[Tensor, ...], name: str = name) -> None:
                if id(given[0]) in made_by:
                    pairs.append((made_by[id(given[0])][0], name))

            handles.append(part.register_forward_pre_hook(taken))
    try:
        answer(network)
    finally:
        for handle in handles:
            handle.remove()
    for convolution, normalisation in pairs:
        first, second = network.get_submodule(convolution), network.get_submodule(normalisation)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            _replace(network, convolution, fuse_conv_bn_eval(first, second))
            # timm's normalisations bring the function behind them along.
            _replace(network, normalisation, getattr(second, "act", nn.Identity()))


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, part)
