import numpy as np
import pytest
import torch
from PIL import Image

from explain.capture import capture
from models.errors import ExhibitError, IncompatibleMethodError
from models.families import get_family
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

KINDS = ["smolvlm", "idefics3"]
TILINGS = [(1, 4), (2, 4), (4, 4), (4, 1), (4, 3)]
"""Rows and columns of tiles; the longer side is always 4 tiles."""


class InRows(torch.nn.LayerNorm):
    """Stands for the last normalisation: hands on what it gets, laid out in memory as the pixel shuffle wants it."""

    def __init__(self):
        super().__init__(1)

    def forward(self, values):
        return values.contiguous()


@pytest.fixture(scope="module")
def family():
    return get_family("smolvlm")


@pytest.fixture(params=KINDS)
def parts(request, family, tiny_vlm):
    module, processor, _ = family.load(tiny_vlm(request.param))
    return module, processor


@pytest.fixture
def transparent(parts):
    """The network whose tokens carry their patch's colour."""
    module, processor = parts
    tower = module.model.vision_model
    see_through(module, tower, tower.embeddings.patch_embedding, module.model.connector.modality_projection.proj)
    tower.post_layernorm = InRows()
    return module, processor


@pytest.fixture
def reacting(transparent):
    """The same, and its answer grows with red."""
    module, processor = transparent
    react_to_red(module, module.model.connector.modality_projection.proj, 16)
    return module, processor


def asked(family, processor, images, question="Is it red?"):
    return family.encode(processor, images, [family.prompt(processor, question)] * len(images))


def own_tokens(module, family, inputs, layer):
    def forward():
        return module(**family.embed(module, inputs, family.image_features(module, inputs)))

    return family.split(module, capture(module, forward, [layer]).activations[layer], inputs, layer)


def tiled(processor, patch_px, down, across):
    """A picture of whole tiles whose patches are numbered tile by tile, and the numbers (rows, columns) in it."""
    side = processor.image_processor.max_image_size["longest_edge"]
    cells = side // patch_px
    picture, expected = Image.new("RGB", (across * side, down * side)), np.zeros((down, cells, across, cells), int)
    every = np.array(numbered(down * across * cells, cells, patch_px)).reshape(down * across, -1, cells * patch_px, 3)
    for tile, pixels in enumerate(every):
        row, col = divmod(tile, across)
        picture.paste(Image.fromarray(pixels), (col * side, row * side))
        expected[row, :, col] = tile * cells**2 + np.arange(cells**2).reshape(cells, cells)
    return picture, expected.reshape(down * cells, across * cells)


def test_it_loads_what_was_saved(family, tiny_vlm):
    for kind in KINDS:
        module, processor, report = family.load(tiny_vlm(kind), dtype=torch.bfloat16)
        assert module.config.model_type == kind
        assert module.dtype == torch.bfloat16
        assert not module.training
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert type(processor).__name__.lower().startswith(kind)


def test_every_patch_of_every_tile_is_found_where_it_was_painted(family, transparent):
    module, processor = transparent
    patch, scale = module.config.vision_config.patch_size, module.config.scale_factor
    images, expected = zip(*(tiled(processor, patch, *tiling) for tiling in TILINGS), strict=True)
    inputs = asked(family, processor, images)
    # Pictures with fewer tiles are filled up, and the network drops the filling before its tower.
    assert inputs["pixel_values"].shape[1] == 17
    sizes = [image.size for image in images]
    for preset, step in zip(family.layers(module), (1, scale, scale), strict=True):
        own = own_tokens(module, family, inputs, preset.name)
        layouts = family.layout(module, processor, inputs, sizes, preset.name)
        for tokens, layout, tiling, wanted in zip(own, layouts, TILINGS, expected, strict=True):
            stitched, whole = layout.grids
            assert stitched.box_xyxy == (0, 0, *layout.size_wh)
            # Behind the pixel shuffle a cell carries the first patch of its square.
            assert (numbers(colours(tokens, processor))[stitched.tokens] == wanted[::step, ::step]).all()
            # The global view comes last, and nothing is counted twice or left out.
            every = np.concatenate([stitched.tokens.ravel(), whole.tokens.ravel()])
            assert sorted(every) == list(range(len(tokens)))
            cells = 6 // step
            assert whole.tokens.min() == tiling[0] * tiling[1] * cells**2


