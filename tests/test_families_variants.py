"""Newer models that the same family files serve: label scores through their own caches equal whole sequences."""

import pytest
import torch

from models.families import get_family
from models.scoring import score_labels
from tests.vlm_proofs import pictures

VARIANTS = {
    "paligemma2": "paligemma",
    "qwen2_vl": "qwen2_vl",
    "qwen2_5_vl": "qwen2_vl",
    "idefics3": "smolvlm",
    "smolvlm": "smolvlm",
}
ANSWERS = ("0", "fake", "관련 없음", "yes it is")


@pytest.mark.parametrize("variant", VARIANTS)
def test_label_scores_equal_whole_sequences_with_pixels(variant, tiny_vlm):
    family = get_family(VARIANTS[variant])
    module, processor, report = family.load(tiny_vlm(variant))
    assert module.config.model_type in family.model_types
    assert not report["missing_keys"]
    images = pictures((300, 90), (80, 260))
    prompts = [family.prompt(processor, text) for text in ("Red?", "이 이미지는 다음 중 어떤 유형입니까?")]
    answers = [[family.continuation(processor, prompt, text) for text in ANSWERS] for prompt in prompts]
    with torch.no_grad():
        inputs = family.encode(processor, images, prompts)
        scores = score_labels(module, family.embed(module, inputs, family.image_features(module, inputs)), answers)
        for row, image, prompt, continuations in zip(scores.logits, images, prompts, answers, strict=True):
            alone = family.encode(processor, [image], [prompt])
            for score, ids in zip(row, continuations, strict=True):
                assert score == pytest.approx(brute_force(module, alone, ids), abs=1e-4)


def brute_force(module, alone, ids):
    """Sum of log-probabilities of ``ids`` from one pass over pixels, prompt and answer, without a cache."""
    answer = torch.tensor([ids])
    whole = dict(alone, input_ids=torch.cat([alone["input_ids"], answer], dim=1))
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    # To PaliGemma an answer is a second text, to Qwen it is text like any other.
    for name, kind in (("token_type_ids", 1), ("mm_token_type_ids", 0)):
        if name in alone:
            whole[name] = torch.cat([alone[name], torch.full_like(answer, kind)], dim=1)
    logits = module(**whole).logits[0].log_softmax(-1)
    start = alone["input_ids"].shape[1] - 1
    return sum(float(logits[start + step, token]) for step, token in enumerate(ids))
