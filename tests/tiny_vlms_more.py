"""Tiny Qwen2-VL, Qwen2.5-VL, SmolVLM, Idefics3 and PaliGemma 2 checkpoints of the real classes, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_TEXTS = (
    "0 1 2 3 4 5 6 7 8 9 10 11 12",
    "User: Is this image made by AI? Assistant: fake real yes no",
    "You are a helpful assistant. Describe the picture: a red square, a blue circle.",
    "이 이미지는 다음 중 어떤 유형입니까? (0: 관련 없음, 1: 마약 대화 내역 사진, 2: 마약 거래 장소, 3: 마약 원본)",
)
_QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TILE_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_TILE_TOKENS = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
)


def byte_level_bpe(specials: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE of about 400 entries that begins with ``specials``."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=350 + len(specials),
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def build_qwen2_vl(folder: Path, seed: int = 0) -> None:
    """Patches of 14 px merged 2x2, as in the real one; at most 64 merged cells."""
    from transformers import (
        Qwen2Tokenizer,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _qwen_tokenizer(Qwen2Tokenizer)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=pixels),
        tokenizer,
        Qwen2VLVideoProcessor(size=pixels),
        chat_template=_QWEN_TEMPLATE,
    )
    config = _qwen_config(
        tokenizer, "qwen2_vl", {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    )
    _save(Qwen2VLForConditionalGeneration, config, processor, folder, seed)


def build_qwen2_5_vl(folder: Path, seed: int = 0) -> None:
    """As ``qwen2_vl``, but all blocks except the last look through windows of 2x2 merged cells."""
    from transformers import (
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2Tokenizer,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _qwen_tokenizer(Qwen2Tokenizer)
    pixels = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=pixels),
        tokenizer,
        Qwen2VLVideoProcessor(size=pixels),
        chat_template=_QWEN_TEMPLATE,
    )
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "out_hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 32,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    config = _qwen_config(tokenizer, "qwen2_5_vl", vision)
    _save(Qwen2_5_VLForConditionalGeneration, config, processor, folder, seed)


def build_smolvlm(folder: Path, seed: int = 0) -> None:
    """Tiles of 38 px whose patches of 6 px leave 2 px unused, as 384 px by 14 px do; 2x2 pixel shuffle."""
    from transformers import (
        GPT2Tokenizer,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    vocab, merges = byte_level_bpe(("<|endoftext|>", "<|im_start|>", *_TILE_TOKENS))
    tokenizer = GPT2Tokenizer(
        vocab=vocab,
        merges=merges,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<end_of_utterance>",
        padding_side="left",
        model_max_length=4096,
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
        },
    )
    tokenizer.add_tokens([token for token in _TILE_TOKENS if "row" in token], special_tokens=True)
    images = SmolVLMImageProcessor(size={"longest_edge": 4 * 38}, max_image_size={"longest_edge": 38})
    videos = SmolVLMVideoProcessor(
        size={"longest_edge": 4 * 38},
        max_image_size={"longest_edge": 38},
        video_sampling={"fps": 1, "max_frames": 8},
        num_frames=8,
        fps=1,
    )
    processor = SmolVLMProcessor(
        images, tokenizer, videos, image_seq_len=9, chat_template="<|im_start|>" + _TILE_TEMPLATE
    )
    config = _tile_config(tokenizer, "smolvlm", image_size=38, patch_size=6)
    _save(SmolVLMForConditionalGeneration, config, processor, folder, seed)


def build_idefics3(folder: Path, seed: int = 0) -> None:
    """Tiles of 42 px in patches of 7 px; 3x3 pixel shuffle, as in SmolVLM-Base, which has these classes too."""
    from tokenizers import AddedToken, processors
    from transformers import (
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        Qwen2Tokenizer,
        TokenizersBackend,
    )

    vocab, merges = byte_level_bpe(("<|end_of_text|>", "<|begin_of_text|>", *_TILE_TOKENS))
    backend = Qwen2Tokenizer(vocab=vocab, merges=merges, unk_token=None, eos_token=None, pad_token=None)._tokenizer
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _TILE_TOKENS])
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", vocab["<|begin_of_text|>"])]
    )
    tokenizer = TokenizersBackend(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
        padding_side="left",
        model_max_length=4096,
    )
    images = Idefics3ImageProcessor(size={"longest_edge": 4 * 42}, max_image_size={"longest_edge": 42})
    processor = Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template="<|begin_of_text|>" + _TILE_TEMPLATE
    )
    config = _tile_config(tokenizer, "idefics3", image_size=42, patch_size=7, scale_factor=3)
    _save(Idefics3ForConditionalGeneration, config, processor, folder, seed)


def build_paligemma2(folder: Path, seed: int = 0) -> None:
    """The tiny PaliGemma with a Gemma 2 decoder, every other layer of which looks through a window."""
    from transformers import Gemma2Config, PaliGemmaConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

    from tests.tiny_vlms import build_tiny

    build_tiny("paligemma", folder, seed=seed)
    processor, first = PaliGemmaProcessor.from_pretrained(folder), PaliGemmaConfig.from_pretrained(folder)
    text = Gemma2Config(
        vocab_size=first.text_config.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        pad_token_id=first.text_config.pad_token_id,
        bos_token_id=first.text_config.bos_token_id,
        eos_token_id=first.text_config.eos_token_id,
    )
    config = PaliGemmaConfig(
        vision_config=first.vision_config,
        text_config=text,
        image_token_index=processor.image_token_id,
        projection_dim=16,
        hidden_size=16,
    )
    _save(PaliGemmaForConditionalGeneration, config, processor, folder, seed)


BUILDERS: dict[str, Callable[[Path, int], None]] = {
    "paligemma2": build_paligemma2,
    "qwen2_vl": build_qwen2_vl,
    "qwen2_5_vl": build_qwen2_5_vl,
    "smolvlm": build_smolvlm,
    "idefics3": build_idefics3,
}


def _qwen_tokenizer(kind: Any) -> Any:
    specials = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    )
    vocab, merges = byte_level_bpe(specials)
    return kind(
        vocab=vocab,
        merges=merges,
        eos_token="<|im_end|>",
        additional_special_tokens=list(specials[1:]),
        padding_side="left",
        model_max_length=4096,
    )


def _qwen_config(tokenizer: Any, model_type: str, vision: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    ids = tokenizer.convert_tokens_to_ids
    return AutoConfig.for_model(
        model_type,
        vision_config=vision,
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "bos_token_id": ids("<|endoftext|>"),
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            # Time, height and width turn 1, 1 and 2 of the 4 pairs of a head.
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )


def _tile_config(tokenizer: Any, model_type: str, *, image_size: int, patch_size: int, scale_factor: int = 2) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(
        model_type,
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": image_size,
            "patch_size": patch_size,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        scale_factor=scale_factor,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
    )


def _save(kind: Any, config: Any, processor: Any, folder: Path, seed: int) -> None:
    """Weights strong enough that the answer depends on the picture."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