@pytest.mark.parametrize("size_wh", [(640, 200), (123, 457), (300, 300), (37, 41), (1999, 801)])
@pytest.mark.parametrize("splitting", [True, False])
def test_cells_lie_where_the_network_saw_them_whatever_the_size(family, transparent, size_wh, splitting):
    module, processor = transparent
    processor.image_processor.do_image_splitting = splitting
    sizes = [size_wh, (90, 150), (150, 90)]
    inputs = asked(family, processor, [ramp(*size) for size in sizes])
    # A shuffled cell carries its first patch: a quarter (2x2) or a third (3x3) of a cell before its centre.
    first = 0.5 - 0.5 / module.config.scale_factor
    for preset, off in zip(family.layers(module)[:2], (0.06, first + 0.06), strict=True):
        own = own_tokens(module, family, inputs, preset.name)
        for tokens, layout in zip(own, family.layout(module, processor, inputs, sizes, preset.name), strict=True):
            assert len(layout.grids) == 1 + splitting
            whole, rest = layout.grids[-1], _unseen(module, inputs)
            width, height = layout.size_wh
            assert whole.box_xyxy == pytest.approx((0, 0, width * (1 - rest), height * (1 - rest)))
            # The stitched grid shares out what patches leave of a tile, at most this part of a cell.
            slack = rest * whole.tokens.shape[0] if splitting else 0
            assert_cells_where_they_are(tokens, layout, processor, off + slack)
            assert slack < 0.5


def _unseen(module, inputs):
    side, patch = inputs["pixel_values"].shape[-1], module.config.vision_config.patch_size
    return side % patch / side


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize("method", ["hirescam", "gradcam", "layercam"])
def test_heat_lies_on_what_the_answer_depends_on(family, reacting, method, splitting):
    module, processor = reacting
    processor.image_processor.do_image_splitting = splitting
    boxes = [(228, 0, 456, 114), (0, 228, 114, 456), (150, 150, 300, 300)]
    images = [red_area(456, 228, boxes[0]), red_area(228, 456, boxes[1]), red_area(300, 300, boxes[2])]
    for preset in family.layers(module):
        for heat, image, box in zip(
            heat_of(family, module, processor, images, preset.name, method), images, boxes, strict=True
        ):
            whole = heat.parts[-1]
            cell = max(image.size) / whole.cam.shape[0]
            assert share_inside(heat, box, cell / 2) > 0.93
            y, x = np.unravel_index(heat.values.argmax(), heat.values.shape)
            assert box[0] <= x < box[2]
            assert box[1] <= y < box[3]


def test_in_tiles_even_a_small_thing_is_hot_in_its_own_cells_alone(family, reacting):
    module, processor = reacting
    side = processor.image_processor.max_image_size["longest_edge"]
    patch = module.config.vision_config.patch_size
    # Two patches by two in the third tile of the second of three rows.
    box = (2 * side + patch, side + 2 * patch, 2 * side + 3 * patch, side + 4 * patch)
    image = red_area(4 * side, 3 * side, box)
    (heat, _) = heat_of(
        family, module, processor, [image, red_area(90, 300, (0, 0, 45, 100))], family.layers(module)[0].name
    )
    hot = np.argwhere(heat.parts[0].cam > 0)
    assert hot.tolist() == [[8, 13], [8, 14], [9, 13], [9, 14]]


