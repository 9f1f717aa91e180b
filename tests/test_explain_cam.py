"""CAMs: equal to pytorch-grad-cam's own, right by hand, and never a drawn nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_grad_cam as library
import torch
from PIL import Image
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification
from transformers import ViTImageProcessor as Processor

from explain.cam import NO_TARGET, Explanation, explain_batch, explain_inputs, heatmaps, principal_projection
from explain.capture import Capture, capture
from explain.catalog import DEFAULT_METHODS
from explain.targets import ClassLogit, LogitMargin, PredictedLogit
from models.classifier import ImageClassifier
from models.errors import EmptyHeatmapError, IncompatibleMethodError
from models.schema import LoadState, ModelSpec, ModelStatus, TokenGrid, TokenLayout

ALL = DEFAULT_METHODS
EIGEN = ("eigencam", "eigengradcam")
LABELS = ("fake", "real", "unsure")
THEIRS = {
    "gradcam": library.GradCAM,
    "gradcampp": library.GradCAMPlusPlus,
    "layercam": library.LayerCAM,
    "eigencam": library.EigenCAM,
    "eigengradcam": library.EigenGradCAM,
    "hirescam": library.HiResCAM,
    "xgradcam": library.XGradCAM,
}


def live_of(module, size_wh):
    spec = ModelSpec(
        id="tiny", name="Tiny", task="toy", kind="classifier", source="tiny", licence="MIT", size_mb=1, memory_mb=1
    )
    processor = Processor(size={"width": size_wh[0], "height": size_wh[1]})
    return ImageClassifier(spec, ModelStatus(LoadState.FINE_TUNED, "tiny"), module, processor, LABELS)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(3)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 96], depths=[1, 1], layer_type="basic", num_labels=3)
    module = ResNetForImageClassification(config)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.bias.data.normal_(0, 0.5)
    return live_of(module, (112, 80))


@pytest.fixture(scope="module")
def vit():
    """Patches of 16 on 80 x 48 pixels: three rows of five tokens behind the class token."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=(48, 80),
        patch_size=16,
        num_labels=3,
        initializer_range=0.2,
    )
    return live_of(ViTForImageClassification(config), (80, 48))


@pytest.fixture(params=["resnet", "vit"])
def live(request):
    return request.getfixturevalue(request.param)


def pictures(count=3):
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (48, 80, 3), dtype=np.uint8)) for _ in range(count)]


def tokens_to_map(tokens):
    return tokens[:, 1:].reshape(len(tokens), 3, 5, -1).permute(0, 3, 1, 2)


def unit(values):
    values = values - values.min()
    return values / values.max()


class Logits(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, pixels):
        return self.module(pixel_values=pixels).logits


def theirs(live, method, inputs, classes, *, negative=()):
    """The library's result, called the way its README says; the Eigen sign reversed for the images in ``negative``."""
    layer = live.module.get_submodule(live.target_layer)
    reshape = tokens_to_map if "vit" in live.target_layer else None
    live.module.requires_grad_(True)
    try:
        with THEIRS[method](model=Logits(live.module), target_layers=[layer], reshape_transform=reshape) as cam:
            weigh = cam.get_cam_image

            def turned(*args):
                raw = weigh(*args)
                raw[list(negative)] *= -1
                return raw

            cam.get_cam_image = turned
            return cam(inputs["pixel_values"], [ClassifierOutputTarget(index) for index in classes])
    finally:
        live.module.requires_grad_(False)


