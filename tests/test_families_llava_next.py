"""LLaVA-1.6: every patch of the base view and of the stitched tiles where it lies, and a layer that is alive."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from explain.cam import heatmaps
from explain.capture import capture
from models.errors import ExhibitError, IncompatibleMethodError, ModelUnavailableError
from models.families import get_family
from models.families.llava_next import _tilings
from tests.index_images import assert_heat_in, coordinates, middles, numbered, numbers, with_red

QUESTIONS = ("Is this image made by AI?", "이 이미지는 무엇입니까?", "What is shown? yes or no, or else 7", "0")
ANSWERS = ("0", "1", "fake", "가짜", "3: 마약 원본", "what is it")
METHODS = ("gradcam", "layercam", "gradcampp", "xgradcam", "hirescam")
EXACT = {
    (96, 32): (8, 24),  # three tiles side by side
    (32, 96): (24, 8),
    (64, 64): (16, 16),  # four tiles
    (128, 64): (8, 16),  # two tiles at half the size
    (160, 64): (8, 20),  # three tiles with two columns of patches padded on both sides
    (48, 192): (24, 6),
}
"""Sizes whose scaled picture ends between patches, and the rows and columns of patches that remain of them."""
ANSWER_ID = 7
PATCH, SIDE = 4, 8
FAMILY = get_family("llava_next")


@pytest.fixture(scope="module")
def parts(tiny_vlm):
    module, processor, report = FAMILY.load(tiny_vlm("llava_next"), dtype=torch.float32)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return module, processor


@pytest.fixture
def fresh(tiny_vlm):
    return FAMILY.load(tiny_vlm("llava_next"), dtype=torch.float32)[:2]


def noise(*sizes_wh):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes_wh]


def shapes():
    return noise((90, 40), (50, 50), (30, 120), (33, 100))


def asked(processor, images, questions=QUESTIONS):
    return FAMILY.encode(processor, images, [FAMILY.prompt(processor, question) for question in questions])


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


def views(inputs, index, tiles):
    """The base view and the tiles of one image, without the batch's filling."""
    return inputs["pixel_values"][index, : 1 + tiles]


def test_the_prompt_is_the_chat_template_with_one_beginning(parts):
    _, processor = parts
    prompt = FAMILY.prompt(processor, " Is it AI? \n")
    assert prompt == "[INST] <image>\nIs it AI? [/INST]"
    for text in (prompt, f"<s>{prompt}"):
        ids = FAMILY.encode(processor, noise((64, 32)), [text])["input_ids"][0].tolist()
        assert ids[0] == processor.tokenizer.bos_token_id
        assert ids.count(processor.tokenizer.bos_token_id) == 1
        written = processor.tokenizer.decode(ids).replace("<image>", "")
        assert written.removeprefix("<s>").strip() == prompt.replace("<image>", "")


def test_a_question_that_holds_the_image_token_is_refused(parts):
    with pytest.raises(ExhibitError, match="leave it out"):
        FAMILY.prompt(parts[1], "what is <image>?")


def test_a_processor_without_chat_template_says_what_to_copy(fresh):
    _, processor = fresh
    processor.chat_template = None
    with pytest.raises(ModelUnavailableError, match=r"copy chat_template\.jinja"):
        FAMILY.prompt(processor, "?")


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_continuation_is_the_end_of_the_whole_chat(parts, answer):
    _, processor = parts
    prompt = FAMILY.prompt(processor, QUESTIONS[0])
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    tokenizer = processor.tokenizer
    whole = tokenizer(processor.apply_chat_template(messages), add_special_tokens=False)["input_ids"]
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = FAMILY.continuation(processor, prompt, answer)
    assert [*before, *ids, tokenizer.eos_token_id] == whole
    assert tokenizer.decode(ids).strip() == answer


def test_a_processor_that_cannot_count_image_tokens_learns_it_from_the_network(tiny_vlm, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(tiny_vlm("llava_next"), tmp_path / "old")
    settings = json.loads((folder / "processor_config.json").read_text())
    del settings["patch_size"], settings["vision_feature_select_strategy"]
    (folder / "processor_config.json").write_text(json.dumps(settings))
    module, processor, _ = FAMILY.load(folder, dtype=torch.float32)
    assert torch.isfinite(last(module, asked(processor, noise((90, 40)), QUESTIONS[:1]))).all()


def test_parts_and_layers_are_found_by_class(parts):
    module, _ = parts
    found = FAMILY.anatomy(module)
    assert module.get_submodule(found.embedding) is module.get_input_embeddings()
    assert module.get_submodule(found.tower).config.model_type == "clip_vision_model"
    assert [FAMILY.stage(module, layer.name) for layer in FAMILY.layers(module)] == ["tower", "projector", "language"]


def test_unequal_prompts_and_tilings_are_padded_on_the_left_and_answer_like_single_ones(parts):
    module, processor = parts
    inputs = asked(processor, shapes())
    assert len(set(inputs["attention_mask"].sum(1).tolist())) == 4
    assert inputs["attention_mask"][:, -1].all()
    together = last(module, inputs)
    for image, question, row in zip(shapes(), QUESTIONS, together, strict=True):
        alone = last(module, asked(processor, [image], [question]))[0]
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=0)


