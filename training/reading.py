"""Where words stand in pictures, and the loss by which every patch of a transformer learns to read.

Whether a chat is about a deal is one bit per picture, hidden in its words; which word it shows is nine bits per patch.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.decoding import decode_each
from training.errors import DataError

COLUMNS = ("word_ids", "words")
VOCABULARY = 1023  # words told apart; 0 is no word, or any other


def read_word_ids(file: Path, rows: Sequence[int], side: int) -> Tensor:
    """Which of the most frequent words of a file each pixel shows, stretched to the pictures' size.

    Args:
        file: has columns ``word_ids`` (PNG bytes, in a struct with ``bytes``: per pixel a place in ``words``, from 1)
            and ``words`` (as written), as ``python -m training scenes`` writes them.
        rows: their numbers.
        side: of the pictures in pixels.

    Returns:
        uint8 (n, 2, side, side), the higher and the lower byte of numbers that go from 1 by how often these rows have a
        word, whatever its case and punctuation.

    Raises:
        DataError: if the file has no such columns, or one cannot be read.
    """
    if missing := set(COLUMNS) - set(pq.read_schema(file).names):
        raise DataError(f"{file.name}: word_weight needs a column {min(missing)}, as python -m training scenes writes.")
    table = pq.read_table(file, columns=list(COLUMNS)).take(list(rows))
    lists = table["words"].to_pylist()
    if None in lists:  # of a set that was made before, or a changed copy: taking it for wordless would teach a lie
        raise DataError(f"{file.name} row {rows[lists.index(None)]}: its words are not known.")
    written = [[_plain(word) for word in words] for words in lists]
    counts = Counter(word for words in written for word in words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[:VOCABULARY]
    numbers = {word: number for number, word in enumerate(ranked, 1)}
    nothing = np.zeros((2, side, side), np.uint8)

    def decode(place: int) -> NDArray[np.uint8]:
        words = written[place]
        if not words:
            return nothing
        number_of = np.zeros(256, np.int64)
        number_of[1 : len(words) + 1] = [numbers.get(word, 0) for word in words]
        try:
            encoded = table["word_ids"][place].as_py()["bytes"]
            ids = Image.open(io.BytesIO(encoded)).resize((side, side), Image.Resampling.NEAREST)
        except (OSError, TypeError, KeyError) as error:
            raise DataError(f"{file.name} row {rows[place]}: its word_ids cannot be read: {error}") from error
        return np.stack(np.divmod(number_of[np.asarray(ids)], 256)).astype(np.uint8)

    maps = torch.empty(len(rows), 2, side, side, dtype=torch.uint8)
    for place, one in enumerate(decode_each(len(rows), decode, "words")):
        maps[place] = torch.from_numpy(one)
    return maps


def _plain(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def reading_loss(patch_logits: Tensor, word_bytes: Tensor) -> Tensor:
    """Cross-entropy of every patch with the words it shows, by the share of its pixels that each word covers.

    Args:
        patch_logits: float32 (n, prefix + patches, words + 1), first "no word"; the patches are a square grid.
        word_bytes: float32 (n, 2, side, side), bytes of ``read_word_ids`` over 255; what lies beyond the last whole
            patch is left out, as the transformer leaves it out.

    Returns:
        Scalar, the mean over all pixels.
    """
    grid = int(patch_logits.shape[1] ** 0.5)
    count, _, side, _ = word_bytes.shape
    patch = side // grid
    high, low = word_bytes[..., : grid * patch, : grid * patch].mul(255).round().long().unbind(1)
    shown = (256 * high + low).view(count, grid, patch, grid, patch).transpose(2, 3).reshape(count, grid * grid, -1)
    chances = patch_logits[:, -grid * grid :].float().log_softmax(-1)
    return -chances.gather(-1, shown).mean()