@pytest.mark.parametrize("method", ALL)
def test_maps_of_a_batch_equal_those_of_pytorch_grad_cam(live, method):
    inputs = live.prepare(pictures())
    height, width = inputs["pixel_values"].shape[-2:]
    for target, classes in [
        (ClassLogit("real", LABELS), [1, 1, 1]),
        (PredictedLogit(LABELS), live.forward(inputs).logits.argmax(1).tolist()),
    ]:
        ours = explain_inputs(live, inputs, [(width, height)] * 3, methods=[method], targets=[target])
        expected = theirs(live, method, inputs, classes)
        negative = [i for i in range(3) if method in EIGEN and _turned(live, inputs, target, method, i)]
        if negative:
            expected = theirs(live, method, inputs, classes, negative=negative)
        for image, explanation in enumerate(ours):
            assert expected[image].max() > 0
            values = explanation.heatmap(method).values
            assert values.shape == (height, width)
            np.testing.assert_allclose(unit(values), expected[image], atol=1e-5)


def _turned(live, inputs, target, method, image):
    """Whether the library's decomposition chose the other sign; the two projections must be one line."""
    taken = capture(live.module, lambda: live.forward(inputs), [live.target_layer], [target])
    matrix = taken.activations[live.target_layer]
    if method == "eigengradcam":
        matrix = matrix * taken.gradients[live.target_layer][0]
    if "vit" in live.target_layer:
        matrix = tokens_to_map(matrix)
    matrix = matrix[image].contiguous().numpy()
    ours = principal_projection(matrix.reshape(len(matrix), -1))
    correlation = np.corrcoef(ours, get_2d_projection(matrix[None])[0].ravel())[0, 1]
    assert abs(correlation) >= 0.999
    return correlation < 0


def test_the_scale_of_a_map_is_kept(resnet):
    inputs = resnet.prepare(pictures(1))
    taken = capture(resnet.module, lambda: resnet.forward(inputs), [resnet.target_layer], [ClassLogit("fake", LABELS)])
    activation, gradient = taken.activations[resnet.target_layer][0], taken.gradients[resnet.target_layer][0, 0]
    raw = (activation * gradient).sum(0).clamp(min=0)
    heatmap = explain_inputs(resnet, inputs, [(640, 480)], methods=["hirescam"], targets=[ClassLogit(0, LABELS)])[
        0
    ].heatmap("hirescam")
    np.testing.assert_allclose(heatmap.parts[0].cam, raw, rtol=1e-4, atol=1e-7)
    assert heatmap.raw_max == pytest.approx(raw.max().item(), rel=1e-4)
    assert (heatmap.method, heatmap.target, heatmap.layer, heatmap.model_id) == (
        "hirescam",
        "logit:fake",
        resnet.target_layer,
        "tiny",
    )
    assert heatmap.grid_rc == tuple(raw.shape)
    assert heatmap.values.shape == (480, 640)
    with pytest.raises(FrozenInstanceError):
        heatmap.raw_max = 1


def capture_of(activation, gradient, layer="block"):
    """A capture of one image and one target, from arrays."""
    activation = torch.as_tensor(activation, dtype=torch.float32)[None]
    gradient = torch.as_tensor(gradient, dtype=torch.float32)[None, None]
    outputs = SimpleNamespace(logits=torch.tensor([[1.0, 0.0, 0.0]]))
    return Capture(outputs, {layer: activation}, {layer: gradient}, torch.ones(1, 1), 0.0)


def maps_of(taken, layout, *methods):
    return heatmaps(
        taken,
        {"block": [layout]},
        lambda tensor, _layer: list(tensor),
        methods=methods,
        targets=[PredictedLogit(LABELS)],
        model_id="tiny",
        default_layer="better",
    )[0]


SQUARE = TokenLayout((2, 2), (TokenGrid((0, 0, 2, 2)),))


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("gradcam", [[0.5 * 1 + 1 * 4, 0.5 * 2], [0.5 * 3 + 1 * 2, 0]]),
        ("hirescam", [[2 * 1 + 1 * 4, 0], [0 * 3 + 1 * 2, 0]]),
        ("layercam", [[2 * 1 + 1 * 4, 0], [0 * 3 + 1 * 2, 0]]),
        ("xgradcam", [[2 / 6 * 1 + 4, 2 / 6 * 2], [2 / 6 * 3 + 2, 0]]),
    ],
)
def test_weightings_are_the_hand_computed_ones(method, expected):
    activation = [[[1, 2], [3, 0]], [[4, 0], [2, 0]]]
    gradient = [[[2, 0], [0, 0]], [[1, 1], [1, 1]]]
    found, problems = maps_of(capture_of(activation, gradient), SQUARE, method)
    assert not problems
    np.testing.assert_allclose(found[0].parts[0].cam, expected, rtol=1e-5)


