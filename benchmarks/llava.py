"""One epoch of QLoRA on LLaVA-1.6 Mistral 7B at its real size, with random weights: speed and memory on one GPU.

python -m benchmarks.llava --pictures 96 --json --save
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
)

from benchmarks.report import Figure, add_options, report
from training.language import finetune_language
from training.language_recipe import LanguageRecipe, read_language_recipe
from training.scenes import write_scenes
from training.small_paligemma import train_tokenizer

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "casework-llava.yaml"
SIDE_PX = 512
"""Pictures of this side fill all four tiles, so that each takes as many tokens as any can."""
VOCABULARY = 32000
TEMPLATE = (
    "{% for message in messages %}[INST] {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %} [/INST]{% endfor %}"
)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and save if asked."""
    parser = argparse.ArgumentParser(description="One epoch of QLoRA on LLaVA-1.6 at its real size.")
    parser.add_argument("--pictures", type=int, default=96, metavar="N", help="of the epoch")
    add_options(parser)
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        sys.stderr.write("benchmarks.llava: needs a GPU with 24 GB; there is none here.\n")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        start = build_llava(real_config(), Path(folder) / "llava", torch.device("cuda"))
        metrics = run_epoch(start, Path(folder), options.pictures)
    report("llava", _figures(metrics, options.pictures), options, {"versions": metrics["versions"]})
    return 0


def real_config() -> LlavaNextConfig:
    """Sizes of ``llava-hf/llava-v1.6-mistral-7b-hf``: CLIP ViT-L/14 at 336 px and Mistral 7B."""
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    text = MistralConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=32064,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        sliding_window=None,
    )
    return LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=VOCABULARY,
        image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    )


def build_llava(config: LlavaNextConfig, folder: Path, device: torch.device) -> Path:
    """Save a LLaVA-1.6 with random bfloat16 weights and a processor whose words come from the recipe's question.

    Args:
        config: its sizes; the number of the image token is set to the tokeniser's.
        folder: to create.
        device: where the weights are drawn.
    """
    recipe = read_language_recipe(RECIPE)
    tokenizer = train_tokenizer([str(recipe.task.question)], VOCABULARY)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    vision = config.vision_config
    side = {"height": vision.image_size, "width": vision.image_size}
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": vision.image_size},
            crop_size=side,
            image_grid_pinpoints=config.image_grid_pinpoints,
        ),
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    for name in ("pad", "bos", "eos"):
        setattr(config.text_config, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))
    torch.manual_seed(0)
    with device:
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def run_epoch(start: Path, folder: Path, pictures: int, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fine-tune by the recipe of the drug cases, for one epoch and without evaluation.

    Args:
        start: the model's folder.
        folder: for data and run.
        pictures: how many to generate.
        changes: further entries of the recipe.

    Returns:
        The run's metrics, and ``peak_bytes`` that the GPU held, if there is one.
    """
    write_scenes(folder / "scenes", pictures, 0, workers=2, size=SIDE_PX)
    (folder / "scenes" / "casework.parquet").rename(folder / "scenes" / "train.parquet")
    recipe: LanguageRecipe = read_language_recipe(
        RECIPE,
        {"model.start": str(start), "held_out": [], "train.patience": None, "train.epochs": 1, **(changes or {})},
    )
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    metrics = finetune_language(recipe, folder / "scenes", folder / "run")
    if torch.cuda.is_available():
        metrics["peak_bytes"] = torch.cuda.max_memory_allocated()
    return metrics


def _figures(metrics: dict[str, Any], pictures: int) -> list[Figure]:
    what = (
        f"one epoch of {pictures} generated pictures by casework-llava.yaml, LLaVA-1.6 Mistral 7B with random weights"
    )
    peak = metrics["peak_bytes"] / 1e9
    estimated = metrics["estimated_memory"]["total"] / 1e9
    return [
        Figure("images_per_second", metrics["images_per_second"], None, "higher", f"in training: {what}"),
        Figure("tokens_per_second", metrics["tokens_per_second"], None, "higher", f"read by the decoder: {what}"),
        Figure("peak_gb", peak, None, "lower", f"10^9 bytes of tensors on the GPU at the fullest moment: {what}"),
        Figure("estimated_over_peak", estimated / peak, None, "higher", "memory told before the run / at most taken"),
    ]


if __name__ == "__main__":
    sys.exit(main())
