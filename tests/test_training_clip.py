"""The small image-text model: norms that compute what they did, the analysis, figures, and the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from models.clip_loading import load_clip
from models.clip_texts import split_text
from models.registry import BUNDLED_ROOT
from models.schema import LoadState, ModelSpec, ModelStatus
from training.clip import correlate, main, measure_retrieval
from training.clip_features import Captioned, find_views, read_captioned, settle_norms
from training.errors import DataError

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
BUNDLE = BUNDLED_ROOT / "openclip-small"


def test_settled_norms_compute_what_they_did_with_statistics_of_real_activations():
    torch.manual_seed(0)
    trunk = timm.create_model("mobilenetv2_050", num_classes=0).double().eval()
    norms = [part for part in trunk.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.eps = 1e-3
        torch.nn.init.uniform_(norm.weight, 0.5, 2)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    trunk.requires_grad_(False)
    pixels = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    before = trunk(pixels)
    settle_norms(trunk, pixels)
    torch.testing.assert_close(trunk(pixels), before, rtol=1e-3, atol=1e-4)
    assert all(norm.eps == 1e-5 for norm in norms)
    seen = []
    handle = norms[5].register_forward_pre_hook(lambda _norm, inputs: seen.append(inputs[0]))
    trunk(pixels)
    handle.remove()
    torch.testing.assert_close(norms[5].running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norms[5].running_var, seen[0].var((0, 2, 3), unbiased=False), rtol=1e-3, atol=1e-4)


def test_correlation_finds_what_two_sides_share_and_leaves_the_rest():
    random = np.random.default_rng(0)
    shared = random.normal(size=(4000, 1, 1))
    features = np.concatenate([shared + 0.1 * random.normal(size=shared.shape), random.normal(size=(4000, 1, 2))], 2)
    sentences = np.concatenate([random.normal(size=(4000, 1, 1)), -2 * shared], 2)
    image, text = correlate(features, sentences, 1e-6, 1e-6, 1.0, width=2)
    first, second = ((features @ image)[:, 0, column] * (sentences @ text)[:, 0, column] for column in (0, 1))
    # corr(s + 0.1 e, s) = 1 / sqrt(1.01); weighed by it on both sides the mean product is its third power.
    assert first.mean() == pytest.approx(1.01**-1.5, rel=0.02)
    assert abs(second.mean()) < 0.01
    assert abs(image[0, 0]) > 30 * np.abs(image[1:, 0]).max()
    assert abs(text[1, 0]) > 10 * abs(text[0, 0])


def test_recall_and_auroc_are_counted_by_hand():
    vectors = torch.eye(8)

    class Exact:
        network = torch.nn.Identity()

        def prepare(self, images):
            return torch.tensor([image.getpixel((0, 0))[0] // 10 for image in images])

        def encode_images(self, places):
            return vectors[places]

        def encode_texts(self, texts):
            return vectors[[int(text) for text in texts]]

    photos = [Image.new("RGB", (8, 8), (10 * place + 2, 0, 0)) for place in range(8)]
    packed = tuple(_png(photo) for photo in photos)
    right = Captioned(packed, tuple((str(place),) * 5 for place in range(8)))
    told = measure_retrieval(Exact(), right)
    assert (told["recall_at_1"]["value"], told["auroc"]["value"], told["auroc_all_pairs"]) == (1, 1, 1)
    one_wrong = Captioned(packed, tuple((*(str(place),) * 4, str((place + 1) % 8)) for place in range(8)))
    told = measure_retrieval(Exact(), one_wrong)
    assert told["recall_at_1"]["value"] == pytest.approx(0.8)
    # A wrong caption ties with six foreign photographs at 0, and its own counts among those it does not beat.
    assert told["recall_at_5"]["value"] == pytest.approx(0.8)
    assert told["recall_at_10"]["value"] == 1


def test_views_are_the_photograph_and_crops_of_it():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    seen = []

    def prepare(images):
        seen.extend(images)
        return torch.zeros(len(images), 3)

    photos = Captioned((_png(photo),), (("a",) * 5,))
    features = find_views(photos, torch.nn.Identity(), prepare, 6, np.random.default_rng(0))
    assert features.shape == (1, 6, 3)
    assert seen[0].size == (60, 40)
    shares = [crop.width * crop.height / 2400 for crop in seen[1:]]
    assert 0.2 < min(shares) <= max(shares) <= 1
    assert len({crop.size for crop in seen[1:]}) > 1


def test_a_wrong_recipe_and_missing_captions_are_said_in_one_line(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\n", encoding="utf-8")
    assert main(["--recipe", str(recipe), "--out", str(tmp_path / "out")]) == 2
    assert "start: Field required" in capsys.readouterr().err
    with pytest.raises(DataError, match="no such file"):
        read_captioned([tmp_path / "none.parquet"])


@pytest.mark.skipif(not (BUNDLE / "metrics.json").is_file(), reason="the bundled image-text model is not there")
class TestBundled:
    @pytest.fixture(scope="class")
    def live(self):
        spec = ModelSpec(
            id="small", name="Small", task="x", kind="clip", source="bundled:openclip-small", licence="x", size_mb=1,
            memory_mb=1, answers={"a photo of a dog": "dog", "a photo of a car": "car"},
        )  # fmt: skip
        status = ModelStatus(LoadState.BUNDLED)
        return load_clip(spec, BUNDLE, status, answers=spec.answers, device=torch.device("cpu"))

    def test_it_meets_its_bars_and_carries_no_text_tower(self):
        told = json.loads((BUNDLE / "metrics.json").read_text(encoding="utf-8"))["validation"]
        assert told["photographs"] == 150
        assert told["recall_at_1"]["value"] >= 0.34
        assert told["recall_at_5"]["value"] >= 0.66
        assert told["auroc"]["value"] >= 0.94
        assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 8e6

    def test_texts_that_mean_the_same_lie_together_and_long_ones_are_read_to_the_end(self, live):
        dog, puppy, car = live.embed_texts(["a dog runs on grass", "a puppy on a lawn", "a car on a street"])
        assert float(dog @ puppy) > float(dog @ car) + 0.2
        long = "A dog runs over the grass. " * 60
        assert len(split_text(long, live.towers.count_tokens, live.towers.context)) > 1

    @pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
    def test_its_figures_are_those_of_the_shipped_weights(self, live):
        photos = read_captioned([SHARED / "captions" / "flickr_validation.parquet"])
        few = Captioned(photos.images[:40], photos.captions[:40])
        told = measure_retrieval(live.towers, few)
        assert told["recall_at_1"]["value"] > 0.5
        assert told["auroc"]["value"] > 0.9


def _png(photo: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue()