def test_tiles_are_weighted_together_and_then_placed():
    rng = np.random.default_rng(0)
    activation, gradient = rng.random((2, 11, 6), np.float32)
    tiles = TokenLayout(
        (40, 20),
        (TokenGrid((0, 0, 20, 20), np.array([[10, 3], [4, 5]])), TokenGrid((20, 0, 40, 20), np.array([[1, 7, 2]]))),
    )
    found, problems = maps_of(capture_of(activation, gradient), tiles, *ALL)
    assert not problems
    order = [10, 3, 4, 5, 1, 7, 2]
    weights = gradient[order].mean(0)
    expected = activation[order] @ weights
    np.testing.assert_allclose(found[0].parts[0].cam, expected[:4].reshape(2, 2), rtol=1e-5)
    np.testing.assert_allclose(found[0].parts[1].cam, expected[4:].reshape(1, 3), rtol=1e-5)
    assert [part.box_xyxy for part in found[0].parts] == [grid.box_xyxy for grid in tiles.grids]
    assert found[0].raw_max == pytest.approx(expected.max(), rel=1e-5)


def test_every_layer_is_split_and_laid_out_in_its_own_way():
    """``packed`` keeps the tokens of both images on one axis, three of the first and four of the second."""
    gradient = torch.ones(1, 7, 2)
    taken = Capture(
        SimpleNamespace(logits=torch.ones(2, 3)),
        {"packed": torch.arange(14.0).reshape(7, 2), "map": torch.arange(12.0).reshape(2, 1, 2, 3)},
        {"packed": gradient, "map": torch.ones(1, 2, 1, 2, 3)},
        None,
        0.0,
    )
    layouts = {
        "packed": [
            TokenLayout((9, 9), (TokenGrid((0, 0, 9, 9), np.array([[2, 1, 0]])),)),
            TokenLayout((9, 9), (TokenGrid((0, 0, 9, 9), np.array([[0, 1], [2, 3]])),)),
        ],
        "map": [TokenLayout((9, 9), (TokenGrid((0, 0, 9, 9)),))] * 2,
    }

    def split(tensor, layer):
        return list(tensor.split([3, 4])) if layer == "packed" else list(tensor)

    first, second = heatmaps(
        taken, layouts, split, methods=["gradcam"], targets=[ClassLogit(0, LABELS)], model_id="tiny"
    )
    assert [heatmap.layer for heatmap in first[0]] == ["packed", "map"]
    assert first[0][0].parts[0].cam.tolist() == [[9, 5, 1]]
    assert second[0][0].parts[0].cam.tolist() == [[13, 17], [21, 25]]
    assert first[0][1].parts[0].cam.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second[0][1].parts[0].cam.tolist() == [[6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("shape", [(12, 300), (300, 12), (200, 150), (150, 200), (3, 2), (1, 9)])
def test_the_principal_projection_is_that_of_an_exact_decomposition(shape):
    cells = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    centred = (cells - cells.mean(1, keepdims=True)).T.astype(np.float64)
    exact = centred @ np.linalg.svd(centred)[2][0]
    ours = principal_projection(cells)
    assert ours.dtype == np.float32
    exact *= np.sign(exact @ ours)
    np.testing.assert_allclose(ours, exact, atol=2e-3 * np.abs(exact).max())


def test_equally_strong_directions_are_decomposed_exactly(monkeypatch):
    import scipy.sparse.linalg as sparse

    def gives_up(*_args, **_kwargs):
        raise sparse.ArpackNoConvergence("no convergence", np.array([]), np.array([]))

    for shape in [(80, 90), (90, 80)]:
        cells = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        expected = principal_projection(cells)
        with monkeypatch.context() as patch:
            patch.setattr(sparse, "eigsh", gives_up)
            np.testing.assert_allclose(principal_projection(cells), expected, atol=2e-3)


def test_the_sign_of_a_projection_rises_with_the_activation():
    strength = np.array([0, 0, 5, 9, 0, 1], np.float32)
    for channels in ([1, 2, 3], [3, -1, 2]):
        ours = principal_projection(np.outer(channels, strength).astype(np.float32))
        assert np.corrcoef(ours, strength)[0, 1] == pytest.approx(1)
    against = principal_projection(np.outer([-3, 1, -2], strength).astype(np.float32))
    assert np.corrcoef(against, strength)[0, 1] == pytest.approx(-1)


def test_where_the_mean_says_nothing_the_side_that_stands_out_is_positive():
    strength = np.array([0, 0, 0, 9, 0, 1], np.float32)
    for sign in (1, -1):
        ours = principal_projection(np.outer([sign, -sign], strength).astype(np.float32))
        assert ours.argmax() == 3


def test_equal_cells_have_no_direction_and_overflow_is_not_hidden():
    level = np.random.default_rng(0).random((7, 1), np.float32) * 100
    assert not principal_projection(np.repeat(level, 9, axis=1)).any()
    cells = np.ones((3, 4), np.float32)
    cells[1, 2] = np.nan
    assert np.isnan(principal_projection(cells)).all()


def test_the_last_block_of_a_vit_gives_an_error_instead_of_a_zero_map(vit):
    last = "vit.layers.2"
    explained = explain_batch(vit, pictures(2), methods=ALL, layers=[last])
    for explanation in explained:
        for method in ALL:
            if method == "eigencam":
                assert explanation.heatmap(method).raw_max > 0
                continue
            with pytest.raises(EmptyHeatmapError) as caught:
                explanation.heatmap(method)
            text = str(caught.value)
            assert f"layer {last}" in text
            assert "does not depend on the picture's cells" in text
            assert f"choose layer {vit.target_layer}" in text
    assert vit.target_layer == "vit.layers.2.layernorm_before"


INFINITE = np.array([[[np.inf, 1], [1, 1]]])
ONES = np.ones((1, 2, 2))


@pytest.mark.parametrize(
    ("activation", "gradient", "method", "words"),
    [
        (ONES, 0 * ONES, "gradcam", "does not depend on the picture's cells"),
        ([[[1, 2], [3, 4]]], -ONES, "gradcam", "speaks against the target.*explain another label"),
        (ONES, ONES, "gradcam", "the same everywhere"),
        (0 * ONES, ONES, "hirescam", "the same everywhere"),
        (ONES, ONES, "eigencam", "the same everywhere"),
        (INFINITE, ONES, "gradcam", "not finite.*float32"),
        (INFINITE, ONES, "eigencam", "not finite.*float32"),
        (ONES, INFINITE, "layercam", "not finite.*float32"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_empty_map_is_refused_with_reason_and_remedy(activation, gradient, method, words):
    found, problems = maps_of(capture_of(activation, gradient), SQUARE, method, "eigencam")
    assert not [heatmap for heatmap in found if heatmap.method == method]
    with pytest.raises(EmptyHeatmapError, match=words) as caught:
        Explanation(None, found, problems).heatmap(method)
    assert "layer block" in str(caught.value)
    assert "better" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_behind_a_normalisation_is_not_drawn_as_heat(dtype):
    """Behind the layer every cell is normalised, so the gradient is at right angles to it and HiResCAM sums to dust."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(1, 6, 256, generator=generator).to(dtype).requires_grad_()
    weights = torch.randn(6, 256, generator=generator).to(dtype)
    (nn.functional.layer_norm(cells, (256,)) * weights).sum().backward()
    grid = TokenLayout((6, 1), (TokenGrid((0, 0, 6, 1), np.arange(6)[None]),))
    found, problems = maps_of(
        capture_of(cells[0].detach().float(), cells.grad[0].float()), grid, "hirescam", "gradcam", "layercam"
    )
    assert [heatmap.method for heatmap in found] == ["gradcam", "layercam"]
    (problem,) = problems
    assert problem.method == "hirescam"
    assert "activation and gradient cancel; use another method" in problem.message


def test_one_pass_answers_and_explains_two_images_by_every_method_and_target(live):
    runs = []
    hook = live.module.register_forward_hook(lambda *_: runs.append(1))
    targets = [ClassLogit("real", LABELS), LogitMargin("real", "fake", LABELS)]
    explained = explain_batch(live, pictures(2), methods=ALL, targets=targets)
    hook.remove()
    assert len(runs) == 1
    for explanation, alone in zip(explained, live.predict(pictures(2)), strict=True):
        assert explanation.prediction.label == alone.label
        assert explanation.prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert explanation.prediction.latency_s > 0
        told = [(h.method, h.target) for h in explanation.heatmaps]
        told += [(p.method, p.target) for p in explanation.problems]
        names = ("logit:real", "margin:real-fake")
        assert sorted(told) == sorted(
            [(method, name) for method in ALL if method != "eigencam" for name in names] + [("eigencam", NO_TARGET)]
        )


def test_images_of_a_batch_do_not_mix(live):
    together = explain_batch(live, pictures(), methods=ALL)
    for image, explanation in zip(pictures(), together, strict=True):
        alone = explain_batch(live, [image], methods=ALL)[0]
        assert [h.target for h in alone.heatmaps] == [h.target for h in explanation.heatmaps]
        for one, other in zip(alone.heatmaps, explanation.heatmaps, strict=True):
            np.testing.assert_allclose(unit(one.values), unit(other.values), atol=1e-4)
    assert len({explanation.heatmaps[0].values.tobytes() for explanation in together}) == 3


def test_two_threads_at_once_get_their_own_answers(resnet):
    images = pictures(6)
    alone = [explain_batch(resnet, [image], methods=ALL)[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(lambda image: explain_batch(resnet, [image], methods=ALL)[0], images * 3))
    for index, explanation in enumerate(crowd):
        expected = alone[index % 6]
        assert explanation.prediction.logits == pytest.approx(expected.prediction.logits, abs=1e-6)
        for one, other in zip(explanation.heatmaps, expected.heatmaps, strict=True):
            np.testing.assert_allclose(unit(one.values), unit(other.values), atol=1e-4)
    assert not any(part._forward_hooks for part in resnet.module.modules())


def test_a_wrong_question_is_refused(resnet):
    with pytest.raises(IncompatibleMethodError, match="no method 'cam'"):
        explain_batch(resnet, pictures(1), methods=["cam"])
    with pytest.raises(IncompatibleMethodError, match="no layer"):
        explain_batch(resnet, pictures(1), methods=["gradcam"], layers=["resnet.stage"])
    with pytest.raises(IncompatibleMethodError, match="map \\(channels, rows, columns\\)"):
        explain_batch(resnet, pictures(1), methods=["gradcam"], layers=["classifier.0"])
    with pytest.raises(EmptyHeatmapError, match="Grad-CAM was not computed"):
        explain_batch(resnet, pictures(1), methods=["layercam"])[0].heatmap("gradcam")


def test_the_librarys_scaling_is_the_one_compared_with():
    """Guards the parity tests: the library's own scaling must be what ``unit`` does."""
    cam = np.random.default_rng(0).random((1, 3, 5), np.float32)
    np.testing.assert_allclose(scale_cam_image(cam)[0], unit(cam[0]), atol=1e-6)
