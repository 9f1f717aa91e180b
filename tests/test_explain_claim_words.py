"""What each word of a claim does for its cosine with a picture: Shapley values worked out by hand, on every tower."""

from __future__ import annotations

import json
from itertools import combinations
from math import factorial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from explain.attribution import attribute_claim
from explain.examination import Settings, examine
from explain.replay import replay
from explain.words import find_words
from models.clip_loading import load_clip
from models.errors import IncompatibleMethodError
from models.imaging import read_image
from models.loading import ModelLoader
from models.registry import load_zoo
from models.schema import LoadState, ModelSpec, ModelStatus
from tests.tiny_clips import KINDS, build_clip
from ui.markup import target_word

PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (90, 130, 3), dtype=np.uint8))


class Worded:
    """An image-text model whose cosine is a function of the text, and which writes down what it was given."""

    spec = SimpleNamespace(id="worded")

    def __init__(self, cosine):
        self.cosine, self.texts = cosine, []

    def embed_images(self, images):
        return np.ones((len(images), 1), np.float32)

    def embed_texts(self, texts):
        self.texts += texts
        return np.array([[self.cosine(text)] for text in texts], np.float32)


@pytest.fixture(scope="module", params=KINDS)
def live(request, tmp_path_factory):
    folder = build_clip(request.param, tmp_path_factory.mktemp("towers") / request.param)
    answers = {"a dog": "dog", "a cat": "cat"}
    spec = ModelSpec(
        id="tiny", name="Tiny", task="pets", kind="clip", source=str(folder), licence="MIT", size_mb=1, memory_mb=1,
        answers=answers,
    )  # fmt: skip
    return load_clip(spec, folder, ModelStatus(LoadState.FINE_TUNED), answers=answers, device=torch.device("cpu"))


def test_words_that_add_up_keep_their_own_weights():
    weights = dict(zip("abcdefgh", (0.3, -0.2, 0, 0.1, 0.05, -0.1, 0.2, 0.15), strict=True))
    claim = "a b c d e f g h"
    told = attribute_claim(Worded(lambda text: sum(weights[word] for word in text.split())), PICTURE, claim)
    assert told.words == tuple("abcdefgh")
    np.testing.assert_allclose(told.scores, list(weights.values()), atol=1e-6)
    assert (told.question, told.target, told.model_id) == (claim, f"similarity:{claim}", "worded")


def test_words_that_count_only_together_share_what_they_add():
    def cosine(text):
        return 0.6 * ({"no", "dog"} <= set(text.split())) - 0.3 * ("cat" in text)

    told = attribute_claim(Worded(cosine), PICTURE, "no dog cat")
    np.testing.assert_allclose(told.scores, [0.3, 0.3, -0.3], atol=1e-6)
    np.testing.assert_allclose(told.shares, [1, 1, -1], atol=1e-6)


def test_what_is_left_out_leaves_a_plain_text_and_the_whole_stays_as_it_is():
    asked = Worded(len)
    claim = "A man's dog,  running. "
    told = attribute_claim(asked, PICTURE, claim)
    assert told.words == ("A", "man's", "dog", "running")
    assert {claim, "", "A dog, running.", "man's dog, running.", "A man's dog, .", "running."} <= {
        text.removeprefix(", ") for text in asked.texts
    }
    assert find_words("... 5 % — 개가 뛴다!") == ((4, 5), (10, 12), (13, 15))


def test_scores_are_the_shapley_values_of_the_models_own_cosines(live):
    claim = "a red dog"
    words = claim.split()
    subsets = [chosen for size in range(4) for chosen in combinations(range(3), size)]
    texts = [" ".join(words[at] for at in chosen) for chosen in subsets]
    value = dict(zip(subsets, live.similarity([PICTURE], texts)[0].tolist(), strict=True))
    told = attribute_claim(live, PICTURE, claim).scores
    for word in range(3):
        expected = sum(
            factorial(len(chosen)) * factorial(2 - len(chosen)) / 6
            * (value[tuple(sorted((*chosen, word)))] - value[chosen])
            for chosen in subsets
            if word not in chosen
        )  # fmt: skip
        assert told[word] == pytest.approx(expected, abs=1e-5)


def test_a_long_claim_adds_up_comes_out_the_same_and_moves_no_random_numbers(live):
    claim = "a photo of the red dog on the left of the street. " * 2
    assert len(live.split_texts([claim])[0]) > 1
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = attribute_claim(live, PICTURE, claim)
    assert torch.equal(torch.random.get_rng_state(), before)
    whole, nothing = live.similarity([PICTURE], [claim, ""])[0]
    assert first.scores.sum() == pytest.approx(whole - nothing, abs=1e-4)
    assert np.abs(first.scores).max() > 1e-4
    np.testing.assert_array_equal(attribute_claim(live, PICTURE, claim).scores, first.scores)


def test_a_claim_without_words_and_numbers_that_are_none_are_refused():
    with pytest.raises(IncompatibleMethodError, match="no word to score"):
        attribute_claim(Worded(len), PICTURE, " ... ")
    with pytest.raises(IncompatibleMethodError, match="not finite"):
        attribute_claim(Worded(lambda _text: float("nan")), PICTURE, "a dog")


def test_an_examination_shows_the_words_of_the_text_behind_the_label(tmp_path):
    answers = {"a dog": "dog", "a red dog": "dog", "a cat": "cat"}
    entry = {
        "id": "tiny", "name": "Tiny", "task": "pets", "kind": "clip", "licence": "MIT", "size_mb": 1, "memory_mb": 1,
        "source": str(build_clip("openclip-timm", tmp_path / "tower")), "answers": answers,
    }  # fmt: skip
    (tmp_path / "zoo.yaml").write_text(json.dumps({"models": [entry]}), encoding="utf-8")
    PICTURE.save(tmp_path / "picture.png")
    loader = ModelLoader(load_zoo(tmp_path / "zoo.yaml"), offline=True, device="cpu")
    source = read_image(tmp_path / "picture.png")
    live = loader.load("tiny")
    dogs = live.similarity([source.rgb], ["a dog", "a red dog"])[0]
    for target, texts in (("dog", ["a dog", "a red dog"]), ("cat", ["a cat"])):
        settings = Settings(task="pets", models=("tiny",), methods=("layercam",), target=target, detector=None)
        found = examine(source, settings, loader)
        text = texts[int(dogs.argmax())] if target == "dog" else texts[0]
        assert [words.question for words in found.words] == [text]
        assert found.words[0].words == tuple(text.split())
        np.testing.assert_array_equal(found.words[0].scores, attribute_claim(live, source.rgb, text).scores)
    folder = found.save(tmp_path / "bundle")
    assert {row.item: row.outcome for row in replay(folder, loader)}["words tiny"] == "equal"
    assert target_word("en", found.words[0].target) == "fit to “a cat”"
