"""Asking vision-language models: scores equal brute force, gradients too, what is shared is computed once."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from explain.capture import capture
from explain.targets import LabelMargin
from models.errors import ExhibitError, ModelUnavailableError
from models.families import get_family
from models.schema import LiveModel, LoadState, ModelSpec, ModelStatus
from models.scoring import LabelScores, next_positions
from models.vlm import VisionLanguageModel
from models.vlm_core import VlmCore

FAMILIES = ("paligemma", "llava_next", "qwen2_vl", "smolvlm")
ANSWERS = {"fake real": "made", "fake place 0": "drawn", "진짜": "photo", "0": "other"}
"""One and many tokens; the first two begin alike."""


@pytest.fixture(scope="module")
def ask(tiny_vlm):
    """Family and answers to a live model; one network per family."""
    cores = {}

    def make(family="paligemma", answers=ANSWERS, **more):
        if family not in cores:
            module, processor, _ = get_family(family).load(tiny_vlm(family))
            cores[family] = VlmCore(get_family(family), module, processor)
        entry = {
            "id": "tiny",
            "name": "Tiny",
            "task": "deepfake",
            "kind": "vlm",
            "source": "./tiny",
            "licence": "MIT",
            "size_mb": 1,
            "memory_mb": 1,
            "family": family,
            "question": "Is this image made by AI?",
            "answers": answers,
        }
        status = ModelStatus(LoadState.FINE_TUNED, "tiny")
        return VisionLanguageModel(ModelSpec(**(entry | more)), status, cores[family])

    return make


def pictures(*sizes):
    noise = np.random.default_rng(0)
    return [
        Image.fromarray(noise.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes or ((90, 50), (40, 90))
    ]


def whole_sequence(live, image, answer):
    """Log-probability of each token of an answer, from one pass over prompt and answer without any cache."""
    core = live.core
    (prompt,) = live.prompts(live.prepare([image]))
    (ids,) = core.continuations(prompt, (answer,))
    encoded = core.family.encode(core.processor, [image], [prompt])
    added = torch.tensor([ids])
    longer = encoded | {"input_ids": torch.cat([encoded["input_ids"], added], 1)}
    longer["attention_mask"] = torch.ones_like(longer["input_ids"])
    for name, kind in (("token_type_ids", 1), ("mm_token_type_ids", 0)):
        if name in encoded:
            longer[name] = torch.cat([encoded[name], torch.full_like(added, kind)], 1)
    logits = core.module(**longer).logits[0].log_softmax(-1)
    start = encoded["input_ids"].shape[1] - 1
    return torch.stack([logits[start + index, token] for index, token in enumerate(ids)])


# --- scoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_whole_sequences_in_batches_of_pictures_of_all_shapes(ask, family):
    live = ask(family)
    images = pictures((90, 50), (64, 64), (40, 120))
    with torch.no_grad():
        scores = live.forward(live.prepare(images))
        for row, image in enumerate(images):
            for column, answer in enumerate(live.answers):
                expected = whole_sequence(live, image, answer)
                assert scores.lengths[row, column] == len(expected)
                found = scores.per_token[row, column]
                torch.testing.assert_close(found[: len(expected)], expected, atol=1e-4, rtol=0)
                assert not found[len(expected) :].any()
    torch.testing.assert_close(scores.logits, scores.per_token.sum(2))
    torch.testing.assert_close(scores.mean, scores.logits / scores.lengths)
    assert len(set(scores.lengths[0].tolist())) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_single_tokens_need_one_pass_and_agree_with_greedy_generation(ask, family):
    live = ask(family)
    core, (image,) = live.core, pictures((64, 64))
    (prompt,) = live.prompts(live.prepare([image]))
    encoded = core.family.encode(core.processor, [image], [prompt])
    vocabulary = range(core.module.config.get_text_config().vocab_size)
    words = {word: token for token in vocabulary if (word := core.text([token]).strip())}
    single = {word: token for word, token in words.items() if core.continuations(prompt, (word,)) == ((token,),)}
    assert len(single) > 5
    choose = {"prefix_allowed_tokens_fn": lambda *_: list(single.values())}
    chosen = core.module.generate(**encoded, **choose, max_new_tokens=1, do_sample=False)[0, -1].item()
    passes = []
    handle = core.module.get_output_embeddings().register_forward_hook(lambda *_: passes.append(1))
    prediction = live.asking(answers={word: word for word in single}).predict([image])[0]
    handle.remove()
    assert single[prediction.label] == chosen
    assert len(passes) == 1


def test_the_label_pass_sees_the_prefix_as_the_prompt_did(ask):
    """PaliGemma reads its prompt in both directions; dropping that changes the scores, so the test above has teeth."""
    live = ask("paligemma")
    inputs = live.prepare(pictures((64, 64)))
    with torch.no_grad():
        right = live.forward(inputs).logits
        wrong = live.forward(inputs | {"token_type_ids": torch.ones_like(inputs["token_type_ids"])}).logits
    assert (right - wrong).abs().max() > 1e-3


def test_answers_that_begin_alike_or_nest_are_told_apart(ask):
    live = ask(answers={"fake": "a", "fake place": "b"})
    scores = live.forward(live.prepare(pictures((64, 64))))
    # The shorter one is followed by the end of the answer, so it is not more probable by construction.
    assert scores.lengths.tolist() == [[live_length(live, "fake") + 1, live_length(live, "fake place") + 1]]
    with pytest.raises(ExhibitError, match="the same to the model"):
        live.core.continuations(live.prompts(live.prepare(pictures()))[0], ("fake", "fake"))
    with pytest.raises(ExhibitError, match="at least two answers"):
        live.asking(answers={"yes": "a"})
    with pytest.raises(ExhibitError, match="each for another label"):
        live.asking(answers={"yes": "a", "no": "a"})


def live_length(live, answer):
    return len(live.core.continuations(live.prompts(live.prepare(pictures()))[0], (answer,))[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_the_label_margin_equal_those_of_whole_sequences(ask, family):
    live = ask(family)
    (image,) = pictures((64, 64))
    assert isinstance(live, LiveModel)
    for layer in (preset.name for preset in live.layers):
        inputs = live.prepare([image])
        taken = capture(live.module, lambda: live.forward(inputs), [layer], [LabelMargin(live.labels)])  # noqa: B023
        best, second = taken.outputs.logits[0].argsort(descending=True)[:2].tolist()
        texts = tuple(live.answers)
        slopes = []
        for index in (best, second):

            class Whole:
                def __init__(self, answer):
                    self.logits = whole_sequence(live, image, answer).sum()[None, None]

            alone = capture(live.module, lambda: Whole(texts[index]), [layer], [lambda out: out.logits[:, 0]])  # noqa: B023
            slopes.append(alone.gradients[layer][0])
        found = taken.gradients[layer][0]
        assert found.abs().max() > 0
        if live.core.family.stage(live.module, layer) == "language":
            # The whole sequence has the answer's own tokens behind the prompt.
            slopes = [slope[:, : found.shape[1]] for slope in slopes]
        torch.testing.assert_close(found, slopes[0] - slopes[1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_many_questions_on_one_picture_look_at_it_once(ask, family):
    live = ask(family)
    (image,) = pictures((80, 60))
    questions = ["Is this image made by AI?", "What is shown in this picture?", "이 이미지는 진짜입니까?"]
    looks, read = [], []
    language = live.module.get_submodule(live.core.anatomy.language)
    handles = [language.register_forward_hook(lambda *given: read.append(given[2].last_hidden_state.shape[:2].numel()))]
    tower = live.module.get_submodule(live.core.anatomy.projector)
    handle = tower.register_forward_hook(lambda *_: looks.append(1))
    together = live.ask(image, questions)
    once, together_read = len(looks), sum(read)
    looks.clear()
    read.clear()
    alone = [live.asking(question=question).predict([image])[0] for question in questions]
    handle.remove()
    handles[0].remove()
    assert once * len(questions) == len(looks)
    # What reads forwards only reads the picture's tokens once; PaliGemma reads them anew for every question.
    assert (together_read < 0.8 * sum(read)) == (family != "paligemma")
    for one, other in zip(together, alone, strict=True):
        assert one.question == other.question
        assert list(one.logits.values()) == pytest.approx(list(other.logits.values()), abs=1e-4)


def test_many_questions_hold_for_a_network_whose_positions_count_the_padding(
    ask, tmp_path, tmp_path_factory, monkeypatch
):
    from tests.moondream_standin import build_standin

    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.getbasetemp() / "code")
    )
    family = get_family("moondream")
    module, reader, _ = family.load(build_standin(tmp_path / "standin"), trust_remote_code=True)
    plain = ask()
    live = VisionLanguageModel(
        plain.spec, plain.status, VlmCore(family, module, reader), answers={"0 1": "a", "1": "b"}
    )
    (image,), questions = pictures((90, 50)), ["What?", "What is shown here?", "Whatever"]
    alone = [live.asking(question=question).predict([image])[0] for question in questions]
    for one, other in zip(live.ask(image, questions), alone, strict=True):
        assert list(one.logits.values()) == pytest.approx(list(other.logits.values()), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_a_picture_once_gives_the_same_inputs(ask, family, monkeypatch):
    core, (image,) = ask(family).core, pictures((90, 50))
    prompts = [core.family.prompt(core.processor, text) for text in ("Is it?", "What is shown in this picture?")]
    once, twice = core.about(image)(prompts), core.encode([image, image], prompts)
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in twice)
    reader = core.processor.image_processor
    seen = []
    real = type(reader).__call__
    counted = lambda self, images, **more: (seen.append(len(images)), real(self, images, **more))[1]  # noqa: E731
    monkeypatch.setattr(type(reader), "__call__", counted)
    encode = core.about(image)
    assert len(encode(prompts[:1])["input_ids"]) == 1
    assert all(torch.equal(encode(prompts)[name], twice[name]) for name in twice)
    assert seen == [1]
    assert core.processor.image_processor is reader


def test_positions_go_on_from_the_largest_on_all_axes():
    flat = {"position_ids": torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3]])}
    assert next_positions(flat, torch.tensor([0, 1, 0])).tolist() == [[3, 4, 3], [4, 5, 4]]
    axes = {"position_ids": torch.tensor([[[0, 1, 1, 4]], [[0, 1, 2, 4]], [[0, 1, 7, 4]]])}
    assert next_positions(axes, torch.tensor([0, 1])).tolist() == [[[8, 9]]] * 3


# --- predictions and views -------------------------------------------------------------------------------------------


def test_a_prediction_says_what_was_asked_and_how(ask):
    live = ask(hint="Look at the eyes.").asking(style="informed")
    (one, two) = live.predict(pictures())
    assert one.question == "Look at the eyes. Is this image made by AI?"
    assert (one.style, one.model_id, one.text) == ("informed", "tiny", None)
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert one.label == max(one.logits, key=one.logits.get)
    assert one.logits != two.logits
    assert live.asking(question="{hint}?", style="plain").predict(pictures())[0].question == "{hint}?"
    with pytest.raises(ExhibitError, match="known are: plain, informed, captioned"):
        live.asking(style="loud")


def test_views_share_the_network_and_leave_each_other_alone(ask):
    live = ask()
    other = live.asking(question="What is shown?", answers={"yes": "a", "no": "b"})
    assert other.core is live.core
    assert (live.labels, other.labels) == (("made", "drawn", "photo", "other"), ("a", "b"))
    assert live.question == "Is this image made by AI?"


def test_captioned_puts_each_pictures_own_description_into_its_question(ask):
    live = ask("qwen2_vl").asking(style="captioned")
    images = pictures()
    first, second = live.predict(images)
    assert first.question.endswith(" Is this image made by AI?")
    assert first.question != second.question
    described = live.describe(images)
    assert first.question == f"{described[0]} Is this image made by AI?"
    assert live.ask(images[0], ["Is this image made by AI?"])[0].question == first.question
    plain = live.asking(style="plain", question=second.question).predict(images[1:])[0]
    assert list(plain.logits.values()) == pytest.approx(list(second.logits.values()), abs=1e-4)


def test_numbers_that_are_not_finite_are_an_error(ask):
    live = ask()
    broken = LabelScores(torch.full((1, 4), float("nan")), torch.zeros(1, 4, 1), torch.ones(1, 4))
    with pytest.raises(ModelUnavailableError, match="not finite"):
        live.read(broken, 0.1)


# --- free text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_equals_the_librarys_own_greedy_generation(ask, family):
    live = ask(family)
    core, (image,) = live.core, pictures((90, 50))
    (prompt,) = live.prompts(live.prepare([image]))
    encoded = core.family.encode(core.processor, [image], [prompt])
    ids = core.module.generate(**encoded, max_new_tokens=12, do_sample=False)[0, encoded["input_ids"].shape[1] :]
    pieces = list(live.write(image, max_new_tokens=12))
    assert pieces[-1] == core.text([token for token in ids.tolist() if token not in core.end]).rstrip("�")
    assert all(later.startswith(earlier.rstrip("�")) for earlier, later in pairwise(pieces))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("style", ["plain", "captioned"])
def test_writing_many_answers_at_once_gives_the_words_of_each(ask, family, style):
    live, images = ask(family).asking(style=style), pictures((90, 50), (40, 70), (64, 64))
    questions = ["How many?", None, "Is there anything else to be seen in this picture of yours?"]
    views = [live if one is None else live.asking(question=one) for one in questions]
    alone = [["", *view.write(image, max_new_tokens=8)][-1] for view, image in zip(views, images, strict=True)]
    assert live.write_each(images, questions, max_new_tokens=8) == alone


def test_writing_stops_at_a_word_a_budget_and_a_wish(ask):
    live, (image,) = ask("llava_next"), pictures((90, 50))
    whole = list(live.write(image, max_new_tokens=10))[-1]
    assert len(whole) > 3
    stop = whole[2]
    assert list(live.write(image, max_new_tokens=10, stops=[stop]))[-1] == whole[: whole.index(stop)]
    assert len(list(live.write(image, max_new_tokens=1))) == 1
    cancel, seen = threading.Event(), []
    for text in live.write(image, max_new_tokens=10, cancel=cancel):
        seen.append(text)
        cancel.set()
    assert len(seen) == 1
    assert live.lock.acquire(blocking=False)
    live.lock.release()


def test_another_request_may_run_between_two_tokens(ask):
    live, images = ask(), pictures()
    writing = live.write(images[0], max_new_tokens=4)
    first = next(writing)
    live.asking(question="What?").predict(images)
    assert list(writing)[-1] == list(live.write(images[0], max_new_tokens=4))[-1]
    assert first


def test_free_text_is_read_with_answers_and_synonyms(ask):
    live = ask(answers={"0": "fake", "1": "real"}, synonyms={"fake": ("AI-generated",)})
    assert live.parse("It is AI generated.") == "fake"
    assert live.parse("1") == "real"
    assert live.parse("It is not real.") is None
