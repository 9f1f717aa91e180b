"""Word attributions: letters to tokens and back, and scores that are exact where the weights are set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import GemmaTokenizer, PreTrainedTokenizerFast

from explain.capture import capture
from explain.schema import WordAttribution
from explain.targets import ClassLogit, LogitMargin
from explain.words import attribute_words, place_words
from models.errors import IncompatibleMethodError
from tests.tiny_vlms import TEXTS, byte_fallback_vocabulary

LABELS = ("fake", "real")
ENGLISH = "Is this image made by AI?"
KOREAN = "이 이미지는 다음 중 어떤 유형입니까? (0: 관련 없음, 1: 마약 대화 내역 사진)"
UNSEEN = "Is it a naïve jack-o'-lantern, or 조작된 그림?"


def byte_level():
    """A tokenizer of few merges, in the manner of GPT-2 and Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<image>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", additional_special_tokens=["<image>"], clean_up=False
    )


def byte_fallback():
    """A tokenizer that writes spaces as "▁", in the manner of Gemma and Llama."""
    vocab, merges = byte_fallback_vocabulary(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


TOKENIZERS = {"byte level": byte_level(), "byte fallback": byte_fallback()}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def encoded(tokenizer, question, *, pads=3, images=5):
    """A prompt and its ids: padded on the left, the image token repeated as processors do it."""
    prompt = f"User: <image>{question}\nAnswer:"
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    image = tokenizer.convert_tokens_to_ids("<image>")
    at = ids.index(image)
    return prompt, [tokenizer.pad_token_id] * pads + ids[:at] + [image] * images + ids[at + 1 :]


@pytest.mark.parametrize("question", [ENGLISH, KOREAN, UNSEEN])
def test_every_word_is_found_with_its_letters_and_its_tokens(tokenizer, question):
    prompt, ids = encoded(tokenizer, question)
    words = place_words(tokenizer, prompt, question, ids)
    texts = [question[slice(*word.span)] for word in words]
    assert "".join(texts) == question.replace(" ", "")
    positions = [position for word in words for position in word.positions]
    assert positions == sorted(set(positions))
    assert all(word.positions for word in words)
    for text, word in zip(texts, words, strict=True):
        read = tokenizer.decode([ids[position] for position in word.positions])
        assert read.strip() == text


def test_signs_are_words_of_their_own_unless_a_token_holds_both():
    for name, expected in [("byte level", ["by", "AI", "?"]), ("byte fallback", ["by", "AI?"])]:
        prompt, ids = encoded(TOKENIZERS[name], ENGLISH)
        words = place_words(TOKENIZERS[name], prompt, ENGLISH, ids)
        assert [ENGLISH[slice(*word.span)] for word in words][-len(expected) :] == expected


def test_what_is_inside_a_word_does_not_part_it(tokenizer):
    prompt, ids = encoded(tokenizer, UNSEEN)
    texts = [UNSEEN[slice(*word.span)] for word in place_words(tokenizer, prompt, UNSEEN, ids)]
    assert texts == ["Is", "it", "a", "naïve", "jack-o'-lantern", ",", "or", "조작된", "그림", "?"]


def test_the_last_occurrence_of_a_question_counts_and_spaces_around_it_do_not(tokenizer):
    asked = "  real or fake?  "
    prompt = "Say real or fake? <image>real or fake?\n"
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    words = place_words(tokenizer, prompt, asked, ids)
    assert [asked[slice(*word.span)] for word in words] == ["real", "or", "fake", "?"]
    assert min(words[0].positions) > ids.index(tokenizer.convert_tokens_to_ids("<image>"))


def test_what_cannot_be_placed_is_refused_with_the_reason(tokenizer):
    prompt, ids = encoded(tokenizer, ENGLISH)
    with pytest.raises(IncompatibleMethodError, match="does not contain the question 'Who"):
        place_words(tokenizer, prompt, "Who?", ids)
    with pytest.raises(IncompatibleMethodError, match="does not contain the question ''"):
        place_words(tokenizer, prompt, " ", ids)
    with pytest.raises(IncompatibleMethodError, match="in other tokens"):
        place_words(tokenizer, prompt, ENGLISH, ids[:-10])
    with pytest.raises(IncompatibleMethodError, match="SimpleNamespace does not tell which letters"):
        place_words(SimpleNamespace(is_fast=False), prompt, ENGLISH, ids)


class Reader(nn.Module):
    """Answers fake by the first channel, real by the second, of everything it read; pictures take their tokens' place.

    Each token is embedded as (0, 0, 1), except those of the deciding words.
    """

    def __init__(self, tokenizer):
        super().__init__()
        self.image = tokenizer.convert_tokens_to_ids("<image>")
        self.embed = nn.Embedding(len(tokenizer), 3)
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.embed.weight.copy_(torch.tensor([0.0, 0.0, 1.0]).expand(len(tokenizer), 3))
            self.embed.weight[self.image] = torch.tensor([7.0, 7.0, 7.0])
            self.head.weight.copy_(torch.tensor([[2.0, 0, 0], [0, 3.0, 0]]))

    def forward(self, ids):
        read = self.embed(ids)
        read = torch.where((ids == self.image)[..., None], torch.ones_like(read), read)
        return SimpleNamespace(logits=self.head(read.sum(1)))


def told(reader, ids, words, question, targets):
    ids = torch.tensor([ids])
    taken = capture(reader, lambda: reader(ids), ["embed"], targets)
    return attribute_words(taken, "embed", words, image=0, question=question, targets=targets, model_id="tiny")


@pytest.mark.parametrize(("deciding", "question"), [("AI", ENGLISH), ("마약", KOREAN), ("naïve", UNSEEN)])
def test_exactly_the_word_that_decides_is_highlighted(tokenizer, deciding, question):
    prompt, ids = encoded(tokenizer, question)
    words = place_words(tokenizer, prompt, question, ids)
    word = next(word for word in words if question[slice(*word.span)].strip("?") == deciding)
    reader = Reader(tokenizer).eval()
    shared = {ids[p] for other in words if other != word for p in other.positions}
    own = [position for position in word.positions if ids[position] not in shared]
    assert own
    with torch.no_grad():
        reader.embed.weight[[ids[position] for position in own]] = torch.tensor([0.5, -1.0, 0.0])
    (found,) = told(reader, ids, words, question, [LogitMargin("fake", "real", LABELS)])
    assert isinstance(found, WordAttribution)
    assert found.scores.dtype == np.float32
    expected = [len(own) * (2 * 0.5 + 3 * 1.0) if text.strip("?") == deciding else 0 for text in found.words]
    assert found.scores.tolist() == expected
    assert found.shares.tolist() == [float(text.strip("?") == deciding) for text in found.words]
    assert (found.question, found.target, found.model_id) == (question, "margin:fake-real", "tiny")


def test_a_word_that_speaks_against_the_target_is_below_zero_and_every_target_gets_its_own_scores(tokenizer):
    prompt, ids = encoded(tokenizer, ENGLISH)
    words = place_words(tokenizer, prompt, ENGLISH, ids)
    reader = Reader(tokenizer).eval()
    at = next(at for at, word in enumerate(words) if ENGLISH[slice(*word.span)].startswith("AI"))
    ai = words[at]
    with torch.no_grad():
        reader.embed.weight[[ids[position] for position in ai.positions]] = torch.tensor([-1.0, 1.0, 0.0])
    fake, real = told(reader, ids, words, ENGLISH, [ClassLogit("fake", LABELS), ClassLogit("real", LABELS)])
    assert fake.scores[at] == -2 * len(ai.positions)
    assert real.scores[at] == 3 * len(ai.positions)
    assert fake.shares.min() == -1
    assert (fake.target, real.target) == ("logit:fake", "logit:real")


def test_padding_changes_no_score(tokenizer):
    reader = Reader(tokenizer).eval()
    nn.init.normal_(reader.embed.weight, generator=torch.Generator().manual_seed(0))
    scores = []
    for pads in (0, 9):
        prompt, ids = encoded(tokenizer, ENGLISH, pads=pads)
        words = place_words(tokenizer, prompt, ENGLISH, ids)
        scores.append(told(reader, ids, words, ENGLISH, [ClassLogit(0, LABELS)])[0].scores)
    np.testing.assert_array_equal(*scores)
    assert (scores[0] != 0).all()


def test_an_answer_that_reads_no_question_and_scores_that_are_not_finite_are_refused(tokenizer):
    prompt, ids = encoded(tokenizer, ENGLISH)
    words = place_words(tokenizer, prompt, ENGLISH, ids)
    reader = Reader(tokenizer).eval()
    nn.init.zeros_(reader.head.weight)
    with pytest.raises(IncompatibleMethodError, match="tiny answers logit:fake without reading the question"):
        told(reader, ids, words, ENGLISH, [ClassLogit(0, LABELS)])
    nn.init.constant_(reader.head.weight, float("inf"))
    with pytest.raises(IncompatibleMethodError, match="not finite; load the model in float32"):
        told(reader, ids, words, ENGLISH, [ClassLogit(0, LABELS)])


def test_without_any_score_no_share_is_made_up():
    silent = WordAttribution("a b", ((0, 1), (2, 3)), np.zeros(2, np.float32), "t", "m")
    assert silent.shares.tolist() == [0, 0]