def test_embeddings_answer_like_pixels(parts):
    module, processor = parts
    inputs = asked(processor, shapes())
    embedded = FAMILY.embed(module, inputs, FAMILY.image_features(module, inputs))
    assert set(embedded) == {"inputs_embeds", "attention_mask"}
    torch.testing.assert_close(last(module, embedded), last(module, inputs), atol=1e-5, rtol=0)


def test_one_run_of_the_tower_serves_several_questions(parts):
    module, processor = parts
    runs = []
    handle = module.get_submodule(FAMILY.anatomy(module).tower).register_forward_hook(lambda *_: runs.append(1))
    inputs = asked(processor, noise((90, 40)) * 3, QUESTIONS[:3])
    [feature] = FAMILY.image_features(module, asked(processor, noise((90, 40)), QUESTIONS[:1]))
    answers = last(module, FAMILY.embed(module, inputs, [feature] * 3))
    handle.remove()
    assert len(runs) == 1
    torch.testing.assert_close(answers, last(module, inputs), atol=1e-5, rtol=0)


def test_every_patch_of_both_grids_is_found_where_it_was_painted_in_a_batch_of_unlike_pictures(parts):
    module, processor = parts
    sizes = list(EXACT)
    layer = FAMILY.layers(module)[0].name
    for grid, (rows, cols) in ((0, (None, None)), (1, (SIDE, SIDE))):
        pictures = [numbered(size, rows or EXACT[size][0], cols or EXACT[size][1]) for size in sizes]
        inputs = asked(processor, pictures, ["?"] * len(sizes))
        for index, layout in enumerate(FAMILY.layout(module, processor, inputs, sizes, layer)):
            seen = numbers(middles(processor.image_processor, inputs["pixel_values"][index], PATCH))
            tokens, (width, height) = layout.grids[grid].tokens, sizes[index]
            expected = (rows or EXACT[sizes[index]][0], cols or EXACT[sizes[index]][1])
            assert tokens.shape == expected
            assert np.array_equal(seen[tokens], np.arange(tokens.size).reshape(expected))
            assert layout.grids[grid].box_xyxy == pytest.approx((0, 0, width, height))


@pytest.mark.parametrize("size_wh", [(90, 40), (101, 33), (300, 170), (41, 97), (77, 76), (500, 100)])
def test_boxes_of_pictures_that_end_within_a_patch_are_exact(parts, size_wh):
    module, processor = parts
    inputs = asked(processor, [coordinates(size_wh)], ["?"])
    seen = middles(processor.image_processor, inputs["pixel_values"][0], PATCH)
    [layout] = FAMILY.layout(module, processor, inputs, [size_wh], FAMILY.layers(module)[0].name)
    for grid in layout.grids:
        rows, cols = grid.tokens.shape
        x0, y0, x1, y1 = grid.box_xyxy
        xs = (x0 + (np.arange(cols) + 0.5) * (x1 - x0) / cols) / size_wh[0] * 255
        ys = (y0 + (np.arange(rows) + 0.5) * (y1 - y0) / rows) / size_wh[1] * 255
        inner = np.s_[1:-1, 1:-1]  # patches at the rim may show padding
        found = seen[grid.tokens]
        assert np.abs(found[..., 0] - xs)[inner].max() < 1.5
        assert np.abs(found[..., 1] - ys[:, None])[inner].max() < 1.5


def test_the_language_models_tokens_are_the_towers_without_padding_and_newlines(parts):
    module, processor = parts
    sizes = [image.size for image in shapes()]
    inputs = asked(processor, shapes())
    tower, projector, language = (
        FAMILY.layout(module, processor, inputs, sizes, layer.name) for layer in FAMILY.layers(module)
    )
    tiles = [3, 4, 3, 3]
    numbered_views = [torch.arange((1 + n) * SIDE**2).reshape(1 + n, SIDE**2, 1) for n in tiles]
    packed, _ = module.model.pack_image_features(
        numbered_views, inputs["image_sizes"], "default", image_newline=torch.tensor([-1])
    )
    for index, tokens in enumerate(packed):
        for grid in (0, 1):
            before = tower[index].grids[grid].tokens
            assert np.array_equal(tokens[:, 0].numpy()[language[index].grids[grid].tokens], before)
            assert np.array_equal(before, projector[index].grids[grid].tokens)
        used = np.concatenate([grid.tokens.ravel() for grid in language[index].grids])
        assert sorted(used) == np.flatnonzero(tokens[:, 0] >= 0).tolist()


