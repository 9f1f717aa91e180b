from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DynamicCache

from explain.cam import explain_batch
from explain.capture import capture
from models.errors import ExhibitError, IncompatibleMethodError, ModelUnavailableError
from models.families import get_family
from models.schema import LoadState, ModelSpec, ModelStatus
from models.scoring import score_labels
from models.vlm import VisionLanguageModel
from models.vlm_core import VlmCore
from tests.moondream_standin import build_standin
from tests.vlm_proofs import (
    YES,
    assert_cells_where_they_are,
    colours,
    heat_of,
    numbered,
    numbers,
    pictures,
    ramp,
    red_area,
    share_inside,
)

COLOURS = SimpleNamespace(image_processor=SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3))
METHODS = ("gradcam", "gradcampp", "layercam", "hirescam", "xgradcam", "eigencam", "eigengradcam")
SIDE, MARGIN = 4, 1
"""Patches along a crop, and how many of them are left out where crops meet."""


@pytest.fixture(scope="module")
def family():
    return get_family("moondream")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """The library copies a repository's code before it runs it."""
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.getbasetemp() / "code")
    )


@pytest.fixture
def folder(tmp_path):
    return build_standin(tmp_path / "standin")


@pytest.fixture
def parts(family, folder):
    module, reader, _ = family.load(folder, trust_remote_code=True)
    return module, reader


@pytest.fixture
def transparent(parts):
    """The network whose features carry their patch's colour."""
    module, reader = parts
    vision = module.remote.model.vision
    for weight in vision.parameters():
        weight.data.zero_()
    for channel in range(3):
        vision.patch_emb.weight.data[channel, channel * 196 : (channel + 1) * 196] = 1 / 196
        vision.proj.weight.data[channel, channel] = 1
    return module, reader


def asked(family, reader, images, question="Is it red?"):
    return family.encode(reader, images, [family.prompt(reader, question)] * len(images))


def own_tokens(module, family, inputs, layer):
    taken = capture(module, lambda: family.image_features(module, inputs), [layer])
    return family.split(module, taken.activations[layer], inputs, layer)


def test_code_is_run_only_when_trusted(family, folder):
    (folder / "standin.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelUnavailableError, match="allow it with --trust"):
        family.load(folder)
    with pytest.raises(SystemExit, match="ran"):
        family.load(folder, trust_remote_code=True)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("import pyvips_of_the_future", "pyvips_of_the_future"), ("raise OSError('no tokenizer\\nhere')", "no tokenizer")],
)
def test_code_that_does_not_run_is_one_clear_line(family, folder, line, reason):
    path = folder / "standin.py"
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(ModelUnavailableError, match=reason) as caught:
        family.load(folder, trust_remote_code=True)
    assert "2025-06-21" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_it_loads_with_its_rotary_table_computed_anew(family, folder):
    module, reader, report = family.load(folder, trust_remote_code=True, dtype=torch.bfloat16)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert module.config.model_type in family.model_types
    assert next(module.parameters()).dtype == torch.bfloat16
    expected = module.code.precompute_freqs_cis(8, 256)
    assert torch.equal(module.remote.model.text.freqs_cis, expected)
    assert module.get_input_embeddings().weight is module.remote.model.text.wte
    assert reader.tokenizer.decode(reader.tokenizer("가짜 0")["input_ids"]) == "가짜 0"
    assert reader.tokenizer.eos_token_id == 0


