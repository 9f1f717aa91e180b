"""The small image-text model: norms that compute what they did, the analysis, figures, and the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from models.clip_loading import load_clip
from models.clip_texts import split_text
from models.registry import BUNDLED_ROOT
from models.schema import LoadState, ModelSpec, ModelStatus
from training.clip import correlate, main, measure_retrieval, place_classes
from training.clip_features import Captioned, find_views, read_captioned, recall_or_find, settle_norms
from training.clip_tuning import Tuning, blend, contrast, tune
from training.errors import DataError

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
BUNDLE = BUNDLED_ROOT / "openclip-small"
BARS = [("recall_at_1", 0.34), ("recall_at_5", 0.66), ("auroc", 0.94)]


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


def test_classes_lie_where_their_means_do_and_draw_the_directions_to_their_names():
    random = np.random.default_rng(0)
    means = random.normal(size=(6, 4)) * [3, 1, 1, 1]
    mixing = random.normal(size=(4, 4))
    features = random.normal(size=(3000, 1, 4)) @ mixing
    spread = features[:, 0].T @ features[:, 0] / 3000
    weights = np.linalg.solve(spread, means.T).T
    names = random.normal(size=(6, 5))
    placed, told = place_classes(features, weights, names)
    centred = means - means.mean(0)
    np.testing.assert_allclose(placed / np.linalg.norm(placed), centred / np.linalg.norm(centred), atol=0.05)
    assert np.square(placed).sum(1).mean() == pytest.approx(np.trace(np.cov(features[:, 0].T)), rel=0.01)
    np.testing.assert_allclose(told.mean(0), 0, atol=1e-12)
    # Pictures and captions share nothing; one class and its name do, and they alone give the first direction.
    sentences = random.normal(size=(3000, 1, 5))
    pair = (np.array([[2.0, 0, 0, 0], [-2, 0, 0, 0]]), np.array([[0, 3.0, 0, 0, 0], [0, -3, 0, 0, 0]]))
    plain = random.normal(size=(3000, 1, 4))
    image, text = correlate(plain, sentences, 0.01, 0.01, 1.0, width=1, anchors=pair, weight=1)
    assert abs(image[0, 0]) > 10 * np.abs(image[1:, 0]).max()
    assert abs(text[1, 0]) > 10 * np.abs(np.delete(text[:, 0], 1)).max()
    without = correlate(plain, sentences, 0.01, 0.01, 1.0, width=1, anchors=pair, weight=0)
    np.testing.assert_array_equal(without[0], correlate(plain, sentences, 0.01, 0.01, 1.0, width=1)[0])


def test_features_found_before_are_found_again_only_for_the_same_data(tmp_path):
    calls = []

    def find():
        calls.append(len(calls))
        return {"features": np.full((2, 3), len(calls), np.float32)}

    file = tmp_path / "runs" / "features.npz"
    for key, expected in (("a", 1), ("a", 1), ("b", 2), ("b", 2)):
        np.testing.assert_array_equal(recall_or_find(file, [key], find)["features"], np.full((2, 3), expected))
    assert calls == [0, 1]
    recall_or_find(None, ["b"], find)
    assert calls == [0, 1, 2]


def test_the_contrast_is_worked_out_by_hand():
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    texts = torch.stack([east, north, north])
    bank = torch.stack([north, north, north])
    loss = contrast(east[None], texts, bank, torch.tensor([0]), 2.0)
    # The picture against three texts: cosines 1, 0, 0. Its text against three pictures: its own, anew, 1, and 0, 0.
    by_hand = -2 + np.log(np.exp(2) + 2)
    assert float(loss) == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_training_both_sides_learns_all_layers_and_keeps_the_share_asked_for(share):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.visual = torch.nn.Module()
            trunk = torch.nn.Sequential(
                torch.nn.Conv2d(3, 6, 3, 2), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(),
            )  # fmt: skip
            self.visual.trunk, self.visual.head = trunk, torch.nn.Linear(6, 8)
            self.visual.forward = lambda pixels: self.visual.head(self.visual.trunk(pixels))
            self.text = torch.nn.Module()
            self.text.proj = torch.nn.Linear(5, 8, bias=False)
            self.logit_scale = torch.nn.Parameter(torch.tensor(2.0))

    network = Network().eval()
    network.requires_grad_(requires_grad=False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)] * 2
    photos = Captioned(tuple(_png(Image.new("RGB", (40, 40), colour)) for colour in colours), (("x",) * 5,) * 8)
    sentences = np.repeat(np.random.default_rng(0).normal(size=(8, 1, 5)), 5, 1).astype(np.float32)
    settings = Tuning(epochs=12, image_size=64, batch=4, trunk_rate=0.01, head_rate=0.05, share=share)
    losses = tune(network, photos, sentences, torch.ones(8, 8), settings, np.random.default_rng(0))
    assert losses[-1] < losses[0] - 0.3
    after = network.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    trained = {"visual.trunk.0.weight", "visual.trunk.1.weight", "visual.head.weight", "text.proj.weight"}
    assert changed >= trained if share else not changed
    assert not any("running" in name for name in changed), "batch norms keep their statistics"
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_blend_lies_between_start_and_end():
    part = torch.nn.Linear(1, 1)
    with torch.no_grad():
        part.weight.fill_(3)
        part.bias.fill_(1)
    blend(part, {"weight": torch.tensor([[1.0]]), "bias": torch.tensor([2.0])}, 0.25)
    assert (part.weight.item(), part.bias.item()) == (1.5, 1.75)


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


def test_views_are_the_photograph_its_mirror_image_and_crops_of_it():
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    seen = []

    def prepare(images):
        seen.extend(images)
        return torch.zeros(len(images), 3)

    photos = Captioned((_png(photo),), (("a",) * 5,))
    features = find_views(photos, torch.nn.Identity(), prepare, 6, np.random.default_rng(0))
    assert features.shape == (1, 6, 3)
    assert seen[0].size == (60, 40)
    np.testing.assert_array_equal(np.asarray(seen[1]), np.asarray(photo)[:, ::-1])
    shares = [crop.width * crop.height / 2400 for crop in seen[2:]]
    assert 0.2 < min(shares) <= max(shares) <= 1
    assert len({crop.size for crop in seen[2:]}) > 1


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

    @pytest.mark.parametrize(("name", "bar"), BARS)
    def test_its_stated_figures_pass_the_bars(self, name, bar):
        told = json.loads((BUNDLE / "metrics.json").read_text(encoding="utf-8"))["validation"]
        assert (told["photographs"], told["captions"]) == (150, 750)
        assert told[name]["value"] >= bar

    def test_it_carries_no_text_tower_and_is_small(self):
        held = load_file(next(BUNDLE.glob("*.safetensors")))
        assert [name for name in held if name.startswith("text.transformer.")] == [
            "text.transformer.encoder.layer.5.output.LayerNorm.bias"
        ]
        assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 8e6

    def test_texts_that_mean_the_same_lie_together_and_long_ones_are_read_to_the_end(self, live):
        dog, puppy, car = live.embed_texts(["a dog runs on grass", "a puppy on a lawn", "a car on a street"])
        assert float(dog @ puppy) > float(dog @ car) + 0.2
        long = "A dog runs over the grass. " * 60
        assert len(split_text(long, live.towers.count_tokens, live.towers.context)) > 1

    @pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
    def test_the_shipped_weights_give_the_figures_beside_them(self, live):
        stated = json.loads((BUNDLE / "metrics.json").read_text(encoding="utf-8"))["validation"]
        told = measure_retrieval(live.towers, read_captioned([SHARED / "captions" / "flickr_validation.parquet"]))
        assert (told["photographs"], told["captions"]) == (150, 750)
        for name in ("recall_at_1", "recall_at_5", "recall_at_10", "auroc"):
            assert told[name]["value"] == pytest.approx(stated[name]["value"], abs=0.005)


def _png(photo: Image.Image) -> bytes:
    import io

    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue()
