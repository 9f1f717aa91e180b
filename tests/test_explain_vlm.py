"""Vision-language models explained end to end: maps and words from one pass, for every family and for small weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explain.cam import explain_batch
from explain.capture import capture
from explain.catalog import DEFAULT_METHODS
from explain.targets import LabelMargin, LogitMargin, same_margin
from models.errors import IncompatibleMethodError
from models.families import get_family
from models.precision import skeleton
from models.schema import LoadState, ModelSpec, ModelStatus
from models.vlm import VisionLanguageModel
from models.vlm_core import load_core

ALL = DEFAULT_METHODS
FAMILIES = ("paligemma", "llava_next", "qwen2_vl", "smolvlm")
QUESTION = "Is this image made by AI?"
ANSWERS = {"0": "fake", "1 for real": "real", "yes": "unsure"}
SIZES_WH = ((90, 60), (40, 100))


def build(family, folder, precision="fp32"):
    """A tiny model of the real classes, asked a question with three answers, one of them of several tokens."""
    spec = ModelSpec(
        id="tiny",
        name="Tiny",
        task="deepfake",
        kind="vlm",
        source="tiny",
        licence="MIT",
        size_mb=1,
        memory_mb=1,
        family=family,
        question=QUESTION,
        answers=ANSWERS,
        hint="Fakes have odd shadows.",
    )
    core = load_core(get_family(family), folder, precision, skeleton(folder), torch.device("cpu"), "tiny")
    return VisionLanguageModel(spec, ModelStatus(LoadState.FINE_TUNED, "tiny"), core)


@pytest.fixture(scope="module")
def lives(tiny_vlm):
    return {family: build(family, tiny_vlm(family)) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def live(request, lives):
    return lives[request.param]


def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES_WH]


AGAINST = "every cell speaks against the target"
CANCELLED = "the network normalises this layer's cells next"


def check_maps(explanation, size_wh, methods=ALL, allowed=(AGAINST,)):
    """Every map is there, or it is said why not."""
    told = [heatmap.method for heatmap in explanation.heatmaps] + [problem.method for problem in explanation.problems]
    assert sorted(told) == sorted(methods)
    reasons = {problem.message.partition(": ")[2] for problem in explanation.problems}
    assert all(reason.startswith(allowed) for reason in reasons), reasons
    assert len(explanation.heatmaps) >= len(methods) - 2
    for heatmap in explanation.heatmaps:
        values = heatmap.values
        assert values.shape == size_wh[::-1]
        assert np.isfinite(values).all()
        # Where a tile and the view of the whole are averaged, the hottest cell need not be hot in both.
        assert values.min() >= 0
        assert values.max() > 0.2


def test_all_maps_and_words_come_from_one_pass_of_the_tower(live):
    calls = []
    parts = live.core.anatomy
    hooks = [
        live.module.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for name in (parts.tower, parts.projector)
    ]
    try:
        explained = explain_batch(live, pictures(), methods=ALL, words=True)
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(calls) == sorted([parts.tower, parts.projector])
    for explanation, size_wh in zip(explained, SIZES_WH, strict=True):
        check_maps(explanation, size_wh)
        assert len(explanation.heatmaps) == len(ALL)
        assert explanation.heatmaps[0].layer.startswith(parts.tower)
        margin = same_margin(explanation.prediction).name
        assert {heatmap.target for heatmap in explanation.heatmaps} == {margin, "none"}
        (words,) = explanation.words
        assert words.target == margin
        assert " ".join(words.words).replace(" ?", "?") == QUESTION
        assert (words.scores != 0).all()
    for explanation, alone in zip(explained, live.predict(pictures()), strict=True):
        assert explanation.prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert (explanation.prediction.question, explanation.prediction.style) == (QUESTION, "plain")


def test_projector_and_language_model_can_be_looked_into_on_request(live):
    stages = []
    for layer in live.layers:
        explained = explain_batch(live, pictures(), methods=ALL, layers=[layer.name])
        for explanation, size_wh in zip(explained, SIZES_WH, strict=True):
            # Behind a tiny decoder's middle layer stands only the last one, which reads image tokens normalised.
            check_maps(explanation, size_wh, allowed=(AGAINST, CANCELLED))
        stages.append(live.core.family.stage(live.module, layer.name))
    assert stages == ["tower", "projector", "language"]


def test_images_of_a_batch_do_not_mix_although_their_tiles_are_counted_together(live):
    together = explain_batch(live, pictures(), methods=ALL, words=True)
    for image, explanation in zip(pictures(), together, strict=True):
        (alone,) = explain_batch(live, [image], methods=ALL, words=True)
        for one, other in zip(alone.heatmaps, explanation.heatmaps, strict=True):
            scale = (one.raw_min, one.raw_max)
            np.testing.assert_allclose(one.values, other.at(other.size_wh, scale), atol=2e-3)
        np.testing.assert_allclose(alone.words[0].scores, explanation.words[0].scores, rtol=1e-3, atol=1e-6)


def extended(inputs, ids):
    """The inputs of one prompt with an answer behind it, as training would write them."""
    longer = dict(inputs)
    for name, value in (("input_ids", None), ("attention_mask", 1), ("token_type_ids", 1), ("mm_token_type_ids", 0)):
        if name in inputs:
            more = torch.tensor([ids]) if value is None else torch.full((1, len(ids)), value)
            longer[name] = torch.cat([inputs[name], more.to(inputs[name].dtype)], dim=1)
    return longer


def log_probability(live, inputs, ids):
    """log P of an answer by one plain pass of the network over prompt and answer."""
    logits = live.module(**extended(inputs, ids), use_cache=False).logits[0, -len(ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()


def test_words_equal_gradients_of_plain_passes_over_whole_sequences(live):
    inputs = live.prepare(pictures()[:1])
    (explanation,) = explain_batch(live, pictures()[:1], methods=(), words=True)
    assert explanation.heatmaps == ()
    (words,) = explanation.words
    _, leader, rival = words.target.replace("-", ":").split(":")
    texts = {label: text for text, label in ANSWERS.items()}
    (prompt,) = live.prompts(inputs)
    meanings = []

    def keep(_module, _inputs, output):
        meanings.append(output.requires_grad_())

    hook = live.module.get_submodule(live.core.anatomy.embedding).register_forward_hook(keep)
    try:
        scores = [
            log_probability(live, inputs, live.core.continuations(prompt, [texts[x]])[0]) for x in (leader, rival)
        ]
    finally:
        hook.remove()
    length = inputs["input_ids"].shape[1]
    per_token = torch.zeros(length)
    for meaning, score, sign in zip(meanings, scores, (1, -1), strict=True):
        (gradient,) = torch.autograd.grad(score, meaning)
        per_token += sign * (gradient * meaning.detach()).sum(-1)[0, :length]
    tokens = live.core.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    first = max(at for at, token in enumerate(tokens) if token.lstrip("▁Ġ") == "Is")
    last = max(at for at, token in enumerate(tokens) if token.endswith("?"))
    assert words.scores.sum() == pytest.approx(per_token[first : last + 1].sum().item(), rel=1e-3, abs=1e-5)
    assert words.scores[0] == pytest.approx(per_token[first].item(), rel=1e-3, abs=1e-5)
    assert words.scores[-1] == pytest.approx(per_token[last].item(), rel=1e-3, abs=1e-5)


def test_the_first_described_then_asked_question_is_highlighted_as_it_stood_in_the_prompt(live):
    for style in ("informed", "captioned"):
        asked = live.asking(style=style)
        explained = explain_batch(asked, pictures(), methods=("layercam",), words=True)
        for explanation in explained:
            assert explanation.prediction.style == style
            assert not [problem for problem in explanation.problems if problem.method == "words"], style
            (words,) = explanation.words
            assert words.question == explanation.prediction.question
            assert words.question.endswith(QUESTION)
            assert words.words[:4] == ("Fakes", "have", "odd", "shadows.") or style == "captioned" or words.words[3:5]


def test_a_further_target_needs_no_further_pass(live):
    passes = []
    hook = live.module.register_forward_hook(lambda *_: passes.append(1))
    targets = [LabelMargin(live.labels, "real"), LogitMargin("fake", "unsure", live.labels)]
    try:
        explain_batch(live, pictures()[:1], methods=["hirescam"], targets=targets[:1])
        once = len(passes)
        (explanation,) = explain_batch(live, pictures()[:1], methods=["hirescam"], targets=targets, words=True)
    finally:
        hook.remove()
    assert len(passes) == 2 * once
    assert len(explanation.words) == 2


def test_four_bit_weights_of_the_language_model_give_maps_and_words(tiny_vlm):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    small = build("paligemma", tiny_vlm("paligemma"), "nf4")
    kinds = {type(part).__name__ for part in small.module.get_submodule(small.core.anatomy.language).modules()}
    assert "Linear4bit" in kinds
    tower = small.module.get_submodule(small.core.anatomy.tower)
    assert {weight.dtype for weight in tower.parameters()} == {torch.float32}
    explained = explain_batch(small, pictures(), methods=ALL, words=True)
    small.predict(pictures())
    again = explain_batch(small, pictures(), methods=ALL, words=True)
    for explanation, later, size_wh in zip(explained, again, SIZES_WH, strict=True):
        check_maps(explanation, size_wh)
        # A pass without gradients must not take them from the layers it ran through.
        np.testing.assert_array_equal(explanation.words[0].scores, later.words[0].scores)
        assert np.isfinite(explanation.words[0].scores).all()
    whole = build("paligemma", tiny_vlm("paligemma"))
    with torch.no_grad():
        for name, part in small.module.named_modules():
            if type(part).__name__ == "Linear4bit":
                weight = bitsandbytes.functional.dequantize_4bit(part.weight.data, part.weight.quant_state)
                whole.module.get_submodule(name).weight.copy_(weight)
    target = [LogitMargin("fake", "real", whole.labels)]
    inputs = whole.prepare(pictures())
    layer = whole.target_layer
    first, second = (
        capture(one.module, lambda one=one: one.forward(inputs), [layer], target).gradients[layer]
        for one in (small, whole)
    )
    np.testing.assert_allclose(first, second, atol=1e-4 * float(second.abs().max()))


def test_a_classifier_has_no_words(tiny_loader):
    with pytest.raises(IncompatibleMethodError, match="tiny-vit reads no question"):
        explain_batch(tiny_loader.load("tiny-vit"), pictures()[:1], methods=ALL, words=True)
