"""Image classifiers as live models: labels, probabilities, explainable layers, and where their cells lie."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models.anatomy import trace
from models.classifier import ImageClassifier, load_classifier, task_labels
from models.errors import IncompatibleMethodError, ModelUnavailableError
from models.framing import measured_box, seen_box
from models.schema import LiveModel, LoadState, ModelSpec, ModelStatus

SPEC = ModelSpec(
    id="tiny", name="Tiny", task="t", kind="classifier", source="./x", licence="MIT", size_mb=1, memory_mb=1
)
STATUS = ModelStatus(LoadState.FINE_TUNED, "./x")
CPU = torch.device("cpu")
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}


def live(config, processor, seed=0):
    from transformers import AutoModelForImageClassification

    torch.manual_seed(seed)
    module = AutoModelForImageClassification.from_config(config)
    return ImageClassifier(SPEC, STATUS, module, processor, ("fake", "real"))


def square(side):
    from transformers import ViTImageProcessor

    return ViTImageProcessor(size={"height": side, "width": side})


def noise(size_wh, seed=0):
    width, height = size_wh
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def resnet(tiny_folders):
    return load_classifier(SPEC, tiny_folders["resnet"], STATUS, renames={}, device=CPU)


@pytest.fixture(scope="module")
def vit(tiny_folders):
    return load_classifier(SPEC, tiny_folders["vit"], STATUS, renames={}, device=CPU)


def patch_gradient(model, layer):
    """Largest gradient of the margin with respect to each token (or cell) of a layer's output."""
    kept = []
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out))
    pixels = model.prepare([noise((50, 40))])["pixel_values"].requires_grad_()
    logits = model.forward({"pixel_values": pixels}).logits
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 0] - logits[0, 1], kept)
    return gradient.abs().amax(dim=-1 if gradient.ndim == 3 else 1)[0]


# --- predictions -----------------------------------------------------------------------------------------------------


def test_a_classifier_is_a_live_model(resnet):
    assert isinstance(resnet, LiveModel)
    assert resnet.labels == ("fake", "real")
    assert not resnet.module.training
    assert not any(parameter.requires_grad for parameter in resnet.module.parameters())


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_probabilities_are_the_softmax_of_the_networks_own_logits(name, request):
    model = request.getfixturevalue(name)
    images = [noise((40, 60), 1), noise((33, 21), 2), noise((32, 32), 3)]
    pixels = model.processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.module(pixel_values=pixels).logits.double()
    predictions = model.predict(images)
    for row, prediction in zip(expected, predictions, strict=True):
        assert list(prediction.logits.values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert list(prediction.probabilities.values()) == pytest.approx(row.softmax(0).tolist(), abs=1e-6)
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-12)
        assert prediction.label == ("fake", "real")[int(row.argmax())]
        assert (prediction.model_id, prediction.status) == ("tiny", STATUS)


def test_many_images_keep_their_order_over_batches(resnet):
    images = [noise((20, 20), seed) for seed in range(35)]
    together = [prediction.logits["fake"] for prediction in resnet.predict(images)]
    alone = [resnet.predict([image])[0].logits["fake"] for image in images]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(together)) == 35
    assert resnet.predict([]) == []


