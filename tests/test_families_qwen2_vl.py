import numpy as np
import pytest
import torch
from PIL import Image

from explain.capture import capture
from models.errors import BadImageError, ExhibitError, IncompatibleMethodError
from models.families import get_family
from models.schema import TokenGrid, TokenLayout
from tests.vlm_proofs import (
    assert_cells_where_they_are,
    colours,
    heat_of,
    numbered,
    numbers,
    pictures,
    ramp,
    react_to_red,
    red_area,
    see_through,
    share_inside,
)

KINDS = ["qwen2_vl", "qwen2_5_vl"]
SHAPES = {"wide": (4, 12), "tall": (14, 4), "square": (8, 8), "odd": (10, 6)}
"""Rows and columns of patches."""


@pytest.fixture(scope="module")
def family():
    return get_family("qwen2_vl")


@pytest.fixture(params=KINDS)
def parts(request, family, tiny_vlm):
    module, processor, _ = family.load(tiny_vlm(request.param))
    return module, processor


@pytest.fixture
def qwen2(family, tiny_vlm):
    module, processor, _ = family.load(tiny_vlm("qwen2_vl"))
    return module, processor


@pytest.fixture
def transparent(parts):
    """The network whose tokens carry their patch's colour."""
    module, processor = parts
    visual = module.model.visual
    see_through(module, visual, visual.patch_embed.proj, visual.merger.mlp[2])
    visual.merger.ln_q = torch.nn.Identity()
    visual.merger.mlp[0] = visual.merger.mlp[1] = torch.nn.Identity()
    return module, processor


@pytest.fixture
def reacting(transparent):
    """The same, and its answer grows with red."""
    module, processor = transparent
    react_to_red(module, module.model.visual.merger.mlp[2], 16)
    return module, processor


def asked(family, processor, images, question="Is it red?"):
    return family.encode(processor, images, [family.prompt(processor, question)] * len(images))


def outputs_of(module, family, inputs, layer):
    def forward():
        return module(**family.embed(module, inputs, family.image_features(module, inputs)))

    return capture(module, forward, [layer]).activations[layer]


def test_it_loads_what_was_saved(family, tiny_vlm):
    for kind in KINDS:
        module, processor, report = family.load(tiny_vlm(kind), dtype=torch.bfloat16)
        assert module.config.model_type == kind
        assert module.dtype == torch.bfloat16
        assert not module.training
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert processor.image_processor.merge_size == 2


def test_huge_pictures_are_capped_and_small_caps_kept(family, tiny_vlm, tmp_path):
    import json
    import shutil

    folder = shutil.copytree(tiny_vlm("qwen2_vl"), tmp_path / "huge")
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    # What Qwen2-VL-2B-Instruct ships: 16,384 tokens.
    config["image_processor"]["size"] = {"shortest_edge": 3136, "longest_edge": 12845056}
    path.write_text(json.dumps(config))
    _, processor, _ = family.load(folder)
    inputs = asked(family, processor, [Image.new("RGB", (4000, 3000))])
    assert 1100 < int(inputs["image_grid_thw"].prod()) // 4 <= 1280
    _, processor, _ = family.load(tiny_vlm("qwen2_vl"))
    inputs = asked(family, processor, [Image.new("RGB", (4000, 3000))])
    assert int(inputs["image_grid_thw"].prod()) // 4 <= 64


def test_every_patch_is_found_where_it_was_painted(family, transparent):
    module, processor = transparent
    images = [numbered(rows, cols, 14) for rows, cols in SHAPES.values()]
    inputs = asked(family, processor, images)
    assert inputs["image_grid_thw"].tolist() == [[1, rows, cols] for rows, cols in SHAPES.values()]
    sizes = [image.size for image in images]
    tower, projector, language = (preset.name for preset in family.layers(module))
    embed, block = "model.visual.patch_embed", "model.visual.blocks.0"
    for layer, step in [(embed, 1), (block, 1), (tower, 1), (projector, 2), (language, 2)]:
        own = family.split(module, outputs_of(module, family, inputs, layer), inputs, layer)
        layouts = family.layout(module, processor, inputs, sizes, layer)
        for (rows, cols), tokens, layout in zip(SHAPES.values(), own, layouts, strict=True):
            (grid,) = layout.grids
            assert grid.box_xyxy == (0, 0, cols * 14, rows * 14)
            # Behind the merger a cell carries the first patch of its block.
            expected = np.arange(rows * cols).reshape(rows, cols)[::step, ::step]
            found = numbers(colours(tokens, processor))
            assert (found[grid.tokens] == expected).all()
            assert len(tokens) == expected.size


