"""Image-text models of every kind: vectors, long texts, regions, zero-shot answers, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor

from models.clip import ImageTextModel, square_around
from models.clip_loading import load_clip
from models.clip_sentence import CONTEXT as SENTENCE_CONTEXT
from models.clip_sentence import SentenceEncoder, encoder_folder
from models.clip_texts import split_text
from models.errors import ModelUnavailableError, UnsafeWeightsError, ZooError
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import LiveModel, LoadState, ModelSpec, ModelStatus
from models.weights import choose_names
from tests.tiny_clips import CONTEXT, KINDS, build_clip

ANSWERS = {"a dog": "dog", "a red dog": "dog", "a cat": "cat"}
PICTURES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40 + 20 * seed, 96, 3), dtype=np.uint8))
    for seed in range(3)
]


def load(folder, answers=ANSWERS) -> ImageTextModel:
    spec = ModelSpec(
        id="tiny", name="Tiny", task="pets", kind="clip", source=str(folder), licence="MIT", size_mb=1, memory_mb=1,
        answers=answers,
    )  # fmt: skip
    return load_clip(spec, folder, ModelStatus(LoadState.FINE_TUNED), answers=answers, device=torch.device("cpu"))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    built = {}

    def folder(kind):
        if kind not in built:
            built[kind] = build_clip(kind, root / kind)
        return built[kind]

    return folder


@pytest.fixture(scope="session", params=KINDS)
def live(request, tiny_clip) -> ImageTextModel:
    return load(tiny_clip(request.param))


def test_vectors_have_length_one_and_do_not_depend_on_the_company(live):
    together = live.embed_images(PICTURES)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)
    alone = live.with_answers(ANSWERS)
    alone._images = type(alone._images)(10)
    np.testing.assert_allclose(np.concatenate([alone.embed_images([one]) for one in PICTURES]), together, atol=1e-5)
    texts = ["a dog", "no cat on the left", "a photo of the red circle on the right street"]
    words = live.embed_texts(texts)
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(live.similarity(PICTURES, texts), together @ words.T, atol=1e-6)
    assert live.similarity(PICTURES, texts).std() > 1e-3


def test_vectors_equal_those_of_openclip_itself(tiny_clip):
    folder = tiny_clip("openclip-vit")
    network, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    network.eval()
    texts = ["a red dog on the left", "cut"]
    with torch.no_grad():
        images = network.encode_image(torch.stack([transform(one) for one in PICTURES]), normalize=True)
        words = network.encode_text(open_clip.tokenize(texts, context_length=CONTEXT), normalize=True)
        logits = network.logit_scale.exp() * images @ words.T
    live = load(folder, {texts[0]: "dog", texts[1]: "other"})
    np.testing.assert_allclose(live.embed_images(PICTURES), images, atol=1e-6)
    np.testing.assert_allclose(live.embed_texts(texts), words, atol=1e-6)
    np.testing.assert_allclose(live.forward(live.prepare(PICTURES)).logits, logits, atol=1e-4)


def test_probabilities_equal_those_of_the_transformers_library(tiny_clip):
    folder = tiny_clip("clip")
    network, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    texts = ["a dog", "a photo of a red cat on the left"]
    with torch.no_grad():
        wanted = network(**processor(text=texts, images=PICTURES, padding=True, return_tensors="pt")).logits_per_image
    live = load(folder, {texts[0]: "dog", texts[1]: "cat"})
    for told, row in zip(live.predict(PICTURES), wanted.softmax(1).tolist(), strict=True):
        assert list(told.probabilities.values()) == pytest.approx(row, abs=1e-5)
        assert sum(told.probabilities.values()) == pytest.approx(1)
        assert told.label == ("dog", "cat")[int(row[1] > row[0])]


def test_a_text_beyond_the_context_is_pooled_and_its_end_still_counts(live):
    long = "a photo of the red dog on the left. " * 6
    cut, kept = live.embed_texts([long + "no cat.", long + "the man on the street."])
    pieces = live.split_texts([long + "no cat."])[0]
    assert len(pieces) > 1
    assert all(live.towers.count_tokens(piece) <= live.towers.context for piece in pieces)
    assert " ".join(pieces).split() == (long + "no cat.").split()
    assert float(cut @ kept) < 1 - 1e-5, "the end of a long text was cut off"
    weights = np.array([live.towers.count_tokens(piece) for piece in pieces], dtype=np.float32)
    mean = weights @ live.embed_texts(list(pieces))
    np.testing.assert_allclose(cut, mean / np.linalg.norm(mean), atol=1e-5)


def test_a_text_is_parted_after_sentences_then_clauses_then_words_then_anywhere():
    count = len
    assert split_text("  fits ", count, 10) == ("fits",)
    assert split_text("One two. Three four. Five six.", count, 21) == ("One two.", "Three four. Five six.")
    assert split_text("red and green, blue and black", count, 20) == ("red and green,", "blue and black")
    assert split_text("가나다라。마바사아。", count, 6) == ("가나다라。", "마바사아。")
    assert "".join(split_text("x" * 37, count, 10)) == "x" * 37
    with pytest.raises(ValueError, match="too few"):
        split_text("x", lambda text: 9, 8)


def test_a_region_is_the_square_around_it(live):
    picture = PICTURES[2]
    boxes = [(10, 10, 40, 40), (0, 0, *picture.size)]
    crops = live.embed_regions(picture, boxes)
    np.testing.assert_allclose(crops[0], live.embed_images([picture.crop((10, 10, 40, 40))])[0], atol=1e-5)
    assert not np.allclose(crops[0], crops[1], atol=1e-3)
    with pytest.raises(ValueError, match="covers nothing"):
        live.embed_regions(picture, [(200, 0, 220, 20)])


def test_regions_go_through_the_tower_together_and_each_only_once(live, monkeypatch):
    passes = []
    encode = live.towers.read_images
    monkeypatch.setattr(live.towers, "read_images", lambda pixels: (passes.append(len(pixels)), encode(pixels))[1])
    picture = Image.fromarray(np.random.default_rng(9).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    boxes = [(left, top, left + 20, top + 20) for left in range(0, 100, 20) for top in (0, 20, 40, 60)]
    first = live.embed_regions(picture, boxes)
    assert passes == [16, 4], "twenty regions are two passes"
    again = live.embed_regions(picture.copy(), [boxes[7], boxes[7], boxes[3]])
    assert passes == [16, 4], "a region of the same pixels was encoded again"
    np.testing.assert_array_equal(again, first[[7, 7, 3]])
    live.embed_regions(picture, [*boxes[:2], (3, 3, 23, 23)])
    assert passes == [16, 4, 1], "only the new region is encoded"
    other = picture.copy()
    other.putpixel((5, 5), (255 - picture.getpixel((5, 5))[0], 0, 0))
    live.embed_regions(other, boxes[:2])
    assert passes == [16, 4, 1, 2], "another picture's regions are its own"


def test_squares_stay_in_the_picture_where_there_is_room():
    assert square_around((40, 40, 60, 50), (100, 100)) == (40, 35, 60, 55)
    assert square_around((0, 0, 10, 4), (100, 100)) == (0, 0, 10, 10)
    assert square_around((90, 20, 130, 50), (100, 100)) == (70, 20, 100, 50)
    assert square_around((0, 0, 100, 40), (100, 40)) == (0, -30, 100, 70)


def test_a_picture_seen_before_costs_no_pass(live, monkeypatch):
    first = live.embed_images(PICTURES)
    monkeypatch.setattr(live.towers, "read_images", lambda _pixels: pytest.fail("encoded again"))
    again = live.embed_images([PICTURES[1], PICTURES[1].copy()])
    np.testing.assert_array_equal(again, first[[1, 1]])


def test_asked_something_else_the_network_stays_the_same(live):
    other = live.with_answers({"a man": "man", "a woman": "woman", "a car": "car"})
    assert isinstance(other, LiveModel)
    assert other.labels == ("man", "woman", "car")
    assert other.module is live.module
    assert live.labels == ("dog", "cat")
    np.testing.assert_array_equal(other.embed_images(PICTURES), live.embed_images(PICTURES))


def test_the_loader_serves_a_zoo_entry(tiny_clip, tmp_path):
    entry = {
        "id": "tiny-clip", "name": "Tiny", "task": "pets", "kind": "clip", "source": str(tiny_clip("clip")),
        "answers": ANSWERS, "licence": "MIT", "size_mb": 1, "memory_mb": 1,
    }  # fmt: skip
    file = tmp_path / "zoo.yaml"
    file.write_text(json.dumps({"models": [entry]}), encoding="utf-8")
    live = ModelLoader(load_zoo(file), offline=True, device="cpu").load("tiny-clip")
    assert isinstance(live, ImageTextModel)
    assert live.status.state is LoadState.FINE_TUNED
    assert len(live.status.weights_sha256) == 64
    assert live.predict(PICTURES[:1])[0].label in ("dog", "cat")
    for broken, told in (({"answers": {"a dog": "dog"}}, "at least two texts"), ({"family": "clip"}, "only an entry")):
        file.write_text(json.dumps({"models": [entry | broken]}), encoding="utf-8")
        with pytest.raises(ZooError, match=told):
            load_zoo(file)


def test_pickles_missing_weights_and_foreign_towers_are_refused(tiny_clip, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny_clip("openclip-vit"), folder)
    weights = folder / "open_clip_model.safetensors"
    tensors = load_file(weights)
    save_file({name: one for name, one in tensors.items() if name != "visual.proj"}, weights)
    with pytest.raises(ModelUnavailableError, match=r"lacks 1 of the network's weights \(visual.proj"):
        load(folder)
    save_file(tensors | {"visual.more": torch.zeros(1)}, weights)
    with pytest.raises(ModelUnavailableError, match="no place for"):
        load(folder)
    weights.rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UnsafeWeightsError, match="pickle"):
        load(folder)
    shutil.copy(tiny_clip("openclip-vit") / weights.name, weights)
    configuration = json.loads((folder / "open_clip_config.json").read_text())
    configuration["model_cfg"]["text_cfg"] = {"hf_model_name": "xlm-roberta-base", "hf_proj_type": "linear"}
    (folder / "open_clip_config.json").write_text(json.dumps(configuration), encoding="utf-8")
    with pytest.raises(ModelUnavailableError, match="only a hub has the configuration"):
        load(folder)


def test_only_what_is_needed_is_taken_from_a_repository():
    both = ["README.md", "config.json", "model.safetensors", "open_clip_config.json", "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin", "tokenizer.json", "preprocessor_config.json"]  # fmt: skip
    assert choose_names(both, "x", "clip") == ["open_clip_config.json", "tokenizer.json", "open_clip_model.safetensors"]
    hub = [
        "config.json",
        "model.safetensors",
        "pytorch_model.bin",
        "preprocessor_config.json",
        "vocab.json",
        "merges.txt",
    ]
    assert choose_names(hub, "x", "clip") == [
        "config.json", "merges.txt", "preprocessor_config.json", "vocab.json", "model.safetensors",
    ]  # fmt: skip
    with pytest.raises(UnsafeWeightsError):
        choose_names(["open_clip_config.json", "open_clip_pytorch_model.bin"], "x", "clip")


def test_the_packaged_sentence_encoder_is_the_published_one():
    encoder = SentenceEncoder()
    same, alike, other = encoder.embed(["A dog runs.", "A puppy is running.", "The stock market fell."])
    assert float(same @ alike) > 0.6 > 0.3 > float(same @ other)
    long = "A dog runs over the grass. " * 60
    assert encoder.count_tokens(long) > SENTENCE_CONTEXT
    cut, kept = encoder.embed([long, long + "Then the stock market fell and the banks closed. " * 9])
    assert float(cut @ kept) < 0.99
    assert (encoder_folder() / "model.safetensors").is_file()


def test_a_changed_sentence_encoder_is_refused(tmp_path, monkeypatch):
    from models import clip_sentence

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.setattr(
        clip_sentence, "find_spec", lambda _name: type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    )
    with pytest.raises(ModelUnavailableError, match="published weights"):
        encoder_folder()