def test_prepared_pixels_are_contiguous_and_in_the_models_dtype(resnet):
    pixels = resnet.prepare([noise((20, 30))])["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert pixels.is_contiguous()
    assert pixels.dtype == torch.float32
    half = ImageClassifier(SPEC, STATUS, nn.Linear(1, 1).to(torch.bfloat16), resnet.processor, ("a", "b"))
    assert half.prepare([noise((20, 30))])["pixel_values"].dtype == torch.bfloat16


def test_reading_outputs_shares_the_time_of_the_pass(resnet):
    class Outputs:
        logits = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.bfloat16)

    first, second = resnet.read(Outputs, 0.5)
    assert first.probabilities == {"fake": 0.5, "real": 0.5}
    assert second.probabilities["real"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert (first.latency_s, second.latency_s) == (0.25, 0.25)


def test_numbers_that_are_not_finite_are_no_answer(resnet):
    class Outputs:
        logits = torch.tensor([[0.0, float("nan")]])

    with pytest.raises(ModelUnavailableError, match=r"tiny: .* not finite on cpu; run it on the CPU"):
        resnet.read(Outputs, 0.1)


def test_two_threads_get_their_own_answers(resnet):
    images = [noise((30, 30), seed) for seed in range(8)]
    expected = [resnet.predict([image])[0].logits for image in images]
    got = {}
    threads = [
        threading.Thread(target=lambda n=n: got.update({n: resnet.predict([images[n]])[0].logits})) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[n] for n in range(8)] == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU for half precision")
def test_a_gpu_runs_in_half_precision_and_agrees(tiny_folders, resnet):
    fast = load_classifier(SPEC, tiny_folders["resnet"], STATUS, renames={}, device=torch.device("cuda"))
    image = noise((40, 40))
    assert next(fast.module.parameters()).dtype == torch.float16
    assert fast.predict([image])[0].probabilities["fake"] == pytest.approx(
        resnet.predict([image])[0].probabilities["fake"], abs=0.02
    )


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_follow_the_networks_own_index_and_are_renamed_in_any_case():
    assert task_labels({1: "Fake", 0: "Real"}, {}, "m") == ("Real", "Fake")
    assert task_labels({0: "Real", 1: "FAKE"}, {"fake": "fake", "real": "real"}, "m") == ("real", "fake")
    assert task_labels({0: "artificial", 1: "human", 2: "x"}, {"human": "real"}, "m") == ("artificial", "real", "x")


@pytest.mark.parametrize(
    ("own", "renames", "message"),
    [
        ({0: "a", 1: "b"}, {"a": "b"}, "several labels of the model would be called 'b'"),
        ({0: "a", 1: "b"}, {"c": "d"}, "renames 'c', but the model's labels are 'a', 'b'; correct `labels`"),
        ({0: "score"}, {}, "has 1 label; a classifier needs at least two"),
    ],
)
def test_labels_that_would_mislead_are_refused(own, renames, message):
    with pytest.raises(ModelUnavailableError, match=f"m: .*{message}"):
        task_labels(own, renames, "m")


# --- loading a folder ------------------------------------------------------------------------------------------------


def test_a_network_without_a_trained_head_is_refused(tmp_path):
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=16, patch_size=8, **VIT)).save_pretrained(tmp_path)
    square(16).save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailableError, match=r"lacks 2 of the network's weights .* not a trained classifier"):
        load_classifier(SPEC, tmp_path, STATUS, renames={}, device=CPU)


def test_code_inside_a_folder_is_never_run(tiny_folders, tmp_path):
    import json
    import shutil

    shutil.copytree(tiny_folders["vit"], tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.M"},
    }
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelUnavailableError, match="cannot be loaded as an image classifier") as failure:
        load_classifier(SPEC, tmp_path / "m", STATUS, renames={}, device=CPU)
    assert "\n" not in str(failure.value)
    assert not (tmp_path / "ran").exists()


# --- layers ----------------------------------------------------------------------------------------------------------


def test_the_default_layer_of_a_vit_is_the_last_one_whose_patches_get_a_gradient(vit):
    assert vit.target_layer == "vit.layers.1.layernorm_before"
    assert bool((patch_gradient(vit, vit.target_layer)[1:] > 0).all())
    # The output of the last block reaches the answer through the class token alone.
    assert bool((patch_gradient(vit, "vit.layers.1")[1:] == 0).all())
    assert [preset.name for preset in vit.layers] == ["vit.layers.1.layernorm_before", "vit.layers.0.layernorm_before"]


def test_the_layers_of_a_cnn_are_its_stages_from_the_last(resnet):
    default, *finer = resnet.layers
    assert (default.name, default.note) == ("resnet.encoder.stages.1", "4 x 4 cells, what decided")
    assert [preset.name for preset in finer] == ["resnet.encoder.stages.0", "resnet.embedder.embedder"]
    assert [preset.note.split(" cells")[0] for preset in finer] == ["8 x 8", "16 x 16"]
    assert float(patch_gradient(resnet, resnet.target_layer).max()) > 0


