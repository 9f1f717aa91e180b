"""Similarity to a text as a target: the right number, live gradients, heat where the tower looks, and no cut texts."""

from __future__ import annotations

import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from explain.cam import explain_batch
from explain.catalog import DEFAULT_METHODS
from explain.similarity import similarity_target
from explain.targets import default_target
from models.clip_loading import load_clip
from models.errors import IncompatibleMethodError
from models.schema import LoadState, ModelSpec, ModelStatus
from tests.index_images import assert_heat_in, numbered, with_red
from tests.tiny_clips import KINDS, build_clip

TEXT, FOILS = "a red dog on the left", ("a blue dog on the left", "a red cat on the left")
SIZE_WH = (130, 90)


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    root = tmp_path_factory.mktemp("towers")
    built = {}

    def live(kind, fresh=False):
        folder = root / kind
        if not folder.exists():
            build_clip(kind, folder)
        if fresh or kind not in built:
            answers = {"a dog": "dog", "a cat": "cat"}
            spec = ModelSpec(
                id="tiny", name="Tiny", task="pets", kind="clip", source=str(folder), licence="MIT", size_mb=1,
                memory_mb=1, answers=answers,
            )  # fmt: skip
            status = ModelStatus(LoadState.FINE_TUNED)
            one = load_clip(spec, folder, status, answers=answers, device=torch.device("cpu"))
            if fresh:
                return one
            built[kind] = one
        return built[kind]

    return live


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (*SIZE_WH[::-1], 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_is_the_cosine_less_the_mean_of_its_foils(load, kind, picture):
    live = load(kind)
    cosines = live.similarity([picture], [TEXT, *FOILS])[0]
    outputs = live.forward(live.prepare([picture]))
    assert similarity_target(live, TEXT)(outputs).item() == pytest.approx(cosines[0], abs=1e-5)
    contrast = similarity_target(live, TEXT, FOILS)
    assert contrast(outputs).item() == pytest.approx(cosines[0] - cosines[1:].mean(), abs=1e-5)
    assert similarity_target(live, TEXT).name == f"similarity:{TEXT}"
    assert contrast.names(outputs) == (f"contrast:{TEXT} | {FOILS[0]} | {FOILS[1]}",)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_alive_at_the_default_layer_and_every_method_says_something(load, kind, picture):
    live = load(kind)
    targets = [similarity_target(live, text, foils) for text in (TEXT, FOILS[0]) for foils in ((), ("a car",))]
    told = explain_batch(live, [picture, picture.rotate(180)], methods=DEFAULT_METHODS, targets=targets)
    for one in told:
        methods = {heatmap.method for heatmap in one.heatmaps}
        # A method that shows only what speaks for a text may have nothing to show; that is said, never drawn.
        assert {"gradcampp", "layercam", "eigencam"} <= methods
        assert all(re.search("speaks against|cancel", problem.message) for problem in one.problems)
        assert all(heatmap.values.shape == SIZE_WH[::-1] for heatmap in one.heatmaps)
    first, other = (one.heatmap("layercam").values for one in told)
    assert np.abs(first - other).max() > 0.1, "the map does not depend on the picture"
    assert set(told[0].prediction.probabilities) == {"dog", "cat"}


@pytest.mark.parametrize("kind", KINDS)
def test_two_texts_give_two_maps_and_a_contrast_is_not_their_common_part(load, kind, picture):
    live = load(kind)
    targets = [similarity_target(live, TEXT), similarity_target(live, FOILS[1])]
    targets.append(similarity_target(live, TEXT, FOILS[1:]))
    one = explain_batch(live, [picture], methods=["layercam"], targets=targets)[0]
    maps = {heatmap.target: heatmap.parts[0].cam for heatmap in one.heatmaps if heatmap.method == "layercam"}
    assert len(maps) == 3
    first, second, contrast = maps.values()
    assert np.abs(first / first.max() - second / second.max()).max() > 1e-3
    assert np.abs(first / first.max() - contrast / contrast.max()).max() > 1e-3


@pytest.mark.parametrize("kind", ["openclip-vit", "clip", "siglip"])
@pytest.mark.parametrize("size_wh", [(64, 64), (130, 90), (50, 200)])
def test_every_token_lies_where_its_patch_came_from(load, kind, size_wh):
    live = load(kind)
    layout = live.layout(live.prepare([Image.new("RGB", size_wh)]), [size_wh])[0]
    grid = layout.grids[0]
    x0, y0, x1, y1 = grid.box_xyxy
    side = min(size_wh)
    if kind == "siglip":
        assert (x0, y0, x1, y1) == (0, 0, *size_wh)
    else:
        assert (x1 - x0, y1 - y0) == pytest.approx((side, side), abs=1.5)
        assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((size_wh[0] / 2, size_wh[1] / 2), abs=1.5)
    prefix = 0 if kind == "siglip" else 1
    np.testing.assert_array_equal(grid.tokens, prefix + np.arange(16).reshape(4, 4))
    # The picture numbers the area of each token; what the tower is given must carry that number there.
    whole = numbered((64, 64), 4, 4).resize((round(x1 - x0), round(y1 - y0)), Image.Resampling.NEAREST)
    canvas = Image.new("RGB", size_wh)
    canvas.paste(whole, (round(x0), round(y0)))
    pixels = live.prepare([canvas])["pixel_values"][0, 0].reshape(4, 16, 4, 16)[:, 6:10, :, 6:10].mean((1, 3))
    order = torch.argsort(pixels.flatten())
    assert order.tolist() == list(range(16))


@pytest.mark.parametrize("method", ["gradcam", "gradcampp", "layercam", "hirescam", "xgradcam", "eigengradcam"])
def test_heat_lies_where_a_tower_of_known_weights_looks(load, method):
    """The last map of the tower is made the redness of each cell, and the text's vector what redness gives."""
    live = load("openclip-timm", fresh=True)
    network = live.module
    pooled = network.visual.trunk.num_features

    class Redness(torch.nn.Module):
        def forward(self, values):
            red = torch.relu(values[:, :1] - values[:, 1:2])
            cells = torch.nn.functional.avg_pool2d(red, 8)
            return torch.cat([cells, torch.ones_like(cells).expand(-1, pooled - 1, -1, -1)], dim=1)

    trunk = network.visual.trunk
    network.visual.trunk.redness = Redness()
    trunk.forward_features = partial(trunk.redness)
    with torch.no_grad():
        network.visual.head.proj.weight.zero_()
        network.visual.head.proj.weight[0, 0] = 1
        network.visual.head.proj.weight[1, 1] = 0.05
    box = (32, 16, 64, 48)
    target = similarity_target(live, TEXT)
    direction = torch.zeros(24)
    direction[0] = 1
    looks = type(target)(TEXT, (), direction)
    one = explain_batch(live, [with_red((96, 64), box)], methods=[method], targets=[looks])[0]
    assert not one.problems
    assert_heat_in(one.heatmap(method), box)


def test_what_cannot_be_compared_is_refused(load):
    live = load("clip")
    with pytest.raises(IncompatibleMethodError, match="needs a text"):
        similarity_target(live, "  ")
    with pytest.raises(IncompatibleMethodError, match="its own foil"):
        similarity_target(live, TEXT, [TEXT])
    with pytest.raises(IncompatibleMethodError, match="image-text model"):
        similarity_target(live, TEXT)(SimpleNamespace(logits=torch.zeros(1, 2)))


def test_labels_are_explained_by_their_margin(load):
    assert default_target(load("clip")).name == "margin:predicted"
    assert default_target(load("clip"), "cat").name == "margin:cat"


def test_a_long_text_is_explained_to_its_end(load):
    live = load("clip")
    long = "a photo of the red dog on the left " * 4
    first, second = similarity_target(live, f"{long} no cat"), similarity_target(live, f"{long} a blue car")
    assert not torch.allclose(first.direction, second.direction, atol=1e-4)