def test_row_by_row_the_tower_would_be_read_wrongly(family, transparent):
    module, processor = transparent
    inputs = asked(family, processor, [numbered(8, 12, 14)])
    layer = family.layers(module)[0].name
    (own,) = family.split(module, outputs_of(module, family, inputs, layer), inputs, layer)
    found = numbers(colours(own, processor))
    assert sorted(found) == list(range(96))
    if module.config.model_type == "qwen2_vl":
        assert found[:8].tolist() == [0, 1, 12, 13, 2, 3, 14, 15]
    # Only the very first patches stand where a reader of rows would look for them.
    assert (found == np.arange(96)).mean() < 0.2


@pytest.mark.parametrize("size_wh", [(640, 200), (123, 457), (300, 300), (37, 41), (1999, 801)])
def test_cells_lie_where_the_network_saw_them_whatever_the_size(family, transparent, size_wh):
    module, processor = transparent
    image = ramp(*size_wh)
    inputs = asked(family, processor, [image, ramp(90, 150)])
    for preset, tolerance in zip(family.layers(module)[:2], (0.05, 0.3), strict=True):
        own = family.split(module, outputs_of(module, family, inputs, preset.name), inputs, preset.name)
        layout = family.layout(module, processor, inputs, [size_wh, (90, 150)], preset.name)
        for tokens, one in zip(own, layout, strict=True):
            # A merged cell carries its first patch, a quarter cell left of and above its centre.
            assert_cells_where_they_are(tokens, one, processor, tolerance)


@pytest.mark.parametrize("method", ["hirescam", "gradcam", "layercam"])
def test_heat_lies_on_what_the_answer_depends_on(family, reacting, method):
    module, processor = reacting
    boxes = [(196, 28, 252, 84), (28, 224, 84, 280)]
    images = [red_area(336, 112, boxes[0]), red_area(112, 336, boxes[1])]
    for preset, cell in zip(family.layers(module), (14, 28, 28), strict=True):
        heats = heat_of(family, module, processor, images, preset.name, method)
        for heat, box in zip(heats, boxes, strict=True):
            assert share_inside(heat, box, cell / 2) > 0.97
            y, x = np.unravel_index(heat.values.argmax(), heat.values.shape)
            assert box[0] <= x < box[2]
            assert box[1] <= y < box[3]


def test_heat_read_row_by_row_would_lie_elsewhere(family, reacting):
    module, processor = reacting
    box = (196, 28, 252, 84)
    layer = family.layers(module)[0].name

    def row_by_row(layouts):
        (layout,) = layouts
        (grid,) = layout.grids
        tokens = np.arange(grid.tokens.size).reshape(grid.tokens.shape)
        return [TokenLayout(layout.size_wh, (TokenGrid(grid.box_xyxy, tokens),))]

    image = red_area(336, 112, box)
    (right,) = heat_of(family, module, processor, [image], layer)
    (wrong,) = heat_of(family, module, processor, [image], layer, arrange=row_by_row)
    assert share_inside(right, box, 7) > 0.97
    assert share_inside(wrong, box, 7) < 0.6


def test_gradients_are_alive_at_every_patch_of_the_default_layer(family, parts):
    module, processor = parts
    inputs = asked(family, processor, pictures((200, 120), (120, 300)))
    layer = family.layers(module)[0].name

    def forward():
        return module(**family.embed(module, inputs, family.image_features(module, inputs)))

    taken = capture(module, forward, [layer], [lambda outputs: outputs.logits[:, -1, 40] - outputs.logits[:, -1, 41]])
    slopes = family.split(module, taken.gradients[layer][0], inputs, layer)
    for slope, count in zip(slopes, inputs["image_grid_thw"].prod(-1).tolist(), strict=True):
        assert slope.shape == (count, 16)
        assert slope.abs().amax(1).min() > 0
    # What is normalised right behind the layer would have a gradient at right angles to itself.
    products = taken.activations[layer] * taken.gradients[layer][0]
    assert products.sum(-1).abs().max() > 0.05 * products.abs().sum(-1).max()


def test_parts_and_stages(family, parts):
    module, _ = parts
    found = family.anatomy(module)
    assert (found.tower, found.projector) == ("model.visual", "model.visual.merger")
    assert (found.language, found.embedding) == ("model.language_model", "model.language_model.embed_tokens")
    presets = [preset.name for preset in family.layers(module)]
    assert presets == ["model.visual.merger.ln_q", "model.visual.merger", "model.language_model.layers.1"]
    assert family.stage(module, "model.visual.blocks.0") == "tower"
    assert family.stage(module, "model.visual.merger.mlp") == "projector"
    assert [family.stage(module, name) for name in presets] == ["tower", "projector", "language"]


