"""A PaliGemma small enough for a CPU: the real classes, a vocabulary of its own, and eyes that have learnt already.

The SigLIP tower starts from the weights of a ViT classifier: both are the same pre-norm transformer, except that SigLIP
has no class token. The Gemma decoder and the projector start from nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from training.errors import RecipeError
from training.language_recipe import SmallPaliGemmaRecipe
from training.recipe import FILTERS

SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")
# SigLIP's name of each part of a block, and the ViT's.
BLOCK_NAMES = {
    "layer_norm1": "layernorm_before",
    "layer_norm2": "layernorm_after",
    "self_attn.q_proj": "attention.q_proj",
    "self_attn.k_proj": "attention.k_proj",
    "self_attn.v_proj": "attention.v_proj",
    "self_attn.out_proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def build_small_paligemma(
    recipe: SmallPaliGemmaRecipe, texts: Iterable[str]
) -> tuple[PaliGemmaForConditionalGeneration, PaliGemmaProcessor]:
    """Network (float32) and processor.

    Args:
        recipe: sizes, and where the tower comes from.
        texts: what the vocabulary is trained on, besides the recipe's own.

    Raises:
        RecipeError: if the tower's folder cannot be loaded, is no ViT, or differs from SigLIP in activation or shape.
    """
    vit, image_processor = load_vit(recipe.tower)
    side = int(vit.config.image_size)
    tokenizer = train_tokenizer([*texts, *recipe.texts], recipe.vocabulary)
    siglip_processor = SiglipImageProcessor(
        size={"height": side, "width": side},
        resample=FILTERS[recipe.resample] if recipe.resample else image_processor.resample,
        image_mean=image_processor.image_mean,
        image_std=image_processor.image_std,
    )
    siglip_processor.image_seq_length = (side // int(vit.config.patch_size)) ** 2
    processor = PaliGemmaProcessor(siglip_processor, tokenizer)
    vision = SiglipVisionConfig(
        hidden_size=vit.config.hidden_size,
        intermediate_size=vit.config.intermediate_size,
        num_hidden_layers=vit.config.num_hidden_layers,
        num_attention_heads=vit.config.num_attention_heads,
        image_size=side,
        patch_size=vit.config.patch_size,
        hidden_act=vit.config.hidden_act,
        layer_norm_eps=vit.config.layer_norm_eps,
        vision_use_head=False,
    )
    special = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<{name}>") for name in ("pad", "bos", "eos")}
    text = GemmaConfig(**recipe.text_config, vocab_size=len(tokenizer), **special)
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=text.hidden_size,
        hidden_size=text.hidden_size,
        **special,
    )
    network = PaliGemmaForConditionalGeneration(config)
    start_tower(network.model.vision_tower, vit)
    return network, processor


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Radford et al. 2019): any text in any language can be written, rare ones as their bytes.

    Digits stand alone, so that numbers are read digit by digit.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def load_vit(folder: str) -> tuple[PreTrainedModel, Any]:
    """A ``ViTForImageClassification`` (float32) and its image processor.

    Raises:
        RecipeError: if the folder holds none.
    """
    if not (Path(folder) / "config.json").is_file():
        raise RecipeError(f"tower: {folder}: holds no config.json; train or bundle the ViT first.")
    vit = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    if vit.config.model_type != "vit":
        raise RecipeError(f"tower: {folder}: is a {vit.config.model_type}, not a vit.")
    return vit, AutoImageProcessor.from_pretrained(folder)


def start_tower(tower: nn.Module, vit: Any) -> None:  # noqa: ANN401
    """Copy a ViT's weights into a SigLIP tower, dropping the class token and its position.

    Raises:
        RecipeError: if the two differ in shape.
    """
    state = vit.vit.state_dict()
    copied = {
        "embeddings.patch_embedding.weight": state["embeddings.patch_embeddings.projection.weight"],
        "embeddings.patch_embedding.bias": state["embeddings.patch_embeddings.projection.bias"],
        "embeddings.position_embedding.weight": state["embeddings.position_embeddings"][0, 1:],
        "post_layernorm.weight": state["layernorm.weight"],
        "post_layernorm.bias": state["layernorm.bias"],
    }
    for index in range(len(vit.vit.layers)):
        for ours, theirs in BLOCK_NAMES.items():
            for kind in ("weight", "bias"):
                copied[f"encoder.layers.{index}.{ours}.{kind}"] = state[f"layers.{index}.{theirs}.{kind}"]
    try:
        tower.load_state_dict(copied)
    except RuntimeError as error:
        raise RecipeError(f"tower: the ViT does not fit: {' '.join(str(error).split())[:300]}") from error
