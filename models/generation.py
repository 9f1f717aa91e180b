"""Free text, token by token: greedy, so that the same question always gets the same answer.

The loop is our own because it must begin from image features that were computed once, end at a word, a budget or a
person's wish, and let other requests in between two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from models.schema import Inputs
from models.scoring import next_positions, with_positions

__all__ = ["cut_at", "end_tokens", "generate_ids"]

_HALF_A_LETTER = "�"


def generate_ids(
    module: nn.Module,
    prompt: Callable[[], Inputs],
    *,
    end: frozenset[int],
    max_new_tokens: int,
    turn: Callable[[], AbstractContextManager[None]],
) -> Iterator[list[int | None]]:
    """The most probable continuation of n prompts, one token at a time.

    Args:
        module: a causal language model of the transformers library.
        prompt: makes its inputs, as ``Family.embed`` gives them; called within the first turn.
        end: ids after which a text is over; they are not yielded.
        max_new_tokens: tokens at most.
        turn: entered around every pass, with the model locked and made ready.

    Yields:
        For each prompt the next id, ``None`` where its text is over; stops when all are.
    """
    cache = DynamicCache()
    with turn(), torch.no_grad():
        given = with_positions(prompt())
        seen = given["attention_mask"]
        outputs = module(**given, past_key_values=cache, use_cache=True, logits_to_keep=1)
    over = torch.zeros(len(seen), dtype=torch.bool, device=seen.device)
    ends = torch.tensor(sorted(end), device=seen.device)
    for step in range(max_new_tokens):
        chosen = outputs.logits[:, -1].argmax(dim=-1)
        over |= torch.isin(chosen, ends)
        if bool(over.all()):
            return
        yield [None if done else int(one) for one, done in zip(chosen.tolist(), over.tolist(), strict=True)]
        if step + 1 == max_new_tokens:
            return
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
        with turn(), torch.no_grad():
            outputs = module(
                input_ids=chosen[:, None],
                position_ids=next_positions(given, torch.tensor([step], device=seen.device)),
                attention_mask=seen,
                past_key_values=outputs.past_key_values,
                use_cache=True,
            )


def end_tokens(module: nn.Module, tokenizer: Any) -> frozenset[int]:  # noqa: ANN401
    """Ids that end an answer: those of the generation settings, else of the tokenizer."""
    stated = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    stated = tokenizer.eos_token_id if stated is None else stated
    return frozenset(stated if isinstance(stated, list | tuple) else [] if stated is None else [stated])


def cut_at(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of ``stops``, without half a letter at its end, and whether a stop was met."""
    found = [text.index(stop) for stop in stops if stop and stop in text]
    return (text[: min(found)], True) if found else (text.rstrip(_HALF_A_LETTER), False)
