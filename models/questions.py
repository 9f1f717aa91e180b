"""Many questions about one image: what their prompts share is read once, the questions follow side by side in one row.

A network that reads forwards only sees the image the same way whatever is asked after it, so the image's keys and
values serve all questions. One that reads its prompt in both directions (PaliGemma) is asked in a batch instead.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from models.schema import Inputs
from models.scoring import (
    Continuations,
    LabelScores,
    additive,
    answer_table,
    label_scores,
    log_probabilities,
    next_positions,
    score_labels,
    with_positions,
)

__all__ = ["score_questions"]

_FORWARD_ONLY = frozenset({"inputs_embeds", "attention_mask", "position_ids"})
"""All that a network needs that reads forwards only; anything more (``token_type_ids``) tells it to read otherwise."""


def score_questions(module: nn.Module, prompt: Inputs, ids: Tensor, continuations: Continuations) -> LabelScores:
    """What ``score_labels`` gives, for n prompts about one image.

    Args:
        module: a causal language model of the transformers library.
        prompt: what it takes, as ``Family.embed`` gives it, padding on the left.
        ids: (n, tokens), the ids behind it; as far as all begin alike, their embeddings are alike too.
        continuations: for each prompt, each answer's token ids.
    """
    begins = (prompt["attention_mask"] == 0).sum(dim=1).tolist()
    shared = _shared(ids, begins)
    if len(begins) < 2 or not shared or not prompt.keys() <= _FORWARD_ONLY:
        return score_labels(module, prompt, continuations)
    return _Row(module, _aligned(with_positions(prompt), begins), begins, shared).scores(continuations)


class _Row:
    """The prompts of n questions as one row: what they share, then the rest of each, blind to the others.

    Args:
        module: the network.
        prompt: embeddings, mask and positions of the n prompts.
        begins: where each begins behind its padding.
        shared: how many tokens all share at their beginnings.
    """

    def __init__(self, module: nn.Module, prompt: Inputs, begins: list[int], shared: int) -> None:
        self._module = module
        self._prompt = prompt
        self._shared = shared
        self._rests = [slice(begin + shared, None) for begin in begins]
        self._front = slice(begins[0], begins[0] + shared)
        given = prompt["inputs_embeds"]
        lengths = torch.tensor([given.shape[1] - rest.start for rest in self._rests], device=given.device)
        self._owners = torch.arange(len(begins), device=given.device).repeat_interleave(lengths)
        self._lasts = [end - 1 for end in accumulate(lengths.tolist())]

    def scores(self, continuations: Continuations) -> LabelScores:
        """Log-probabilities of each question's answers."""
        table, lengths = answer_table(continuations, self._owners.device)
        cache = DynamicCache()
        given, places = self._prompt["inputs_embeds"], self._prompt["position_ids"]
        self._run(cache, given[:1, self._front], places[..., :1, self._front], None)
        logits = self._run(
            cache,
            torch.cat([given[row, rest] for row, rest in enumerate(self._rests)])[None],
            torch.cat([places[..., row, rest] for row, rest in enumerate(self._rests)], dim=-1)[..., None, :],
            self._sees(self._owners, torch.zeros_like(self._owners)),
        )
        per_token = log_probabilities(logits[0, self._lasts], table[:, :, 0])[:, :, None]
        if table.shape[2] > 1:
            per_token = torch.cat([per_token, self._later(cache, table)], dim=2)
        return label_scores(per_token, lengths)

    def _later(self, cache: DynamicCache, table: Tensor) -> Tensor:
        """(n, answers, longest - 1): log P of every token of every answer but its first."""
        count, answers, longest = table.shape
        given = longest - 1
        steps = torch.arange(given, device=table.device).repeat(answers)
        places = next_positions(self._prompt, steps)
        owners = torch.arange(count, device=table.device).repeat_interleave(answers * given)
        own = torch.arange(1, count * answers + 1, device=table.device).repeat_interleave(given)
        logits = self._run(
            cache,
            self._module.get_input_embeddings()(table[:, :, :-1].reshape(1, -1)),  # type: ignore[operator]
            places.flatten(-2)[..., None, :],
            self._sees(owners, own),
        )
        wanted = table[:, :, 1:].reshape(1, -1, 1)
        return log_probabilities(logits, wanted).reshape(count, answers, given)

    def _sees(self, owners: Tensor, answers: Tensor) -> Tensor:
        """Mask (tokens, past + tokens): a token sees what all share, its own question before it, its own answer."""
        within = (owners[:, None] == owners) & (answers[:, None] == answers)
        within &= torch.ones_like(within).tril()
        front = torch.ones(len(owners), self._shared, dtype=torch.bool, device=owners.device)
        # The questions themselves lie in the cache by the time that answers run.
        before = [owners[:, None] == self._owners] if bool(answers.any()) else []
        return additive(torch.cat([front, *before, within], dim=1), self._prompt["inputs_embeds"].dtype)

    def _run(self, cache: DynamicCache, given: Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """Logits (1, tokens, words) of tokens that go on from the cache; of the last one where all see all before."""
        seen = given.new_ones(1, given.shape[1], dtype=torch.long) if mask is None else mask[None, None]
        outputs = self._module(
            inputs_embeds=given,
            attention_mask=seen,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1 if mask is None else given.shape[1],
        )
        logits: Tensor = outputs.logits
        return logits


def _aligned(prompt: Inputs, begins: list[int]) -> Inputs:
    """The same inputs with all prompts at the place of the first, as positions may count the padding in front."""
    places = prompt["position_ids"]
    starts = torch.stack([places[..., row, begin] for row, begin in enumerate(begins)], dim=-1)
    return prompt | {"position_ids": places - (starts - starts[..., :1])[..., None]}


def _shared(ids: Tensor, begins: list[int]) -> int:
    """How many tokens all rows share at their beginnings; every row keeps at least one of its own."""
    rows = [row[begin:] for row, begin in zip(ids, begins, strict=True)]
    shortest = min(map(len, rows))
    alike = torch.stack([row[:shortest] == rows[0][:shortest] for row in rows]).all(dim=0)
    return min(int(alike.long().cumprod(dim=0).sum()), shortest - 1)