@pytest.mark.parametrize("tiling", [(1, 1), (1, 3), (3, 2), (3, 3)])
def test_every_patch_is_found_where_it_was_painted(family, transparent, tiling):
    module, reader = transparent
    rows, cols = (count * (SIDE - 2 * MARGIN) + 2 * MARGIN for count in tiling)
    image = numbered(rows, cols, 14)
    inputs = asked(family, reader, [image, numbered(SIDE, SIDE, 14)])
    assert inputs["tilings"].tolist() == [list(tiling), [1, 1]]
    own = own_tokens(module, family, inputs, "tower")
    layouts = family.layout(module, reader, inputs, [image.size, (56, 56)], "tower")
    for tokens, layout, shape in zip(own, layouts, [(rows, cols), (SIDE, SIDE)], strict=True):
        stitched, whole = layout.grids
        found = numbers(colours(tokens, COLOURS))
        assert (found[stitched.tokens] == np.arange(shape[0] * shape[1]).reshape(shape)).all()
        # The whole picture is the first crop.
        assert whole.tokens.tolist() == np.arange(SIDE**2).reshape(SIDE, SIDE).tolist()


@pytest.mark.parametrize("size_wh", [(640, 200), (123, 457), (300, 300), (37, 41)])
def test_cells_lie_where_the_network_saw_them_whatever_the_size(family, transparent, size_wh):
    module, reader = transparent
    sizes = [size_wh, (90, 150)]
    inputs = asked(family, reader, [ramp(*size) for size in sizes])
    for layer in ("tower", "projector"):
        layouts = family.layout(module, reader, inputs, sizes, layer)
        for tokens, layout in zip(own_tokens(module, family, inputs, layer), layouts, strict=True):
            assert_cells_where_they_are(tokens, layout, COLOURS, 0.06)


def test_heat_lies_on_what_the_answer_depends_on(family, transparent):
    module, reader = transparent
    model = module.remote.model
    # Whole picture and crops alike tell how red a token is; two strong channels keep its norm even.
    model.vision.proj.weight.data.zero_()
    model.vision.proj.weight.data[0, 0] = model.vision.proj.weight.data[0, 16] = 1
    model.vision.proj.bias.data[1:3] = torch.tensor([50.0, -50.0])
    model.text.wte.data.zero_()
    model.text.wte.data[:, 1:3] = torch.tensor([50.0, -50.0])
    for block in model.text.blocks:
        for weight in [*block.attn.parameters(), *block.mlp.parameters()]:
            weight.data.zero_()
        block.attn.qkv.weight.data[64, 0] = 1
        block.attn.proj.weight.data[5, 0] = 1
    model.text.lm_head.weight.data.zero_()
    model.text.lm_head.weight.data[YES, 5] = 1
    boxes = [(0, 100, 200, 200), (75, 75, 150, 150)]
    images = [red_area(400, 200, boxes[0]), red_area(300, 300, boxes[1])]
    for heat, image, box in zip(heat_of(family, module, reader, images, "tower"), images, boxes, strict=True):
        assert share_inside(heat, box, max(image.size) / SIDE / 2) > 0.9
        y, x = np.unravel_index(heat.values.argmax(), heat.values.shape)
        assert box[0] <= x < box[2]
        assert box[1] <= y < box[3]


def test_gradients_are_alive_wherever_features_are_kept(family, parts):
    module, reader = parts
    inputs = asked(family, reader, pictures((200, 120), (120, 300)))

    def forward():
        return module(**family.embed(module, inputs, family.image_features(module, inputs)))

    (layer, *_), target = family.layers(module), lambda outputs: outputs.logits[:, -1, 40] - outputs.logits[:, -1, 41]
    taken = capture(module, forward, [layer.name], [target])
    slopes = family.split(module, taken.gradients[layer.name][0], inputs, layer.name)
    layouts = family.layout(module, reader, inputs, [(200, 120), (120, 300)], layer.name)
    for slope, layout in zip(slopes, layouts, strict=True):
        for grid in layout.grids:
            assert slope[grid.tokens].abs().amax(-1).min() > 0
    with pytest.raises(IncompatibleMethodError, match="choose tower"):
        family.split(module, torch.zeros(3, 16, 16), inputs, "tower")


