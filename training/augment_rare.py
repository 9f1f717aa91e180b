"""New pictures of a rare class for the train split: each original flipped, turned, lit, noised and blurred at random.

Every copy depends on the seed, its original's bytes and its own number only, and names its original in the column
``augmented_from``, so that no copy is taken for a picture of its own.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from torchvision.transforms import v2
from tqdm.auto import tqdm

from models.imaging import read_image
from training.errors import DataError
from training.labelled import AUGMENTED_FROM
from training.picture_table import PictureTable

LARGEST_TURN_DEG = 15
# What is true of a changed picture too. Boxes, masks, captions and claims of the original need not be.
KEPT_COLUMNS = frozenset(("label", "question", "query", "answer", "answers", "generator", "kind", "split"))


def check_rare(names: tuple[str, ...], copies: Mapping[str, int]) -> None:
    """Refuse labels that are not there, and numbers of copies that are not positive.

    Raises:
        DataError: naming the label.
    """
    for label, count in copies.items():
        if label not in names:
            raise DataError(f"--augment-rare {label}: no such label; there are {', '.join(names) or 'none'}.")
        if count < 1:
            raise DataError(f"--augment-rare {label}={count}: at least one new picture per original.")


def augment_rare(table: PictureTable, copies: Mapping[str, int], seed: int) -> PictureTable:
    """Add changed copies of the pictures of some labels behind the pictures there are.

    Args:
        table: of the train split, its labels numbered and named (see ``picture_table.unify_labels``).
        copies: label to the number of new pictures per original.
        seed: the same table, copies and seed give the same pictures.

    Returns:
        The table with the copies, compressed like their originals, and a column ``augmented_from``: SHA-256 of the
        original's bytes, empty in rows that are no copies. Copies are not copied again.

    Raises:
        DataError: if there is no such label.
        BadImageError: if a picture cannot be read.
    """
    names = tuple(table.features["label"]["names"])
    check_rare(names, copies)
    if AUGMENTED_FROM not in table.columns.column_names:
        table = table.set_column(AUGMENTED_FROM, pa.nulls(len(table), pa.string()))
    known = table.get_list(AUGMENTED_FROM)
    originals = [
        (row, copies[names[label]])
        for row, label in enumerate(table.get_list("label"))
        if names[label] in copies and not known[row]
    ]
    pictures, rows, digests = [], [], []
    for row, count in tqdm(originals, desc="augmenting", unit="img", mininterval=1.0):
        image = read_image(table.pictures[int(table.places[row])], name=table.sources[row])
        for number in range(count):
            changed = change_picture(image.rgb, f"{seed} {image.sha256} {number}")
            pictures.append(encode_like(changed, image.original))
            rows.append(row)
            digests.append(image.sha256)
    taken = table.columns.take(pa.array(rows, pa.int64()))
    marked = {AUGMENTED_FROM: pa.array(digests, pa.string())}
    columns = [
        marked.get(column.name)
        if column.name in marked
        else (taken[column.name] if column.name in KEPT_COLUMNS else pa.nulls(len(rows), column.type))
        for column in taken.schema
    ]
    first = len(table.pictures)
    return PictureTable(
        table.where,
        (*table.pictures, *pictures),
        np.concatenate([table.places, np.arange(first, first + len(rows))]),
        pa.concat_tables([table.columns, pa.Table.from_arrays(columns, schema=taken.schema)]),
        (*table.sources, *(f"{table.sources[row]}, changed" for row in rows)),
        table.features,
    )


def change_picture(picture: Image.Image, key: str) -> Image.Image:
    """One changed copy of a picture.

    It may be mirrored (every second), is turned by up to 15 degrees with its mirrored edges filling the corners (black
    ones would give the class away), made up to 25 % lighter or darker and harder or softer, and may get Gaussian noise
    (every second, a standard deviation of 0.03) and blur (every third).

    Args:
        picture: RGB, at least 8 x 8 px.
        key: the same picture and key give the same copy.

    Returns:
        A picture of the same size.
    """
    width, height = picture.size
    turn = math.sin(math.radians(LARGEST_TURN_DEG)) / 2
    margins = (min(math.ceil(turn * height) + 1, width - 1), min(math.ceil(turn * width) + 1, height - 1))
    change = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomHorizontalFlip(0.5),
            v2.Pad([*margins], padding_mode="reflect"),
            v2.RandomRotation(LARGEST_TURN_DEG, interpolation=v2.InterpolationMode.BILINEAR),
            v2.CenterCrop([height, width]),
            v2.ColorJitter(brightness=0.25, contrast=0.25),
            v2.RandomApply([v2.GaussianNoise(sigma=0.03)], 0.5),
            v2.RandomApply([v2.GaussianBlur(5, (0.3, 1.2))], 1 / 3),
            v2.ToDtype(torch.uint8, scale=True),
            v2.ToPILImage(),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
        changed: Image.Image = change(picture)
    return changed


def encode_like(picture: Image.Image, original: bytes) -> bytes:
    """A file of the picture: JPEG with the tables of a JPEG original, else PNG.

    Its compression would tell a copy, and with it the class, at a glance (see Grommelt et al. 2024, "Fake or JPEG?").
    """
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(original)) as opened:
        if isinstance(opened, JpegImageFile):
            picture.save(buffer, "JPEG", qtables=opened.quantization, subsampling=get_sampling(opened))
        else:
            picture.save(buffer, "PNG")
    return buffer.getvalue()