def test_gradients_are_alive_at_every_patch_of_the_default_layer(family, parts):
    module, processor = parts
    inputs = asked(family, processor, pictures((200, 120), (120, 300)))
    layer = family.layers(module)[0].name

    def forward():
        return module(**family.embed(module, inputs, family.image_features(module, inputs)))

    taken = capture(module, forward, [layer], [lambda outputs: outputs.logits[:, -1, 40] - outputs.logits[:, -1, 41]])
    slopes = family.split(module, taken.gradients[layer][0], inputs, layer)
    for slope, tiles in zip(slopes, (13, 9), strict=True):
        assert slope.shape == (tiles * 36, 16)
        assert slope.abs().amax(1).min() > 0
    # What is normalised right behind the layer would have a gradient at right angles to itself.
    products = taken.activations[layer] * taken.gradients[layer][0]
    assert products.sum(-1).abs().max() > 0.05 * products.abs().sum(-1).max()


def test_parts_and_stages(family, parts):
    module, _ = parts
    found = family.anatomy(module)
    assert (found.tower, found.projector) == ("model.vision_model", "model.connector")
    assert (found.language, found.embedding) == ("model.text_model", "model.text_model.embed_tokens")
    presets = [preset.name for preset in family.layers(module)]
    assert presets == ["model.vision_model.post_layernorm", "model.connector", "model.text_model.layers.1"]
    assert [family.stage(module, name) for name in presets] == ["tower", "projector", "language"]


def test_what_does_not_fit_is_refused(family, parts):
    module, processor = parts
    inputs = asked(family, processor, pictures((200, 120)))
    layer = family.layers(module)[0].name
    with pytest.raises(IncompatibleMethodError, match="have 13 tiles"):
        family.split(module, torch.zeros(3, 36, 16), inputs, layer)
    with pytest.raises(ExhibitError, match="stands for the picture"):
        family.prompt(processor, "What is <image>?")
    with pytest.raises(ExhibitError, match="no tokens"):
        family.continuation(processor, family.prompt(processor, "Red?"), "")


def test_tile_marks_in_a_question_do_not_move_the_tiles(family, parts):
    module, processor = parts
    layer = family.layers(module)[0].name
    layouts = [
        family.layout(module, processor, asked(family, processor, pictures((200, 120)), text), [(200, 120)], layer)
        for text in ("Red?", "What is in <row_5_col_6>?")
    ]
    assert [[grid.tokens.shape for grid in layout.grids] for (layout,) in layouts] == [[(18, 24), (6, 6)]] * 2


@pytest.mark.parametrize("answer", ["0", "1", "fake", "가짜", "관련 없음", "yes, it is"])
def test_an_answer_continues_the_prompt_as_if_written_with_it(family, parts, answer):
    _, processor = parts
    prompt = family.prompt(processor, "이것은 AI입니까? 0 or 1")
    assert prompt.endswith("\nAssistant:")
    ids = family.continuation(processor, prompt, answer)
    tokenizer = processor.tokenizer
    assert (
        tokenizer(prompt, add_special_tokens=False)["input_ids"] + list(ids)
        == (tokenizer(f"{prompt} {answer}", add_special_tokens=False)["input_ids"])
    )
    assert tokenizer.decode(ids) == f" {answer}"
    conversation = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "이것은 AI입니까? 0 or 1"}]},
        {"role": "assistant", "content": [{"type": "text", "text": answer}]},
    ]
    assert processor.apply_chat_template(conversation).startswith(f"{prompt} {answer}")


def test_the_first_token_is_written_once(family, parts):
    _, processor = parts
    inputs = asked(family, processor, pictures((90, 90), (200, 90)))
    assert (inputs["input_ids"] == processor.tokenizer.bos_token_id).sum(1).tolist() == [1, 1]


def test_features_computed_once_give_what_pixels_give(family, parts):
    module, processor = parts
    for images in (pictures((300, 100), (100, 100), (100, 200)), pictures((150, 170))):
        inputs = asked(family, processor, images)
        with torch.no_grad():
            features = family.image_features(module, inputs)
            given = family.embed(module, inputs, features)
            ours = module(**given).logits
            theirs = module(**inputs).logits
        assert len(features) == len(images)
        assert "pixel_values" not in given
        seen = inputs["attention_mask"].bool()
        torch.testing.assert_close(ours[seen], theirs[seen], atol=1e-5, rtol=1e-5)


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
