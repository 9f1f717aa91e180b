"""How probable each answer is after an image and a question: one pass over the prompt, one short pass over the answers.

The prompt's keys and values are computed once. All answers then run in a single row behind them, each blind to the
others, so that nothing is copied per answer; an answer of one token needs no second pass at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from models.schema import Inputs

__all__ = [
    "Continuations",
    "LabelScores",
    "additive",
    "answer_table",
    "label_scores",
    "log_probabilities",
    "next_positions",
    "score_labels",
    "with_positions",
]

Continuations = Sequence[Sequence[tuple[int, ...]]]
"""For each of n prompts, the token ids by which each answer continues it."""


class LabelScores(NamedTuple):
    """What ``score_labels`` found for n prompts with the same number of answers; in the graph of the pass.

    Attributes:
        logits: float32 (n, answers), log P(answer | image, question), summed over the answer's tokens.
        per_token: float32 (n, answers, longest), log P of each token after those before it; 0 beyond an answer's end.
        lengths: int (n, answers), tokens of each answer.
        questions: the n questions as they stood in the prompts, where the caller knows them.
    """

    logits: Tensor
    per_token: Tensor
    lengths: Tensor
    questions: tuple[str, ...] = ()

    @property
    def mean(self) -> Tensor:
        """float32 (n, answers), log-probability per token, which does not favour short answers."""
        return self.logits / self.lengths


def score_labels(module: nn.Module, prompt: Inputs, continuations: Continuations) -> LabelScores:
    """Log-probabilities of answers, with gradients as the caller set them.

    Args:
        module: a causal language model of the transformers library.
        prompt: what it takes for n prompts, as ``Family.embed`` gives it; ``attention_mask`` (n, tokens) among it,
            padding on the left.
        continuations: for each prompt, each answer's token ids.

    Returns:
        Scores equal to those of n x answers passes over whole sequences.
    """
    prompt = with_positions(prompt)
    device = prompt["attention_mask"].device
    ids, lengths = answer_table(continuations, device)
    several = ids.shape[2] > 1
    # A plain cache keeps every key, whatever window a layer looks through.
    cache = DynamicCache() if several else None
    outputs = module(**prompt, past_key_values=cache, use_cache=several, logits_to_keep=1)
    per_token = log_probabilities(outputs.logits[:, -1], ids[:, :, 0])[:, :, None]
    if several:
        later = _later_tokens(module, prompt, outputs.past_key_values, ids)
        per_token = torch.cat([per_token, later], dim=2)
    return label_scores(per_token, lengths)


def label_scores(per_token: Tensor, lengths: Tensor) -> LabelScores:
    """Scores from log-probabilities (n, answers, longest), whose values beyond an answer's end are dropped."""
    valid = torch.arange(per_token.shape[2], device=lengths.device) < lengths[:, :, None]
    per_token = torch.where(valid, per_token, torch.zeros_like(per_token))
    return LabelScores(per_token.sum(dim=2), per_token, lengths)


def with_positions(prompt: Inputs) -> Inputs:
    """The same inputs with ``position_ids``: said outright, no model can guess them from an earlier call's state."""
    if "position_ids" in prompt:
        return prompt
    positions = (prompt["attention_mask"].long().cumsum(dim=-1) - 1).clamp(min=0)
    return prompt | {"position_ids": positions}


def next_positions(prompt: Inputs, offsets: Tensor) -> Tensor:
    """Position ids of tokens that follow each prompt.

    Args:
        prompt: with ``position_ids`` (n, tokens), or (axes, n, tokens) where positions have several axes; text after
            the prompt goes on from the largest of them on all axes.
        offsets: int (k,), how far behind the prompt each token stands, from 0.

    Returns:
        (n, k), or (axes, n, k).
    """
    positions = prompt["position_ids"]
    last = positions.amax(dim=-1)
    following = (last if last.ndim == 1 else last.amax(dim=0))[:, None] + 1 + offsets
    return following if positions.ndim == 2 else following.expand(positions.shape[0], -1, -1)


def answer_table(continuations: Continuations, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (n, answers, longest) filled up with 0, and lengths (n, answers)."""
    longest = max(len(ids) for row in continuations for ids in row)
    rows = [[[*ids, *[0] * (longest - len(ids))] for ids in row] for row in continuations]
    lengths = [[len(ids) for ids in row] for row in continuations]
    return torch.tensor(rows, device=device), torch.tensor(lengths, device=device)


def _later_tokens(module: nn.Module, prompt: Inputs, cache: Any, ids: Tensor) -> Tensor:  # noqa: ANN401
    """(n, answers, longest - 1): log P of every token of every answer but its first."""
    count, answers, longest = ids.shape
    given = longest - 1
    steps = torch.arange(given, device=ids.device)
    outputs = module(
        input_ids=ids[:, :, :-1].reshape(count, answers * given),
        position_ids=next_positions(prompt, steps.repeat(answers)),
        attention_mask=_blind_to_others(prompt["attention_mask"], answers, given, prompt["inputs_embeds"].dtype),
        past_key_values=cache,
        use_cache=True,
    )
    wanted = ids[:, :, 1:].reshape(count, answers * given, 1)
    return log_probabilities(outputs.logits, wanted).reshape(count, answers, given)


def _blind_to_others(seen: Tensor, answers: int, given: int, dtype: torch.dtype) -> Tensor:
    """An additive mask (n, 1, answers * given, tokens + answers * given).

    Each token sees its prompt without the padding, the tokens before it in its own answer, and itself.
    """
    count, row = len(seen), answers * given
    owner = torch.arange(answers, device=seen.device).repeat_interleave(given)
    among = (owner[:, None] == owner) & torch.ones(row, row, dtype=torch.bool, device=seen.device).tril()
    allowed = torch.cat([seen.bool()[:, None].expand(count, row, -1), among.expand(count, row, row)], dim=2)
    return additive(allowed, dtype)[:, None]


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to be added to attention scores, from one that says what is seen."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)


def log_probabilities(logits: Tensor, ids: Tensor) -> Tensor:
    """(..., k): log P of ``ids`` (..., k) under ``logits`` (..., words)."""
    logits = logits.float()
    return logits.gather(-1, ids) - logits.logsumexp(dim=-1, keepdim=True)
