"""PaliGemma: prompts and answers as its processor writes them, and every patch where it lies in the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explain.cam import heatmaps
from explain.capture import capture
from models.errors import ExhibitError, IncompatibleMethodError, ModelUnavailableError
from models.families import get_family
from tests.index_images import assert_heat_in, middles, numbered, numbers, with_red

QUESTIONS = ("Is this image made by AI?", "이 이미지는 무엇입니까?", "What is shown? yes or no, or else 7")
ANSWERS = ("0", "1", "fake", "가짜", "3: 마약 원본", "what is it")
METHODS = ("gradcam", "layercam", "gradcampp", "xgradcam", "hirescam")
ANSWER_ID = 7
FAMILY = get_family("paligemma")


@pytest.fixture(scope="module")
def parts(tiny_vlm):
    module, processor, report = FAMILY.load(tiny_vlm("paligemma"), dtype=torch.float32)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return module, processor


@pytest.fixture
def fresh(tiny_vlm):
    return FAMILY.load(tiny_vlm("paligemma"), dtype=torch.float32)[:2]


def noise(*sizes_wh):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes_wh]


def last(module, inputs):
    with torch.no_grad():
        return module(**inputs).logits[:, -1]


class Answer:
    """The logit of one token after the prompt."""

    name = "answer"

    def __call__(self, outputs):
        return outputs.logits[:, -1, ANSWER_ID]

    def names(self, outputs):
        return ["answer"] * len(outputs.logits)


def test_the_prompt_is_what_the_processor_makes_of_a_prefix(parts):
    _, processor = parts
    prompt = FAMILY.prompt(processor, " Is it AI? \n")
    assert prompt == "<image>Is it AI?\n"
    ids = FAMILY.encode(processor, noise((9, 9)), [prompt])["input_ids"][0]
    assert processor.tokenizer.decode(ids) == "<image>" * 64 + "<bos>Is it AI?\n"


def test_a_question_that_holds_the_image_token_is_refused(parts):
    with pytest.raises(ExhibitError, match="leave it out"):
        FAMILY.prompt(parts[1], "what is <image>?")


def test_no_training_labels_are_handed_to_the_network(parts):
    inputs = FAMILY.encode(parts[1], noise((9, 9)), [FAMILY.prompt(parts[1], "?")])
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids", "pixel_values"}
    assert not inputs["token_type_ids"].any()


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_continuation_is_the_end_of_the_whole_and_what_training_would_teach(parts, answer):
    _, processor = parts
    prompt = FAMILY.prompt(processor, QUESTIONS[0])
    ids = FAMILY.continuation(processor, prompt, answer)
    whole = processor.tokenizer(prompt + answer, add_special_tokens=False)["input_ids"]
    before = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert [*before, *ids] == whole
    taught = processor(images=noise((9, 9))[0], text=prompt.removesuffix("\n"), suffix=answer, return_tensors="pt")[
        "labels"
    ][0]
    assert taught[taught >= 0].tolist() == [*ids, processor.tokenizer.eos_token_id]
    assert processor.tokenizer.decode(ids) == answer


def test_an_empty_answer_is_refused(parts):
    with pytest.raises(ExhibitError, match="at least one character"):
        FAMILY.continuation(parts[1], FAMILY.prompt(parts[1], "?"), "")


def test_parts_and_layers_are_found_by_class(parts):
    module, _ = parts
    found = FAMILY.anatomy(module)
    assert module.get_submodule(found.embedding) is module.get_input_embeddings()
    assert module.get_submodule(found.tower).config.model_type == "siglip_vision_model"
    assert [FAMILY.stage(module, layer.name) for layer in FAMILY.layers(module)] == ["tower", "projector", "language"]
    with pytest.raises(KeyError):
        FAMILY.stage(module, "lm_head")
    with pytest.raises(ModelUnavailableError, match="name the right family"):
        get_family("llava_next").anatomy(module)


def test_parts_are_found_under_adapters_that_train_the_projector_as_a_whole(fresh):
    from peft import LoraConfig

    module, processor = fresh
    module.add_adapter(LoraConfig(target_modules=["q_proj"], modules_to_save=["multi_modal_projector"]))
    inputs = FAMILY.encode(processor, noise((40, 20)), [FAMILY.prompt(processor, "?")])
    layers = [layer.name for layer in FAMILY.layers(module)]
    taken = capture(module, lambda: module(**inputs), layers, [Answer()])
    assert all(taken.gradients[layer].any() for layer in layers)


def test_unequal_prompts_are_padded_on_the_left_and_answer_like_single_ones(parts):
    module, processor = parts
    images = noise((90, 40), (50, 50), (30, 120))
    prompts = [FAMILY.prompt(processor, question) for question in QUESTIONS]
    inputs = FAMILY.encode(processor, images, prompts)
    lengths = inputs["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) == 3
    assert inputs["attention_mask"][:, -1].all()
    together = last(module, inputs)
    for image, prompt, row in zip(images, prompts, together, strict=True):
        alone = last(module, FAMILY.encode(processor, [image], [prompt]))[0]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=0)


def test_embeddings_answer_like_pixels(parts):
    module, processor = parts
    prompts = [FAMILY.prompt(processor, question) for question in QUESTIONS]
    inputs = FAMILY.encode(processor, noise((90, 40), (50, 50), (30, 120)), prompts)
    embedded = FAMILY.embed(module, inputs, FAMILY.image_features(module, inputs))
    assert "pixel_values" not in embedded
    torch.testing.assert_close(last(module, embedded), last(module, inputs), atol=1e-5, rtol=0)
    causal = {name: tensor for name, tensor in embedded.items() if name != "token_type_ids"}
    assert (last(module, causal) - last(module, inputs)).abs().max() > 1e-2  # what forgetting the prefix mask would do


def test_half_precision_serves_through_embeddings(fresh):
    module, processor = fresh
    module.bfloat16()
    inputs = FAMILY.encode(processor, noise((90, 40)), [FAMILY.prompt(processor, "?")])
    assert torch.isfinite(last(module, FAMILY.embed(module, inputs, FAMILY.image_features(module, inputs)))).all()


def test_one_run_of_the_tower_serves_several_questions(parts):
    module, processor = parts
    image, prompts = noise((90, 40)), [FAMILY.prompt(processor, question) for question in QUESTIONS]
    runs = []
    handle = module.get_submodule(FAMILY.anatomy(module).tower).register_forward_hook(lambda *_: runs.append(1))
    inputs = FAMILY.encode(processor, image * 3, prompts)
    [feature] = FAMILY.image_features(module, FAMILY.encode(processor, image, prompts[:1]))
    answers = last(module, FAMILY.embed(module, inputs, [feature] * 3))
    handle.remove()
    assert len(runs) == 1
    torch.testing.assert_close(answers, last(module, inputs), atol=1e-5, rtol=0)
    with pytest.raises(ExhibitError, match="own image"):
        FAMILY.embed(module, inputs, [feature])


@pytest.mark.parametrize("size_wh", [(64, 64), (192, 64), (64, 256), (200, 120), (37, 90)])
def test_every_patch_is_found_where_it_was_painted(parts, size_wh):
    module, processor = parts
    inputs = FAMILY.encode(processor, [numbered(size_wh, 8, 8)], [FAMILY.prompt(processor, "?")])
    seen = numbers(middles(processor.image_processor, inputs["pixel_values"], 8))
    for layer in FAMILY.layers(module):
        [layout] = FAMILY.layout(module, processor, inputs, [size_wh], layer.name)
        [grid] = layout.grids
        assert grid.box_xyxy == (0, 0, *size_wh)
        assert np.array_equal(seen[grid.tokens], np.arange(64).reshape(8, 8))


def test_every_layer_gives_one_row_of_tokens_per_image_in_the_order_of_the_patches(parts):
    module, processor = parts
    prompts = [FAMILY.prompt(processor, question) for question in QUESTIONS]
    inputs = FAMILY.encode(processor, noise((90, 40), (50, 50), (30, 120)), prompts)
    features = FAMILY.image_features(module, inputs)
    taken = capture(module, lambda: module(**inputs), [layer.name for layer in FAMILY.layers(module)])
    for layer, activation in taken.activations.items():
        own = FAMILY.split(module, activation, inputs, layer)
        assert [tuple(one.shape) for one in own] == [(64, 16)] * 3
    embedded = FAMILY.embed(module, inputs, features)["inputs_embeds"]
    entering = FAMILY.split(module, embedded, inputs, FAMILY.anatomy(module).embedding)
    torch.testing.assert_close(torch.stack(entering), features)
    stem = torch.arange(3 * 5 * 64.0).reshape(3, 5, 8, 8)
    maps = FAMILY.split(module, stem, inputs, FAMILY.anatomy(module).tower)
    assert torch.equal(maps[1], stem[1].flatten(1).T)
    with pytest.raises(IncompatibleMethodError, match="64 patches"):
        FAMILY.split(module, torch.zeros(3, 9, 4), inputs, FAMILY.anatomy(module).tower)


def test_patches_that_do_not_fill_the_picture_leave_its_rest_uncovered(parts):
    module, processor = parts
    inputs = {"pixel_values": torch.zeros(1, 3, 60, 60), "input_ids": torch.zeros(1, 1, dtype=torch.long)}
    [layout] = FAMILY.layout(module, processor, inputs, [(120, 240)], FAMILY.layers(module)[0].name)
    assert layout.grids[0].tokens.shape == (7, 7)
    assert layout.grids[0].box_xyxy == pytest.approx((0, 0, 112, 224))


def test_gradients_are_alive_at_every_patch_of_every_preset(parts):
    module, processor = parts
    inputs = FAMILY.encode(processor, noise((90, 40), (30, 70)), [FAMILY.prompt(processor, q) for q in QUESTIONS[:2]])
    layers = [layer.name for layer in FAMILY.layers(module)]
    taken = capture(module, lambda: module(**inputs), layers, [Answer()])
    for layer in layers:
        for one in FAMILY.split(module, taken.gradients[layer][0], inputs, layer):
            assert one.abs().amax(dim=1).min() > 0


def hand_set(module):
    """Weights by which the answer's logit rises with red and with nothing else, each patch by itself until the end."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        tower = module.get_submodule(FAMILY.anatomy(module).tower)
        for part in tower.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.weight.fill_(1)
        stem = tower.embeddings.patch_embedding
        # Red minus green and its opposite, beside two constants that keep the normalisation from hiding the amount.
        red = torch.tensor([1.0, -1.0, 0.0])[:, None, None].expand(3, 8, 8) / 64
        stem.weight[0], stem.weight[1] = red, -red
        stem.bias[2], stem.bias[3] = 3, -3
        projector = module.get_submodule(FAMILY.anatomy(module).projector).linear
        projector.weight[0, 0] = 1
        projector.bias[1] = 1
        language = module.get_submodule(FAMILY.anatomy(module).language)
        language.embed_tokens.weight[:, 3] = 1
        language.embed_tokens.weight[ANSWER_ID] = 0
        language.embed_tokens.weight[ANSWER_ID, 2] = 1
        attention = language.layers[-1].self_attn  # no query: it attends to everything alike
        attention.v_proj.weight[0, 0] = 1
        attention.o_proj.weight[2, 0] = 10