def test_a_layer_with_other_tokens_is_refused(family, parts):
    module, processor = parts
    inputs = asked(family, processor, pictures((200, 120)))
    with pytest.raises(IncompatibleMethodError, match=r"choose model\.visual\.merger\.ln_q"):
        family.split(module, torch.zeros(3, 16), inputs, "model.visual.blocks.0")


@pytest.mark.parametrize("answer", ["0", "1", "fake", "가짜", "관련 없음", "yes, it is"])
def test_an_answer_continues_the_prompt_as_if_written_with_it(family, qwen2, answer):
    _, processor = qwen2
    prompt = family.prompt(processor, "이것은 AI입니까? 0 or 1")
    ids = family.continuation(processor, prompt, answer)
    tokenizer = processor.tokenizer
    assert (
        tokenizer(prompt, add_special_tokens=False)["input_ids"] + list(ids)
        == (tokenizer(prompt + answer, add_special_tokens=False)["input_ids"])
    )
    assert tokenizer.decode(ids) == answer
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "이것은 AI입니까? 0 or 1"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    assert processor.apply_chat_template(conversation).startswith(prompt + answer)


def test_bad_questions_and_answers_say_so(family, qwen2):
    _, processor = qwen2
    with pytest.raises(ExhibitError, match="stands for the picture"):
        family.prompt(processor, "What is <|image_pad|>?")
    with pytest.raises(ExhibitError, match="no tokens"):
        family.continuation(processor, family.prompt(processor, "Red?"), "")


def test_a_picture_too_thin_for_the_model_says_so(family, qwen2):
    _, processor = qwen2
    assert asked(family, processor, [Image.new("RGB", (1990, 10))])["image_grid_thw"].tolist() == [[1, 2, 58]]
    with pytest.raises(BadImageError, match="crop it or pad it"):
        asked(family, processor, [Image.new("RGB", (2010, 10))])


def test_features_computed_once_give_what_pixels_give(family, parts):
    module, processor = parts
    # The second shape follows the first through the same network, which remembers positions of its last call.
    for images in (pictures((300, 100), (100, 300)), pictures((150, 170))):
        inputs = asked(family, processor, images)
        with torch.no_grad():
            given = family.embed(module, inputs, family.image_features(module, inputs))
            ours = module(**given).logits
            theirs = module(**inputs).logits
        assert "pixel_values" not in given
        seen = inputs["attention_mask"].bool()
        torch.testing.assert_close(ours[seen], theirs[seen], atol=1e-5, rtol=1e-5)


def test_positions_of_the_picture_have_two_axes(family, qwen2):
    module, processor = qwen2
    inputs = asked(family, processor, [numbered(4, 12, 14)])
    positions = family.embed(module, inputs, family.image_features(module, inputs))["position_ids"]
    picture = positions[:, 0, inputs["mm_token_type_ids"][0] == 1]
    assert (picture - picture[0, 0]).tolist() == [[0] * 12, [0] * 6 + [1] * 6, [0, 1, 2, 3, 4, 5] * 2]
    last = positions[:, 0, -1]
    # Text goes on behind the longer side: 6 columns took 6 places, although there were 12 tokens.
    assert last.tolist() == [inputs["input_ids"].shape[1] - 1 - 12 + 6] * 3


def test_one_picture_answers_several_questions(family, parts):
    module, processor = parts
    (image,) = pictures((240, 130))
    prompts = [family.prompt(processor, text) for text in ("Red?", "Is this image made by AI?", "가짜?")]
    with torch.no_grad():
        (features,) = family.image_features(module, family.encode(processor, [image], prompts[:1]))
        inputs = family.encode(processor, [image] * 3, prompts)
        ours = module(**family.embed(module, inputs, [features] * 3)).logits[:, -1]
        for prompt, row in zip(prompts, ours, strict=True):
            single = module(**family.encode(processor, [image], [prompt])).logits[0, -1]
            torch.testing.assert_close(row, single, atol=1e-4, rtol=1e-4)


def test_a_batch_padded_on_the_left_equals_single_runs(family, parts):
    module, processor = parts
    images = pictures((300, 90), (100, 100), (80, 260))
    prompts = [
        family.prompt(processor, text) for text in ("Red?", "이 이미지는 다음 중 어떤 유형입니까?", "Fake or real?")
    ]
    inputs = family.encode(processor, images, prompts)
    assert not inputs["attention_mask"][:, 0].all()
    assert inputs["attention_mask"][:, -1].all()
    with torch.no_grad():
        batch = module(**family.embed(module, inputs, family.image_features(module, inputs))).logits[:, -1]
        for image, prompt, row in zip(images, prompts, batch, strict=True):
            alone = module(**family.encode(processor, [image], [prompt])).logits[0, -1]
            torch.testing.assert_close(row, alone, atol=1e-4, rtol=1e-4)
