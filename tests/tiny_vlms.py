"""Tiny vision-language models: real classes, real processors, random weights, built and saved without a network.

``build_tiny(family, folder)`` leaves what ``family.load(folder)`` reads. Sizes are the smallest at which every part is
still there: several layers, heads and tiles, a tokenizer that knows digits, English and Korean.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn

TEXTS = (
    "Is this image made by AI? Answer with 0 for fake or 1 for real.",
    "What is shown in this picture? Describe the image in one sentence. yes no",
    "이 이미지는 다음 중 어떤 유형입니까? (0: 관련 없음, 1: 마약 대화 내역 사진, 2: 마약 거래 장소, 3: 마약 원본)",
    "가짜 진짜 0 1 2 3 4 5 6 7 8 9 10 fake real unrelated chat place drug",
)
"""What the tiny tokenizers are trained on; other characters fall back to bytes."""

LLAVA_MISTRAL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'][0]['text'] + '</s>' }}{% endif %}{% endfor %}"
)
"""The form in which LLaVA-1.6 with a Mistral decoder is asked."""


def build_tiny(family: str, folder: Path, *, seed: int = 0) -> Path:
    """Saves a tiny model of ``family`` with its processor in ``folder`` and returns that folder.

    Raises:
        KeyError: no such family.
    """
    builders: dict[str, Callable[[Path, int], None]] = {"paligemma": _paligemma, "llava_next": _llava_next}
    if family not in builders:
        from tests.tiny_vlms_more import BUILDERS

        builders |= BUILDERS
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        builders[family](folder, seed)
    return folder


def enliven(model: nn.Module) -> None:
    """Weights of a size at which answers depend on the picture, which the library's own small ones hardly do."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)


def byte_fallback_vocabulary(specials: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a small BPE that writes spaces as "▁" and unknown characters as their bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=[*specials, *bytes_], show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "\n"], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _paligemma(folder: Path, _seed: int) -> None:
    from transformers import (
        GemmaConfig,
        GemmaTokenizer,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    vocab, merges = byte_fallback_vocabulary(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer = GemmaTokenizer(vocab=vocab, merges=merges)
    image_processor = SiglipImageProcessor(size={"height": 64, "width": 64})
    image_processor.image_seq_length = 64
    processor = PaliGemmaProcessor(image_processor, tokenizer)
    vision = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        vision_use_head=False,
    )
    text = GemmaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = PaliGemmaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        vocab_size=len(tokenizer),
        projection_dim=16,
        hidden_size=16,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = PaliGemmaForConditionalGeneration(config)
    enliven(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _llava_next(folder: Path, _seed: int) -> None:
    from transformers import (
        CLIPVisionConfig,
        LlamaTokenizer,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        MistralConfig,
    )

    vocab, merges = byte_fallback_vocabulary(["<unk>", "<s>", "</s>"])
    tokenizer = LlamaTokenizer(vocab=vocab, merges=merges, pad_token="<pad>", add_bos_token=True)
    tokenizer.update_post_processor()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pinpoints = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
    processor = LlavaNextProcessor(
        LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints
        ),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_MISTRAL_TEMPLATE,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=32,
        patch_size=4,
        projection_dim=16,
    )
    text = MistralConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        max_position_embeddings=4096,
        sliding_window=None,
    )
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaNextForConditionalGeneration(config)
    enliven(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