def test_every_layer_is_split_into_the_views_of_each_image(parts):
    module, processor = parts
    inputs = asked(processor, shapes())
    layers = [layer.name for layer in FAMILY.layers(module)]
    taken = capture(module, lambda: module(**inputs), layers)
    tower, projector, language = (FAMILY.split(module, taken.activations[name], inputs, name) for name in layers)
    for index, tiles in enumerate([3, 4, 3, 3]):
        assert tower[index].shape == projector[index].shape == ((1 + tiles) * SIDE**2, 16)
        image = {name: tensor[index : index + 1] for name, tensor in inputs.items()}
        alone = capture(module, lambda image=image: module(**image), layers[:2])
        own = alone.activations[layers[0]]
        torch.testing.assert_close(tower[index], own[:, 1:].flatten(0, 1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(projector[index], alone.activations[layers[1]].flatten(0, 1), atol=1e-5, rtol=1e-5)
    features = FAMILY.image_features(module, inputs)
    entering = FAMILY.embed(module, inputs, features)["inputs_embeds"]
    for own, feature, there in zip(
        FAMILY.split(module, entering, inputs, FAMILY.anatomy(module).embedding), features, language, strict=True
    ):
        torch.testing.assert_close(own, feature)
        assert own.shape == there.shape
    with pytest.raises(IncompatibleMethodError, match="same pass"):
        FAMILY.split(module, taken.activations[layers[0]][:-1], inputs, layers[0])


@pytest.mark.parametrize("size_wh", [(2000, 10), (8, 900)])
def test_a_picture_too_thin_for_tiles_is_drawn_by_its_base_view(parts, size_wh):
    module, processor = parts
    inputs = asked(processor, [*noise(size_wh), *noise((64, 64))], ["?", "?"])
    assert torch.isfinite(last(module, inputs)).all()
    for layer in FAMILY.layers(module):
        thin, square = FAMILY.layout(module, processor, inputs, [size_wh, (64, 64)], layer.name)
        assert [grid.box_xyxy for grid in thin.grids] == [(0, 0, *size_wh)]
        assert len(square.grids) == 2


def test_at_real_size_every_picture_has_the_tokens_that_the_processor_counts(parts):
    from types import SimpleNamespace

    from transformers import LlavaNextConfig, LlavaNextImageProcessor, LlavaNextProcessor

    config = LlavaNextConfig()
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}),
        parts[1].tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    sizes = np.random.default_rng(0).integers(40, 3000, (200, 2)).tolist()
    inputs = {"image_sizes": torch.tensor(sizes), "pixel_values": torch.empty(200, 5, 3, 336, 336, device="meta")}
    for size, tiling in zip(sizes, _tilings(SimpleNamespace(config=config), inputs), strict=True):
        count = processor._get_number_of_features(*size, 336, 336) - 1
        tokens, (rows, cols) = tiling.packed(count), tiling.kept().shape
        assert tokens.max() + 2 == count
        assert tokens.size == rows * cols
        x0, y0, x1, y1 = tiling.box((size[1], size[0]))
        # What remains after cutting whole patches on both sides is the picture to within one patch.
        assert cols * size[1] / (x1 - x0) == pytest.approx(cols, abs=1.01)
        assert rows * size[0] / (y1 - y0) == pytest.approx(rows, abs=1.01)
        assert x0 + x1 == pytest.approx(size[1], abs=size[1] / cols / 10)
        assert y0 + y1 == pytest.approx(size[0], abs=size[0] / rows / 10)


def test_half_precision_serves_through_embeddings(fresh):
    module, processor = fresh
    module.bfloat16()
    inputs = asked(processor, shapes())
    assert torch.isfinite(last(module, FAMILY.embed(module, inputs, FAMILY.image_features(module, inputs)))).all()


def test_a_prompt_with_another_number_of_image_tokens_is_named_instead_of_drawn(parts):
    module, processor = parts
    inputs = asked(processor, noise((90, 40)), ["?"])
    inputs["input_ids"] = inputs["input_ids"][:, 10:]
    with pytest.raises(IncompatibleMethodError, match="does not belong to it"):
        FAMILY.layout(module, processor, inputs, [(90, 40)], FAMILY.layers(module)[-1].name)


