"""The faster form of a network: the same answers and features, the original untouched."""

from threading import RLock
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from models.lean import lean_classifier, lean_module, lean_network
from models.loading import ModelLoader
from models.novelty import read_features
from models.registry import load_zoo


def picture(seed: int = 5) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def test_the_lean_form_answers_the_same(tiny_loader):
    live = tiny_loader.load("tiny-resnet")
    before = {name: tensor.clone() for name, tensor in live.module.state_dict().items()}
    inputs = live.prepare([picture(), picture(seed=6)])
    lean = lean_network(live, live.prepare([picture()]))
    torch.testing.assert_close(lean(**inputs).logits, live.forward(inputs).logits, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in live.module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in live.module.modules())
    assert lean_network(tiny_loader.load("tiny-vit"), inputs) is None


class Twice(nn.Module):
    """Reads its features again after the rectifier has had them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalisation, self.rectifier = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        features = self.normalisation(self.convolution(pixel_values))
        return SimpleNamespace(logits=(self.rectifier(features) - features).mean((2, 3)))


def test_a_network_that_a_lean_form_would_change_is_left_as_it_is():
    network = Twice().eval()
    live = SimpleNamespace(lock=RLock(), module=network, forward=lambda inputs: network(**inputs))
    assert lean_network(live, {"pixel_values": torch.randn(1, 3, 8, 8)}) is None
    assert not network.rectifier.inplace


def test_a_lean_classifier_scores_and_sees_the_same_with_a_network_of_its_own(tiny_loader):
    live = tiny_loader.load("tiny-resnet")
    lean = lean_classifier(live)
    assert lean.module is not live.module
    assert not any(isinstance(part, nn.BatchNorm2d) for part in lean.module.modules())
    assert [layer.name for layer in lean.layers] == [layer.name for layer in live.layers]
    images = [picture(), picture(seed=6)]
    for one, other in zip(lean.predict(images), live.predict(images), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    sizes = [image.size for image in images]
    seen = [read_features(model, model.prepare(images), sizes)[0] for model in (lean, live)]
    np.testing.assert_allclose(*seen, atol=1e-5)


def test_what_has_no_faster_form_stays_itself(tiny_loader):
    live = tiny_loader.load("tiny-vit")
    assert lean_classifier(live) is live
    other = SimpleNamespace()
    assert lean_classifier(other) is other


def test_a_normalisation_that_brings_its_function_along_keeps_it():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), BatchNormAct2d(4, act_layer=nn.ReLU6)).eval()
    network[1].running_mean.normal_()
    pixels = torch.randn(2, 3, 8, 8)
    lean = lean_module(network, lambda one: one(pixels))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in lean.modules())
    torch.testing.assert_close(lean(pixels), network(pixels), rtol=1e-5, atol=1e-5)
    assert float(lean(pixels).detach().min()) == 0


def test_the_bundled_image_tower_is_read_through_its_lean_form():
    live = ModelLoader(load_zoo(), offline=True, device="cpu").load("bundled-openclip")
    pixels = live.prepare([picture(), picture(seed=6)])["pixel_values"]
    expected = live.towers.encode_images(pixels.requires_grad_())
    with torch.enable_grad():
        read = live.towers.read_images(pixels)
    assert expected.requires_grad
    assert not read.requires_grad
    torch.testing.assert_close(read, expected.detach(), rtol=1e-4, atol=1e-4)
    assert any(isinstance(part, nn.BatchNorm2d) for part in live.module.visual.modules()), "heatmaps need the original"
