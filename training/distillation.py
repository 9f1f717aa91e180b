"""A student that learns from a teacher's softened answer and, patch by patch, from its class map and feature maps.

Sources: Hinton et al. 2015 (softened answers), Romero et al. 2015 (hints), Jiang et al. 2021 (token labelling),
Beyer et al. 2022 (patient teacher: it sees exactly the augmented, mixed picture that the student sees).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.errors import RecipeError
from training.recipe import DistillRecipe


class Student(nn.Module):
    """A classifier, and for a transformer the linear heads by which its patches answer while it learns.

    Every run trains through this plain module: the Trainer resumes a bare model of transformers from a checkpoint with
    renamed weights (``vit.encoder.layer`` for ``vit.layers``) without applying them, and only warns.

    Args:
        student: image classifier; with heads its hidden states are (n, prefix + patches, width).
        patch_heads: name of what each patch answers to the number of its classes.
        hint_channels: channels of the teacher's feature maps that layers at equal distances learn to foretell.
        side: of the pictures it takes, in pixels, where its teacher sees larger ones; those are made smaller here.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        *,
        patch_heads: Mapping[str, int] | None = None,
        hint_channels: Sequence[int] = (),
        side: int | None = None,
    ) -> None:
        super().__init__()
        self.side = side
        self.student = student
        self.config = student.config
        self.heads = nn.ModuleDict({name: _linear_head(student, n) for name, n in (patch_heads or {}).items()})
        self.hints = nn.ModuleList(_linear_head(student, channels) for channels in hint_channels)

    def forward(self, pixel_values: Tensor) -> dict[str, Any]:
        """``logits`` (n, classes); in training each head's answer and ``hints``, (n, prefix + patches, channels)."""
        heads = self.training and (len(self.heads) > 0 or len(self.hints) > 0)
        if self.side and pixel_values.shape[-1] != self.side:
            pixel_values = F.interpolate(pixel_values, (self.side, self.side), mode="bilinear", antialias=True)
        outputs = self.student(pixel_values=pixel_values, output_hidden_states=heads)
        answers: dict[str, Any] = {"logits": outputs.logits}
        if heads:
            states = outputs.hidden_states  # the embedding, then one per layer
            depth = len(states) - 1
            places = [max(1, depth * (index + 1) // len(self.hints)) for index in range(len(self.hints))]
            answers["hints"] = [head(states[place]) for head, place in zip(self.hints, places, strict=True)]
            answers |= {name: head(states[-1]) for name, head in self.heads.items()}
        return answers


def _linear_head(student: PreTrainedModel, channels: int) -> nn.Module:
    width = int(student.config.hidden_size)
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))


class Teacher:
    """A frozen image classifier that labels whatever the student sees.

    Args:
        model: image classifier with the student's labels; for learning patch by patch or from features a convolutional
            one that ends in pooling and a classifier, such as ``ResNetForImageClassification``.
        recipe: temperature and weights.

    Raises:
        RecipeError: if it is to teach patch by patch and has no class map.
    """

    def __init__(self, model: PreTrainedModel, recipe: DistillRecipe) -> None:
        # Without gradients, convolutions run 1.5 times as fast on channels-last memory.
        self._model: Any = model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
        self._recipe = recipe
        has_maps = hasattr(model.config, "hidden_sizes") and hasattr(model, "classifier")
        if (recipe.patches or recipe.features) and not has_maps:
            raise RecipeError("distill.patches: the teacher has no class map; choose a convolutional teacher or 0.")

    @property
    def hint_channels(self) -> tuple[int, ...]:
        """Channels of the feature maps it teaches by: those of all stages but the first; none without ``features``."""
        return tuple(self._model.config.hidden_sizes[1:]) if self._recipe.features else ()

    def loss(self, pixel_values: Tensor, targets: Tensor, outputs: dict[str, Any]) -> Tensor:
        """Distance of the student from the labels, the teacher's probabilities, its class map and its features.

        Args:
            pixel_values: float32 (n, 3, h, w), the picture both see.
            targets: float32 (n, classes).
            outputs: what ``Student`` returned for it.

        Returns:
            Scalar.
        """
        recipe = self._recipe
        with torch.no_grad():
            seen = pixel_values.contiguous(memory_format=torch.channels_last)
            taught = self._model(pixel_values=seen, output_hidden_states=bool(recipe.patches or recipe.features))
        logits = outputs["logits"].float()
        total = recipe.labels * F.cross_entropy(logits, targets)
        total = total + recipe.logits * softened_divergence(logits, taught.logits.float(), recipe.temperature)
        if recipe.patches:
            with torch.no_grad():
                labels = self._label_patches(taught.hidden_states[-1], outputs["patch_logits"].shape[1])
            patches = outputs["patch_logits"][:, -labels.shape[1] :].float()
            divergence = softened_divergence(patches.flatten(0, 1), labels.flatten(0, 1), recipe.temperature)
            total = total + recipe.patches * divergence
        if recipe.features:
            maps = taught.hidden_states[-len(outputs["hints"]) :]
            distances = [_hint_distance(hint, features) for hint, features in zip(outputs["hints"], maps, strict=True)]
            total = total + recipe.features * torch.stack(distances).sum()
        return total

    def _label_patches(self, features: Tensor, tokens: int) -> Tensor:
        """(n, side * side, classes): the classifier on each cell of the last feature map, on the student's grid.

        Args:
            features: (n, channels, height, width).
            tokens: the student's tokens; beyond the largest square they are prefix tokens (CLS).
        """
        count, channels, height, width = features.shape
        cells = features.float().permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        with torch.autocast(features.device.type, enabled=False):
            answers = self._model.classifier(cells).view(count, height, width, -1).permute(0, 3, 1, 2)
        return _on_grid(answers, tokens)


def _on_grid(maps: Tensor, tokens: int) -> Tensor:
    """Maps (n, channels, h, w) as (n, side * side, channels), on the largest square grid of a student's tokens."""
    side = int(tokens**0.5)
    resampled = F.interpolate(maps.float().contiguous(), (side, side), mode="bilinear", antialias=True)
    return resampled.flatten(2).transpose(1, 2)


def _hint_distance(hint: Tensor, features: Tensor) -> Tensor:
    """Smooth L1 distance of a student's hint (n, prefix + patches, channels) to a teacher's map (n, channels, h, w).

    Every channel of the map is brought to mean 0 and variance 1 over the batch first: all count alike.
    """
    with torch.no_grad():
        wanted = _on_grid(features, hint.shape[1])
        wanted = (wanted - wanted.mean((0, 1))) / (wanted.std((0, 1)) + 1e-3)
    return F.smooth_l1_loss(hint[:, -wanted.shape[1] :].float(), wanted)


def softened_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence of softened probabilities, (n, classes) each, times the squared temperature.

    The square keeps the gradient's size independent of the temperature (Hinton et al. 2015, section 2).
    """
    divergence = F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.log_softmax(teacher / temperature, -1),
        log_target=True,
        reduction="batchmean",
    )
    return divergence * temperature**2