def test_tracing_leaves_nothing_behind(vit):
    vit.module.config.use_cache = False
    before = {name: parameter.clone() for name, parameter in vit.module.named_parameters()}
    with torch.no_grad():
        trace(vit.module, lambda pixels: vit.forward({"pixel_values": pixels}), torch.rand(1, 3, 32, 32), 8)
    assert not any(part._forward_hooks for part in vit.module.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in vit.module.parameters())
    assert all(torch.equal(before[name], parameter) for name, parameter in vit.module.named_parameters())


def families():
    import transformers as hf

    swin = {
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 1, 2],
        "num_heads": [1, 2, 2],
        "window_size": 4,
    }
    deit = hf.DeiTConfig(image_size=64, patch_size=16, architectures=["DeiTForImageClassification"], **VIT)
    dino = {"image_size": 64, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = hf.CLIPConfig(vision_config={"image_size": 64, "patch_size": 16, **VIT})
    return {
        "deit": (deit, "deit.layers.2.layernorm_before", 2, (4, 4)),
        "registers": (hf.Dinov2WithRegistersConfig(**dino), "dinov2_with_registers.layernorm", 5, (4, 4)),
        "swin": (hf.SwinConfig(**swin), "swin.layernorm", 0, (4, 4)),
        "convnext": (hf.ConvNextConfig(**STAGES), "convnext.encoder.stages.3", None, (2, 2)),
        "regnet": (
            hf.RegNetConfig(embedding_size=8, groups_width=8, **STAGES),
            "regnet.encoder.stages.3",
            None,
            (2, 2),
        ),
        "mobilenet": (hf.MobileNetV2Config(depth_multiplier=0.35), "mobilenet_v2.conv_1x1", None, (2, 2)),
        "efficientnet": (
            hf.EfficientNetConfig(width_coefficient=0.25, depth_coefficient=0.2, hidden_dim=320),
            "efficientnet.encoder.top_activation",
            None,
            (2, 2),
        ),
        "clip": (clip, "vision_model.encoder.layers.2.layer_norm2", 1, (4, 4)),
    }


@pytest.mark.parametrize(
    "family", ["deit", "registers", "swin", "convnext", "regnet", "mobilenet", "efficientnet", "clip"]
)
def test_layers_and_grids_are_found_in_every_family(family):
    config, layer, prefix, grid = families()[family]
    model = live(config, square(64))
    assert model.target_layer == layer
    assert len(model.layers) >= 2
    inputs = model.prepare([noise((64, 64))])
    tokens = model.layout(inputs, [(64, 64)])[0].grids[0].tokens
    gradient = patch_gradient(model, layer)
    if prefix is None:
        assert tokens is None
        assert tuple(gradient.shape) == grid
    else:
        assert tokens.shape == grid
        assert tokens.ravel().tolist() == list(range(prefix, prefix + grid[0] * grid[1]))
        assert len(gradient) == prefix + grid[0] * grid[1]
        assert bool((gradient[prefix:] > 0).any())


class Bare(nn.Module):
    """Flattens the picture at once, so that no layer keeps its place."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 2)

    def forward(self, pixels):
        return type("Outputs", (), {"logits": self.head(pixels.flatten(1))})


def test_a_network_without_a_place_to_look_at_is_refused():
    module = Bare()
    with pytest.raises(IncompatibleMethodError, match="no late layer of Bare keeps its place"):
        trace(module, module, torch.rand(1, 3, 8, 8), None)
    assert not module.head._forward_hooks


# --- where the cells lie ---------------------------------------------------------------------------------------------


def test_a_vit_for_oblong_pictures_gets_an_oblong_grid():
    from transformers import ViTConfig, ViTImageProcessor

    processor = ViTImageProcessor(size={"height": 96, "width": 64})
    model = live(ViTConfig(image_size=[96, 64], patch_size=16, **VIT), processor)
    inputs = model.prepare([noise((300, 200))])
    (layout,) = model.layout(inputs, [(300, 200)])
    (grid,) = layout.grids
    assert grid.box_xyxy == (0, 0, 300, 200)
    assert grid.tokens.tolist() == [[1 + 4 * row + column for column in range(4)] for row in range(6)]


def test_pixels_that_fill_no_whole_patch_are_left_out_of_the_box():
    from transformers import ViTConfig

    model = live(ViTConfig(image_size=70, patch_size=16, **VIT), square(70))
    inputs = model.prepare([noise((140, 70))])
    (grid,) = model.layout(inputs, [(140, 70)])[0].grids
    assert grid.tokens.shape == (4, 4)
    assert grid.box_xyxy == pytest.approx((0, 0, 128, 64))


@pytest.mark.parametrize(
    ("size_wh", "shortest", "crop", "box"),
    [
        # 400 x 200 becomes 128 x 64; the middle 64 columns are columns 32 to 96, which is 100 to 300.
        ((400, 200), 64, 64, (100, 0, 300, 200)),
        # 200 x 400 becomes 64 x 128; a crop of 32 leaves 16..48 and 48..80 of it.
        ((200, 400), 64, 32, (50, 150, 150, 250)),
        # 100 x 100 becomes 32 x 32 and is padded to 64: the box reaches 50 pixels beyond each side.
        ((100, 100), 32, 64, (-50, -50, 150, 150)),
    ],
)
def test_a_centre_crop_shows_only_its_box(resnet, size_wh, shortest, crop, box):
    from transformers import BitImageProcessor

    processor = BitImageProcessor(size={"shortest_edge": shortest}, crop_size={"height": crop, "width": crop})
    assert seen_box(processor, size_wh) == pytest.approx(box)
    assert measured_box(processor, size_wh) == pytest.approx(box, abs=max(size_wh) / 200)
    cropping = ImageClassifier(SPEC, STATUS, resnet.module, processor, resnet.labels)
    layout = cropping.layout(cropping.prepare([noise(size_wh)]), [size_wh])[0]
    assert layout.size_wh == size_wh
    assert layout.grids[0].box_xyxy == pytest.approx(box)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 7, 5)])
def test_every_layer_is_split_along_the_images(resnet, shape):
    activation = torch.rand(shape)
    first, second = resnet.split(activation, {}, resnet.target_layer)
    assert torch.equal(first, activation[0])
    assert torch.equal(second, activation[1])


def test_the_grid_does_not_depend_on_the_layer(resnet):
    inputs = resnet.prepare([noise((300, 200))])
    assert resnet.layout(inputs, [(300, 200)], resnet.layers[1].name) == resnet.layout(inputs, [(300, 200)])


def test_what_lies_outside_the_box_does_not_reach_the_network():
    from transformers import BitImageProcessor

    processor = BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    x0, _, x1, _ = (round(side) for side in seen_box(processor, (400, 200)))
    picture = noise((400, 200))
    changed = picture.copy()
    changed.paste((255, 0, 0), (0, 0, x0 - 8, 200))
    changed.paste((0, 255, 0), (x1 + 8, 0, 400, 200))
    assert torch.equal(*(processor(images=one, return_tensors="pt")["pixel_values"] for one in (picture, changed)))
    changed.paste((0, 0, 255), (x0 + 8, 90, x0 + 30, 110))
    assert not torch.equal(*(processor(images=one, return_tensors="pt")["pixel_values"] for one in (picture, changed)))


def test_a_processor_with_its_own_way_of_cropping_is_measured():
    from transformers import ConvNextImageProcessor

    # Below 384 pixels ConvNeXT resizes to size / crop_pct and crops: 64 / 0.875 = 73, so 64 of 73 rows are seen.
    processor = ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    shown = 200 * 64 / 73
    x0, y0, x1, y1 = seen_box(processor, (400, 200))
    assert (x1 - x0, y1 - y0) == pytest.approx((shown, shown), abs=2)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((200, 100), abs=3)


def test_a_processor_that_turns_pictures_is_refused(resnet):
    class Turning:
        def __call__(self, images, **_options):
            turned = [np.asarray(image.rotate(90, expand=True)).transpose(2, 0, 1) for image in images]
            return {"pixel_values": np.stack(turned)}

    with pytest.raises(IncompatibleMethodError, match="Turning does not simply resize and crop"):
        seen_box(Turning(), (40, 30))
