"""Pictures and hand-set networks by which the geometry of a vision-language model is proven.

``see_through`` sets a tiny network so that the first channels of every layer carry the mean colour of the patch they
came from. What the network itself then hands on says which patch each token is, without our code being asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from explain.cam import heatmaps
from explain.capture import capture
from explain.schema import Heatmap
from explain.targets import ClassLogit
from models.families.base import Family

YES, NO = 40, 41
"""Two ids of the vocabulary that stand for answers."""


def numbered(rows: int, cols: int, patch_px: int) -> Image.Image:
    """A picture of rows x cols patches, patch k painted with k: red k // 32 * 8, green k % 32 * 8."""
    index = np.arange(rows * cols).reshape(rows, cols)
    small = np.stack([index // 32 * 8, index % 32 * 8, np.zeros_like(index)], axis=-1).astype(np.uint8)
    return Image.fromarray(small.repeat(patch_px, 0).repeat(patch_px, 1))


def numbers(colours: torch.Tensor) -> np.ndarray:
    """Patch numbers from (..., 3 or more) colours in [0, 255]."""
    steps = (colours[..., :2].double() / 8).round().long().numpy()
    return steps[..., 0] * 32 + steps[..., 1]


def ramp(width: int, height: int) -> Image.Image:
    """A picture whose red tells the column and green the row: 0 at the left and top edge, 255 at the others."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.rint(np.stack([x, y, 0 * x], axis=-1) * 255).astype(np.uint8))


def red_area(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """Green with a red box; less red than the mean picture, so it speaks against the answer."""
    image = Image.new("RGB", (width, height), (90, 117, 104))
    image.paste((255, 117, 104), box)
    return image


def pictures(*sizes_wh: tuple[int, int]) -> list[Image.Image]:
    """Noise."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes_wh]


def see_through(module: nn.Module, tower: nn.Module, embed: nn.Module, projection: nn.Linear) -> None:
    """Sets a network so that channels 0, 1, 2 are a patch's mean colour at every block and behind the projection.

    Its blocks add nothing to what they get. Norms between tower and projection are for the caller to take out.

    Args:
        module: the whole network.
        tower: the vision encoder.
        embed: its convolution over patches.
        projection: the linear layer to the language model; takes the first of the channels that were merged.
    """
    for weight in tower.parameters():
        weight.data.zero_()
    for channel in range(3):
        embed.weight.data[channel, channel] = 1 / embed.weight[0, 0].numel()
    projection.weight.data.zero_()
    projection.weight.data.fill_diagonal_(1)
    for layer in module.get_decoder().layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()


def colours(values: torch.Tensor, processor: Any) -> torch.Tensor:
    """Normalised channels 0, 1, 2 back to [0, 255]."""
    reader = processor.image_processor
    return (values[..., :3] * torch.tensor(reader.image_std) + torch.tensor(reader.image_mean)) * 255


def react_to_red(module: nn.Module, projection: nn.Linear, channels: int) -> None:
    """Sets the language model so that the last position's ``YES`` grows with channel 0 of what stands before it.

    Every layer looks at all earlier tokens alike, and adds channel 0 of what it sees to channel 5. Norms
    are taken out: what they hand on does not depend on how strong a token is.

    Args:
        module: a network set by ``see_through``.
        projection: its linear layer to the language model; it now takes the mean over the patches that were merged.
        channels: channels of one patch.
    """
    projection.weight.data[0, ::channels] = channels / projection.in_features
    language = module.get_decoder()
    language.embed_tokens.weight.data.zero_()
    language.norm = nn.Identity()
    for layer in language.layers:
        layer.input_layernorm = nn.Identity()
        attention = layer.self_attn
        for part in (attention.q_proj, attention.k_proj, attention.v_proj):
            for weight in part.parameters():
                weight.data.zero_()
        attention.v_proj.weight.data[0, 0] = 1
        attention.o_proj.weight.data[5, 0] = 1
    module.lm_head.weight.data.zero_()
    module.lm_head.weight.data[YES, 5] = 1


def heat_of(
    family: Family,
    module: nn.Module,
    processor: Any,
    images: Sequence[Image.Image],
    layer: str,
    method: str = "hirescam",
    arrange: Callable[[list[Any]], list[Any]] = lambda layouts: layouts,
) -> list[Heatmap]:
    """A heatmap of each picture for ``YES``, through the family's own ``split`` and ``layout``."""
    inputs = family.encode(
        processor, images, [family.prompt(processor, f"Is it {'really ' * i}red?") for i in range(len(images))]
    )

    def forward() -> Any:
        given = family.embed(module, inputs, family.image_features(module, inputs))
        return SimpleNamespace(logits=module(**given).logits[:, -1, [YES, NO]])

    target = ClassLogit("yes", ("yes", "no"))
    taken = capture(module, forward, [layer], [target])
    layouts = arrange(family.layout(module, processor, inputs, [image.size for image in images], layer))
    found = heatmaps(
        taken,
        {layer: layouts},
        lambda tensor, name: family.split(module, tensor, inputs, name),
        methods=[method],
        targets=[target],
        model_id="tiny",
    )
    assert not any(problems for _, problems in found), found
    return [maps[0] for maps, _ in found]


def share_inside(heatmap: Heatmap, box: tuple[int, int, int, int], around: float = 0) -> float:
    """Share of the heat inside a box, widened by ``around`` pixels on each side."""
    heat = heatmap.values
    x0, y0, x1, y1 = box
    y = slice(max(round(y0 - around), 0), round(y1 + around))
    x = slice(max(round(x0 - around), 0), round(x1 + around))
    return float(heat[y, x].sum() / heat.sum())


def assert_cells_where_they_are(own: torch.Tensor, layout: Any, processor: Any, tolerance_cells: float) -> None:
    """Checks each cell's place against the place that a ``ramp`` painted into it.

    Args:
        own: (tokens, channels) of one picture of a network set by ``see_through``.
        layout: its layout.
        processor: knows how colours were normalised.
        tolerance_cells: how far off a cell's centre may lie, in cells.
    """
    width, height = layout.size_wh
    seen = colours(own, processor)[:, :2].numpy() / 255 * (width, height)
    for grid in layout.grids:
        rows, cols = grid.tokens.shape
        x0, y0, x1, y1 = grid.box_xyxy
        cell = np.array([(x1 - x0) / cols, (y1 - y0) / rows])
        at = np.stack(np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5), axis=-1) * cell + (x0, y0)
        off = np.abs(seen[grid.tokens] - at) / cell
        # Colours come in steps of 1/255 of the picture.
        slack = np.array([width, height]) / 255 / cell
        assert (off <= tolerance_cells + slack).all(), (off.max((0, 1)), slack)