@pytest.mark.parametrize(("size_wh", "red"), [((192, 64), (120, 16, 168, 48)), ((64, 160), (0, 100, 24, 160))])
@pytest.mark.parametrize("preset", [0, 1, 2])
def test_the_heat_lies_where_the_only_thing_lies_that_the_network_reacts_to(fresh, size_wh, red, preset):
    module, processor = fresh
    hand_set(module)
    prompts = [FAMILY.prompt(processor, QUESTIONS[0]), FAMILY.prompt(processor, QUESTIONS[1])]
    pictures = [with_red(size_wh, red), with_red((64, 64), (8, 8, 24, 24))]
    inputs = FAMILY.encode(processor, pictures, prompts)
    grey = FAMILY.encode(processor, [Image.new("RGB", size_wh, (120, 120, 120))], prompts[:1])
    assert (last(module, inputs) - last(module, grey))[:, ANSWER_ID].min() > 0.05
    layer = FAMILY.layers(module)[preset].name
    taken = capture(module, lambda: module(**inputs), [layer], [Answer()])
    layout = FAMILY.layout(module, processor, inputs, [one.size for one in pictures], layer)
    maps = heatmaps(
        taken,
        {layer: layout},
        lambda tensor, name: FAMILY.split(module, tensor, inputs, name),
        # The hand-set decoder does nothing but normalise image tokens, which leaves HiResCAM nothing behind the tower.
        methods=METHODS[: -1 if preset else None],
        targets=[Answer()],
        model_id="tiny",
    )
    for (found, problems), box in zip(maps, (red, (8, 8, 24, 24)), strict=True):
        assert not problems
        for heatmap in found:
            assert_heat_in(heatmap, box)
