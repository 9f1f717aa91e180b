"""The catalog: what each method may claim and what it is offered for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from explain.catalog import CATALOG, DEFAULT_METHODS, get_method, list_methods
from models.errors import IncompatibleMethodError
from models.schema import LayerPreset


class Live(SimpleNamespace):
    spec = SimpleNamespace(id="toy")
    module = nn.Linear(1, 1)
    layers = (LayerPreset("block"),)


def test_the_names_and_what_they_claim():
    cams = ["gradcam", "gradcampp", "layercam", "eigencam", "eigengradcam", "hirescam", "xgradcam"]
    signed = ["integrated_gradients", "occlusion", "gradient_shap"]
    assert list(CATALOG) == [*cams, *signed]
    assert list(DEFAULT_METHODS) == cams
    for name, entry in CATALOG.items():
        assert get_method(name) is entry
        assert entry.name == name
        assert entry.signed == (name in signed)
        assert entry.class_aware == (name != "eigencam")
        assert entry.needs_gradients == (name not in ("eigencam", "occlusion"))
        assert "20" in entry.source


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(IncompatibleMethodError, match="no method 'grad-cam'; the methods are gradcam, gradcampp"):
        get_method("grad-cam")


def test_a_usual_model_is_offered_every_method():
    assert [entry.name for entry in list_methods(Live())] == list(CATALOG)


def test_a_model_without_layers_is_offered_what_looks_into_none_and_told_why():
    live = Live(layers=())
    assert [entry.name for entry in list_methods(live)] == ["integrated_gradients", "occlusion", "gradient_shap"]
    assert "toy names no layer" in CATALOG["eigencam"].compatible(live)

    class Opaque(Live):
        @property
        def layers(self):
            raise IncompatibleMethodError("toy keeps no picture")

    assert CATALOG["gradcam"].compatible(Opaque()) == "toy keeps no picture"


def test_weights_of_inference_mode_leave_the_methods_without_gradients():
    with torch.inference_mode():
        live = Live(module=nn.Linear(1, 1))
    assert [entry.name for entry in list_methods(live)] == ["eigencam", "occlusion"]
    assert "forbids gradients" in CATALOG["layercam"].compatible(live)
