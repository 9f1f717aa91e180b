"""The benchmark of QLoRA on LLaVA-1.6, at a size that a CPU trains in seconds."""

from __future__ import annotations

import pytest
import torch

from benchmarks.llava import build_llava, main, real_config, run_epoch


@pytest.fixture
def small_config():
    config = real_config()
    for name, value in {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}.items():
        setattr(config.vision_config, name, value)
        setattr(config.text_config, name, value)
    config.vision_config.num_attention_heads = config.text_config.num_attention_heads = 2
    config.text_config.num_key_value_heads = 1
    config.text_config.head_dim = 16
    config.vision_config.image_size = 56
    config.image_grid_pinpoints = [[56, 112], [112, 56], [112, 112]]
    return config


def test_an_epoch_of_qlora_is_trained_and_measured(small_config, tmp_path):
    start = build_llava(small_config, tmp_path / "llava", torch.device("cpu"))
    metrics = run_epoch(start, tmp_path, 4, {"train.batch_size": 2, "workers": 0})
    assert metrics["steps"] == 2
    assert metrics["questions"] == 4
    # The base view and four tiles of 4 x 4 patches, the tiles' rows each ended by a newline, and the question.
    assert metrics["tokens_per_second"] > (16 + 8 * 9) * metrics["images_per_second"]
    assert metrics["estimated_memory"]["total"] > 0


def test_the_real_size_has_seven_billion_weights():
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(real_config())
    # 7,241.7 M of Mistral 7B with 64 further words, 304.3 M of the tower, 21.0 M of the projector, one newline.
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(7.567e9, rel=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert main([]) == 1
    assert "needs a GPU" in capsys.readouterr().err