def test_the_picture_is_read_in_both_directions_and_the_cache_changes_nothing(family, parts):
    module, reader = parts
    inputs = asked(family, reader, pictures((200, 120)))
    model = module.remote.model
    with torch.no_grad():
        given = family.embed(module, inputs, family.image_features(module, inputs))
        tokens = inputs["input_ids"].shape[1]
        mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        mask[: 1 + SIDE**2, : 1 + SIDE**2] = True
        for block in model.text.blocks:
            block.kv_cache = None
        hidden = model._prefill(given["inputs_embeds"], mask, torch.arange(tokens))
        expected = model.text.lm_head(model.text.post_ln(hidden))
        torch.testing.assert_close(module(**given).logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            module(**given, past_key_values=DynamicCache(), logits_to_keep=1).logits,
            expected[:, -1:],
            atol=1e-5,
            rtol=0,
        )
        answers = [[family.continuation(reader, "", text) for text in ("0", "관련 없음", "yes it is")]]
        found = score_labels(module, given, answers).logits[0]
        for ids, score in zip(answers[0], found, strict=True):
            whole = torch.cat([given["inputs_embeds"], module.get_input_embeddings()(torch.tensor([ids]))], dim=1)
            logits = module(whole, attention_mask=torch.ones(whole.shape[:2])).logits[0].log_softmax(-1)
            brute = sum(logits[tokens - 1 + step, token] for step, token in enumerate(ids))
            torch.testing.assert_close(score, brute, atol=1e-4, rtol=0)


def test_batches_and_repeated_pictures_equal_single_runs(family, parts):
    module, reader = parts
    images = pictures((200, 90), (100, 100), (80, 260))
    prompts = [
        family.prompt(reader, text) for text in ("Red?", "이 이미지는 다음 중 어떤 유형입니까?", "Fake or real?")
    ]

    def answers(images, prompts, features=None):
        inputs = family.encode(reader, images, prompts)
        features = family.image_features(module, inputs) if features is None else features
        return module(**family.embed(module, inputs, features)).logits[:, -1]

    with torch.no_grad():
        alone = [answers([image], [prompt])[0] for image, prompt in zip(images, prompts, strict=True)]
        torch.testing.assert_close(answers(images, prompts), torch.stack(alone), atol=1e-4, rtol=1e-4)
        (features,) = family.image_features(module, family.encode(reader, images[:1], prompts[:1]))
        several = answers(images[:1] * 3, prompts, [features] * 3)
        alone = [answers(images[:1], [prompt])[0] for prompt in prompts]
        torch.testing.assert_close(several, torch.stack(alone), atol=1e-4, rtol=1e-4)


def test_an_answer_has_the_tokens_its_text_has(family, parts):
    _, reader = parts
    for answer in ("0", "fake", "관련 없음"):
        assert reader.tokenizer.decode(family.continuation(reader, "Red?", answer)) == answer
    with pytest.raises(ExhibitError, match="no tokens"):
        family.continuation(reader, "Red?", "")
    inputs = asked(family, reader, [Image.new("RGB", (60, 60))], "0")
    assert inputs["input_ids"][0].tolist() == [0, *[-1] * 16, 1, 80, 2, *reader.tokenizer("0")["input_ids"], 3]


def test_scoring_and_all_seven_maps_work_on_it(family, parts):
    module, reader = parts
    spec = ModelSpec(
        id="standin",
        name="Stand-in",
        task="deepfake",
        kind="vlm",
        source="someone/standin",
        revision="2025-06-21",
        licence="AGPL-3.0-only",
        size_mb=1,
        memory_mb=1,
        family="moondream",
        question="Is it fake?",
        answers={"0": "fake", "1": "real"},
        remote_code=True,
    )
    status = ModelStatus(LoadState.FINE_TUNED, "someone/standin")
    live = VisionLanguageModel(
        spec, status, VlmCore(family, module, reader), question=spec.question, answers=spec.answers
    )
    for explanation in explain_batch(live, pictures((200, 100), (90, 120)), methods=list(METHODS)):
        assert set(explanation.prediction.probabilities) == {"fake", "real"}
        assert not explanation.problems
        assert len(explanation.heatmaps) == 7
