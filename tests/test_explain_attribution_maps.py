"""Signed maps: exact on linear scores, whose shares are weight times input, and drawn with 0 in the middle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explain.attribution_maps import attribute_picture, gradient_shap, integrated_gradients, occlusion
from explain.cam import explain_batch
from explain.examination import Settings, examine, measure_faithfulness
from explain.faithfulness import FaithfulnessMeter
from explain.faithfulness_schema import FaithfulnessSettings
from explain.maps import explain_picture
from explain.regions import heat_in_detections
from explain.render import draw_heatmap
from explain.replay import replay
from explain.schema import Heatmap, MapPart
from explain.targets import PredictedLogit
from models.errors import IncompatibleMethodError
from models.imaging import read_image
from models.schema import Detections, LoadState, ModelStatus

SIGNED = ("integrated_gradients", "occlusion", "gradient_shap")
TORCH = torch.Generator().manual_seed(0)
WEIGHTS = torch.randn(3, 6, 6, generator=TORCH)
PICTURE = torch.randn(3, 6, 6, generator=TORCH)


def linear(variants):
    return (variants * WEIGHTS).sum(dim=(1, 2, 3)) + 5


def test_integrated_gradients_of_a_linear_score_are_weight_times_input():
    found, delta = integrated_gradients(linear, PICTURE, torch.zeros_like(PICTURE))
    assert torch.allclose(found, WEIGHTS * PICTURE, atol=1e-5)
    assert delta == pytest.approx(0, abs=1e-4)
    baseline = torch.ones_like(PICTURE)
    found, _ = integrated_gradients(linear, PICTURE, baseline, steps=3, batch=2)
    assert torch.allclose(found, WEIGHTS * (PICTURE - 1), atol=1e-5)


def test_the_convergence_delta_tells_when_the_steps_are_too_few():
    def jump(variants):
        return torch.sigmoid(200 * (variants.mean(dim=(1, 2, 3)) - 0.5))

    picture = torch.ones(1, 4, 4)
    _, rough = integrated_gradients(jump, picture, torch.zeros_like(picture), steps=3)
    _, fine = integrated_gradients(jump, picture, torch.zeros_like(picture), steps=400)
    assert abs(rough) > 0.5
    assert abs(fine) < 0.05


def test_gradient_shap_of_a_linear_score_is_weight_times_the_mean_way():
    baselines = torch.zeros(2, *PICTURE.shape)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    found, delta = gradient_shap(linear, PICTURE, baselines, samples=64)
    # Noise of a twentieth of the picture's spread, averaged over 64 points.
    assert torch.allclose(found, WEIGHTS * PICTURE, atol=0.1)
    assert delta == pytest.approx(0, abs=1e-3)
    again, _ = gradient_shap(linear, PICTURE, baselines, samples=64)
    assert torch.equal(found, again)
    other, _ = gradient_shap(linear, PICTURE, baselines, samples=64, seed=1)
    assert not torch.equal(found, other)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def test_occlusion_of_a_linear_score_is_what_the_square_held():
    baseline = torch.zeros_like(PICTURE)
    found = occlusion(linear, PICTURE, baseline, window_px=2, stride_px=2)
    held = (WEIGHTS * PICTURE).sum(dim=0).reshape(3, 2, 3, 2).sum(dim=(1, 3))
    assert torch.allclose(found[0], held.repeat_interleave(2, 0).repeat_interleave(2, 1), atol=1e-4)


def signed_map(values, box=(0.0, 0.0, 4.0, 2.0)):
    raw = np.array(values, np.float32)
    return Heatmap((MapPart(raw, box),), (4, 2), -2.0, 2.0, "occlusion", "logit:fake", "pixels", "m")


def test_a_signed_map_is_neutral_in_the_middle_of_its_scale_and_outside_what_was_seen():
    heatmap = signed_map([[2, -2]], (0.0, 0.0, 2.0, 2.0))
    assert heatmap.signed
    assert heatmap.signed_at((4, 2))[0] == pytest.approx([1, -1, 0, 0])
    assert heatmap.values[0] == pytest.approx([1, 0, 0.5, 0.5])
    assert heatmap.positive_at((4, 2))[0] == pytest.approx([1, 0, 0, 0])


def test_it_is_drawn_red_for_and_blue_against_and_only_what_speaks_for_is_heat():
    photo = Image.new("RGB", (4, 2), "gray")
    drawn = np.asarray(draw_heatmap(photo, signed_map([[2, 0, 0, -2]]), opacity=1)).astype(int)
    assert drawn[0, 0, 0] > drawn[0, 0, 2] + 50
    assert drawn[0, 3, 2] > drawn[0, 3, 0] + 50
    assert (drawn[0, 1] == np.asarray(photo)[0, 1]).all()
    boxes = np.array([[0, 0, 2, 2], [2, 0, 4, 2]], np.float32)
    status = ModelStatus(LoadState.BUNDLED)
    detections = Detections(boxes, np.ones(2, np.float32), ("for", "against"), (4, 2), "d", status)
    shares = {one.label: one.share for one in heat_in_detections(signed_map([[2, 0, 0, -2]]), detections)}
    assert shares == pytest.approx({"for": 1, "against": 0})


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_real_networks_share_out_the_change_of_their_score(tiny_loader, photo):
    for model_id in ("tiny-resnet", "tiny-vit"):
        live = tiny_loader.load(model_id)
        found, problems = attribute_picture(live, photo, SIGNED, PredictedLogit(live.labels))
        assert problems == ()
        assert [one.method for one in found] == list(SIGNED)
        label = live.predict([photo])[0].label
        for one in found:
            assert one.signed
            assert one.target == f"logit:{label}"
            assert one.grid_rc == (32, 32)
            assert (one.delta is None) == (one.method == "occlusion")
        assert found[0].delta < 0.2
        assert all(part.grad is None and not part.requires_grad for part in live.module.parameters())


def test_maps_of_every_kind_come_in_the_order_asked(tiny_loader, photo):
    live = tiny_loader.load("tiny-resnet")
    answer = explain_picture(
        live, photo, methods=("occlusion", "gradcam", "integrated_gradients"), target=PredictedLogit(live.labels)
    )
    assert [one.method for one in answer.heatmaps] == ["occlusion", "gradcam", "integrated_gradients"]
    alone = explain_picture(live, photo, methods=("occlusion",), target=PredictedLogit(live.labels))
    assert alone.prediction.probabilities == pytest.approx(answer.prediction.probabilities)
    with pytest.raises(IncompatibleMethodError, match="passes of its own"):
        explain_batch(live, [photo], methods=("occlusion",))


def test_a_bundle_keeps_measures_and_replays_signed_maps(tiny_loader, photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    settings = Settings("deepfake", ("tiny-resnet",), ("gradcam", *SIGNED), detector=None)
    examined = examine(read_image(tmp_path / "photo.png"), settings, tiny_loader)
    quick = FaithfulnessSettings(steps=3, random=3, badge_steps=2, infidelity_samples=2, sensitivity_samples=1)
    measured = measure_faithfulness(examined, tiny_loader, FaithfulnessMeter(), quick)
    assert [one.method for one in measured.faithfulness] == ["gradcam", *SIGNED]
    assert [one.max_sensitivity is None for one in measured.faithfulness] == [False, True, True, True]
    assert all(0 <= one.sparseness <= 1 for one in measured.faithfulness)
    folder = measured.save(tmp_path / "bundle")
    report = (folder / "report.html").read_text("utf-8")
    assert "red: for it, blue: against it; convergence delta" in report
    outcomes = {one.item: one.outcome for one in replay(folder, tiny_loader)}
    assert all(outcomes[f"heatmap tiny-resnet {method}"] in ("equal", "within tolerance") for method in SIGNED)
    assert "different" not in outcomes.values()