def test_gradients_are_alive_at_the_presets_and_dead_in_the_towers_last_block(parts):
    module, processor = parts
    inputs = asked(processor, shapes())
    last(module, inputs)  # the library's own hooks stay from the first pass on, and must not get in the way
    layers = [layer.name for layer in FAMILY.layers(module)]
    dead = layers[0].removesuffix("2") + "3"
    for layer in layers:
        taken = capture(module, lambda: module(**inputs), [layer], [Answer()])
        slopes = FAMILY.split(module, taken.gradients[layer][0], inputs, layer)
        layouts = FAMILY.layout(module, processor, inputs, [image.size for image in shapes()], layer)
        for slope, layout in zip(slopes, layouts, strict=True):
            for grid in layout.grids:
                assert slope.abs().amax(dim=1).numpy()[grid.tokens].min() > 0
    taken = capture(module, lambda: module(**inputs), [layers[0], dead], [Answer()])
    assert taken.activations[dead].any()
    assert not taken.gradients[dead].any()


@pytest.mark.parametrize(("wanted", "block"), [(-1, 3), (-2, 2), (-3, 1), (1, 0), (4, 3), ([1, -2], 2), ([-1, 2], 3)])
def test_the_default_layer_follows_the_config(fresh, wanted, block):
    module, processor = fresh
    module.config.vision_feature_layer = wanted
    name = FAMILY.layers(module)[0].name
    assert name.endswith(f".{block}")
    if isinstance(wanted, int):
        inputs = asked(processor, shapes())
        names = [name.rpartition(".")[0] + f".{index}" for index in range(4)]
        taken = capture(module, lambda: module(**inputs), names, [Answer()])
        assert [bool(taken.gradients[name].any()) for name in names] == [index <= block for index in range(4)]


def hand_set(module):
    """Weights by which the answer's logit rises with red and with nothing else, each patch by itself until the end."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        tower = module.get_submodule(FAMILY.anatomy(module).tower)
        for part in tower.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.weight.fill_(1)
        # Red minus green and its opposite, beside two constants that keep the normalisation from hiding the amount.
        red = torch.tensor([1.0, -1.0, 0.0])[:, None, None].expand(3, PATCH, PATCH) / PATCH**2
        stem = tower.embeddings
        stem.patch_embedding.weight[0], stem.patch_embedding.weight[1] = red, -red
        stem.position_embedding.weight[:, 2], stem.position_embedding.weight[:, 3] = 3, -3
        projector = module.get_submodule(FAMILY.anatomy(module).projector)
        projector.linear_1.weight[0, 0] = projector.linear_2.weight[0, 0] = 1
        projector.linear_2.bias[1] = 1
        module.model.image_newline[1] = 1
        language = module.get_submodule(FAMILY.anatomy(module).language)
        for part in language.modules():
            if "RMSNorm" in type(part).__name__:
                part.weight.fill_(1)
        language.embed_tokens.weight[:, 3] = 1
        attention = language.layers[-1].self_attn  # no query: it attends to everything alike
        attention.v_proj.weight[0, 0] = 1
        attention.o_proj.weight[2, 0] = 10
        module.lm_head.weight[ANSWER_ID, 2] = 1


@pytest.mark.parametrize("preset", [0, 1, 2])
def test_the_heat_lies_where_the_only_thing_lies_that_the_network_reacts_to(fresh, preset):
    module, processor = fresh
    hand_set(module)
    # The three colours' own normalisation would make grey a little red.
    processor.image_processor.image_mean = processor.image_processor.image_std = [0.5, 0.5, 0.5]
    reds = {(192, 64): (120, 16, 168, 48), (64, 192): (0, 100, 32, 160), (130, 126): (66, 64, 120, 120)}
    pictures = [with_red(size, box) for size, box in reds.items()]
    inputs = asked(processor, pictures, QUESTIONS[:3])
    grey = asked(processor, [Image.new("RGB", size, (120, 120, 120)) for size in reds], QUESTIONS[:3])
    assert (last(module, inputs) - last(module, grey))[:, ANSWER_ID].min() > 0.05
    layer = FAMILY.layers(module)[preset].name
    taken = capture(module, lambda: module(**inputs), [layer], [Answer()])
    maps = heatmaps(
        taken,
        {layer: FAMILY.layout(module, processor, inputs, list(reds), layer)},
        lambda tensor, name: FAMILY.split(module, tensor, inputs, name),
        # The hand-set decoder does nothing but normalise image tokens, which leaves HiResCAM nothing behind the tower.
        methods=METHODS[: -1 if preset else None],
        targets=[Answer()],
        model_id="tiny",
    )
    for (found, problems), box in zip(maps, reds.values(), strict=True):
        assert not problems
        for heatmap in found:
            assert_heat_in(heatmap, box)
