"""Controls: random maps as smooth as asked, honest badges, and checks that a map must not survive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from explain import faithfulness_sanity
from explain.faithfulness_controls import (
    Badge,
    centre_gaussian,
    correlation_length,
    random_maps,
    smoothness_groups,
)
from explain.faithfulness_sanity import RandomisationCheck, check_classes, check_randomisation, random_weights
from explain.targets import PredictedLogit
from models.errors import IncompatibleMethodError


@pytest.fixture(params=["tiny-resnet", "tiny-vit"])
def live(request, tiny_loader):
    return tiny_loader.load(request.param)


def picture():
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def weights(live):
    return {name: tensor.clone() for name, tensor in live.module.state_dict().items()}


def same(before, live):
    return all(torch.equal(before[name], tensor) for name, tensor in live.module.state_dict().items())


def test_the_length_of_filtered_noise_is_what_theory_says():
    # White noise under a Gaussian correlates as exp(-d^2 / (4 sigma^2)), which is 1/2 at 2 sigma sqrt(ln 2).
    noise = np.random.default_rng(0).standard_normal((64, 64))
    for sigma in (1.5, 3.0):
        found = correlation_length(gaussian_filter(noise, sigma, mode="wrap").astype(np.float32))
        assert found == pytest.approx(2 * sigma * np.sqrt(np.log(2)), rel=0.1)
    with pytest.raises(ValueError, match="constant"):
        correlation_length(np.ones((8, 8), np.float32))


@pytest.mark.parametrize("wanted", [12.0, 25.0, 45.0])
def test_random_maps_are_as_smooth_as_asked(wanted):
    maps = random_maps(wanted, (192, 224), 20, seed=1)
    assert maps.shape == (20, 192, 224)
    assert maps.dtype == np.float32
    assert np.mean([correlation_length(one) for one in maps]) == pytest.approx(wanted, rel=0.15)
    assert maps.min() >= 0
    assert maps.max() <= 1
    # They are different maps, the same ones for the same seed.
    assert np.abs(np.corrcoef(maps.reshape(20, -1)) - np.eye(20)).mean() < 0.5
    assert np.array_equal(maps, random_maps(wanted, (192, 224), 20, seed=1))
    assert not np.array_equal(maps, random_maps(wanted, (192, 224), 20, seed=2))
    with pytest.raises(ValueError, match="random maps need"):
        random_maps(0, (8, 8), 1)


def test_the_blob_is_in_the_centre():
    blob = centre_gaussian((20, 40))
    assert np.unravel_index(blob.argmax(), blob.shape) == (9, 19)
    np.testing.assert_allclose(blob, blob[::-1, ::-1])
    assert blob[0, 0] < 0.03


def test_maps_of_alike_smoothness_share_random_maps():
    assert smoothness_groups([10, 30, 12, 40, 14.9]) == [[0, 2, 4], [1, 3]]
    assert smoothness_groups([]) == []


def badge(gain, centre=0.0, blind=False):
    return Badge(int((np.arange(20) / 20 < gain).sum()), np.arange(20) / 20, gain, centre, 1.0, 1.0, blind)


def test_a_badge_says_what_was_found():
    assert badge(2).text == "better than 20 of 20 random maps"
    assert badge(0.93).text == "better than 19 of 20 random maps"
    assert badge(0.93).trusted
    assert not badge(0.9).trusted
    assert badge(0.9).text.startswith("no better than chance: do not rely on this map (better than 18 of 20")
    assert badge(2, centre=3).text.endswith("; a blob in the centre does as well")
    assert badge(2, blind=True).text.endswith("; the method ignores the label")


def test_random_weights_are_random_and_gone_afterwards_bit_by_bit(live):
    before = weights(live)
    last = [name for name, _ in live.module.named_parameters() if name.startswith("classifier")]
    with random_weights(live.module, 0.05):
        changed = {name for name, tensor in live.module.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed
        assert changed <= set(last)
    with random_weights(live.module, 1.0):
        for name, parameter in live.module.named_parameters():
            if parameter.numel() > 50:
                assert not torch.equal(parameter, before[name])
                assert parameter.std().item() == pytest.approx(before[name].std().item(), rel=0.3)
    assert same(before, live)


def test_weights_come_back_after_an_error(live, monkeypatch):
    before = weights(live)
    calls = []

    def failing(*args, **options):
        calls.append(same(before, live))
        if len(calls) > 1:
            raise RuntimeError("no memory")
        return real(*args, **options)

    real = faithfulness_sanity.explain_picture
    monkeypatch.setattr(faithfulness_sanity, "explain_picture", failing)
    with pytest.raises(RuntimeError, match="no memory"):
        check_randomisation(live, picture(), ["gradcam"], PredictedLogit(live.labels))
    assert calls == [True, False]
    assert same(before, live)
    assert live.lock.acquire(blocking=False)
    live.lock.release()


def test_quantised_weights_are_refused():
    class Quantised(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, dtype=torch.uint8), requires_grad=False)

    with pytest.raises(IncompatibleMethodError, match="fp32"), random_weights(Quantised(), 1.0):
        pass


def test_randomisation_follows_the_map_from_the_output_down(live):
    before = weights(live)
    checks = check_randomisation(live, picture(), ["layercam", "eigencam"], PredictedLogit(live.labels), stages=2)
    assert [check.method for check in checks] == ["layercam", "eigencam"]
    for check in checks:
        assert check.shares == (0.5, 1.0)
        assert all(-1 <= value <= 1 for value in (*check.rank_correlations, *check.ssim))
    assert same(before, live)


def test_a_map_that_survives_random_weights_is_flagged():
    assert RandomisationCheck("m", (1.0,), (0.51,), (0.0,)).survived
    assert RandomisationCheck("m", (1.0,), (0.0,), (0.71,)).survived
    gone = RandomisationCheck("m", (0.5, 1.0), (0.9, 0.2), (0.9, 0.3))
    assert not gone.survived
    assert gone.text == "changes with the model's weights (rank correlation 0.20, similarity 0.30)"
    assert "does not show what was learned" in RandomisationCheck("m", (1.0,), (0.9,), (0.9,)).text


def test_an_edge_map_survives_and_a_map_of_the_network_does_not(live, monkeypatch):
    """A map that only reads the picture is what Adebayo et al. warn of: the check must catch it."""
    from dataclasses import replace

    from explain.schema import MapPart

    grey = np.asarray(picture().convert("L"), np.float32)
    real = faithfulness_sanity.explain_picture

    def edges(*args, **options):
        answer = real(*args, **options)
        part = MapPart(grey, (0.0, 0.0, 60.0, 40.0))
        low, high = float(grey.min()), float(grey.max())
        drawn = [replace(one, parts=(part,), raw_min=low, raw_max=high) for one in answer.heatmaps]
        return replace(answer, heatmaps=tuple(drawn))

    monkeypatch.setattr(faithfulness_sanity, "explain_picture", edges)
    (check,) = check_randomisation(live, picture(), ["eigencam"], PredictedLogit(live.labels), stages=1, draws=1)
    assert check.survived
    assert check.rank_correlations == (pytest.approx(1.0),)


def test_only_a_class_blind_map_is_the_same_for_another_label(live):
    checks = {
        check.method: check
        for check in check_classes(live, picture(), ["eigencam", "gradcam", "xgradcam"], *live.labels)
    }
    assert checks["eigencam"].unchanged
    assert checks["eigencam"].rank_correlation == pytest.approx(1.0)
    assert not checks["gradcam"].unchanged
    assert not checks["xgradcam"].unchanged
