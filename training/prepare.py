"""Split a data set so that no picture, and no near copy of it, stands on two sides.

Pictures that are copies of each other, near copies, augmented from one original, or that share a column named by the
caller form a group; whole groups are dealt to the splits. All columns of the source are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.augment_rare import augment_rare, check_rare
from training.duplicates import Fingerprints, find_copies, fingerprint, group_duplicates
from training.errors import DataError
from training.labelled import AUGMENTED_FROM
from training.layouts import Source, is_hub, read_table
from training.picture_table import (
    ANSWER_COLUMNS,
    QUESTION_COLUMNS,
    PictureTable,
    join_tables,
    unify_labels,
    write_table,
    write_text,
)
from training.split_plot import ADDED, save_counts
from training.splitting import SPLIT_NAMES, SplitSizes, deal_groups, hash_split

USUAL_SIZES = SplitSizes(shares=(0.7, 0.15, 0.15))
MOST_CLASSES = 20  # answers of a question are labels too where they are so few
ROWS_PER_CLASS = 4
NO_LABEL = "(all)"


@dataclass(frozen=True)
class Prepared:
    """What ``prepare`` wrote.

    Attributes:
        folder: where the parquet files, ``counts.png`` and ``split.json`` stand.
        summary: the content of ``split.json``.
    """

    folder: Path
    summary: dict[str, Any]


def prepare(
    sources: Sequence[Source],
    out: Path,
    *,
    sizes: SplitSizes = USUAL_SIZES,
    seed: int = 0,
    against: Sequence[Source] = (),
    names: Sequence[str] | None = None,
    stratify: str | None = None,
    group: str | None = None,
    augment: Mapping[str, int] | None = None,
) -> Prepared:
    """Write ``train``, ``validation`` and ``test`` parquet files, ``counts.png`` and ``split.json`` into a new folder.

    Args:
        sources: data sets in any layout of ``training.layouts``, read as one.
        out: folder to create; it must not hold a split yet.
        sizes: of the splits, in pictures; a picture's questions stay with it.
        seed: deals the groups and changes copies; the same pictures, sizes and seed give the same split.
        against: held-out sets; pictures of ``sources`` that duplicate one of theirs are left out.
        names: label names for numbered labels without names.
        stratify: column whose values are spread alike; the label, or few answers, when not given.
        group: column whose equal values stay together, for instance the video a frame is from.
        augment: label to the number of changed copies of each of its pictures, added to the train split.

    Returns:
        The folder and the content of ``split.json``.

    Raises:
        DataError: if a source cannot be used, the sizes do not fit, a column is missing, or ``out`` holds a split.
    """
    if (out / "split.json").exists():
        raise DataError(f"{out}: holds a split already; give another --out or remove it.")
    table = _name_classes(join_tables([read_table(source) for source in sources], names), names)
    label_names = tuple((table.features.get("label") or {}).get("names") or ())
    check_rare(label_names, augment or {})
    stratify = stratify or ("label" if label_names else None)
    for column in (stratify, group):
        if column:
            table.find_column((column,))
    table, prints, unreadable = fingerprint(table, "hashing")
    table, prints, dropped = _drop_held_out(table, prints, against)
    groups = group_duplicates(prints, _find_keys(table, group))
    strata = _name_strata(table, stratify)
    there = set(strata)
    names_there = [name for name in label_names if name in there] if stratify == "label" else sorted(there)
    labels = [names_there.index(stratum) for stratum in strata]
    split = deal_groups(groups, labels, sizes.share_out(np.bincount(labels)), seed)
    parts = _cut_parts(table, split, augment or {}, seed)
    out.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        write_table(part, out / f"{name}.parquet")
    counts = _count_strata(strata, names_there, parts, stratify)
    summary = {
        "schema_version": 2,
        "sources": [name_source(source) for source in sources],
        "against": [name_source(source) for source in against],
        "seed": seed,
        "sizes": list(sizes.shares or sizes.counts),
        "stratified_by": stratify,
        "grouped_by": group,
        "label_names": list(label_names),
        **_summarise(table, groups, split, parts, counts),
        "unreadable": unreadable,
        "dropped_as_held_out": dropped,
        "split_sha256": hash_split(prints.sha256, split),
    }
    save_counts(counts, out / "counts.png")
    # Last, so that a folder with split.json is a finished split.
    (out / "split.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Prepared(out, summary)


def name_source(source: Source) -> str:
    """What to call a source in files that may be shown: without the folders above it."""
    return str(source) if is_hub(source) else Path(source).name


def _name_classes(table: PictureTable, names: Sequence[str] | None) -> PictureTable:
    """The table with its labels numbered and named. Answers in a column ``label`` are labels too if they are few."""
    columns = table.columns.column_names
    if "label" not in columns:
        return table
    if any(name in columns for name in QUESTION_COLUMNS) and table.find_column(ANSWER_COLUMNS) == "label":
        answers = [write_text(value) for value in table.get_list("label")]
        if len(set(answers)) > min(MOST_CLASSES, len(answers) // ROWS_PER_CLASS):
            return table
        table = table.set_column("answer", pa.array(answers, pa.string()))
        if not (names or (table.features.get("label") or {}).get("names")):
            names = sorted({answer for answer in answers if answer is not None})
            numbers = [None if answer is None else names.index(answer) for answer in answers]
            table = table.set_column("label", pa.array(numbers, pa.int64()))
    return unify_labels([table], names)[0]


def _drop_held_out(
    table: PictureTable, prints: Fingerprints, against: Sequence[Source]
) -> tuple[PictureTable, Fingerprints, list[str]]:
    """Without copies of the pictures of other sets; and where the copies came from."""
    if not against:
        return table, prints, []
    held_out = join_tables([_without_labels(read_table(source)) for source in against])
    copies = find_copies(prints, fingerprint(held_out, "hashing held-out")[1])
    keep = np.flatnonzero(~copies)
    if not len(keep):
        raise DataError("every picture is a copy of a held-out one; nothing is left to split.")
    left_out = table.take(np.flatnonzero(copies).tolist())
    return table.take(keep.tolist()), prints.take(keep), list(left_out.sources)


def _without_labels(table: PictureTable) -> PictureTable:
    """Only the pictures matter, whatever is said about them."""
    columns = pa.table({"row": np.arange(len(table))})
    return PictureTable(table.where, table.pictures, table.places, columns, table.sources)


def _find_keys(table: PictureTable, group: str | None) -> list[tuple[int, str]]:
    """What pictures have in common by columns: the original they were made from, and the caller's choice."""
    keys: list[tuple[int, str]] = []
    for column in (AUGMENTED_FROM, group):
        if column and column in table.columns.column_names:
            # An original's SHA-256 is a key of the original itself.
            prefix = "" if column == AUGMENTED_FROM else f"{column}="
            values = [write_text(value) for value in table.get_list(column)]
            keys += [
                (place, prefix + value)
                for place, value in zip(table.places.tolist(), values, strict=True)
                if value is not None
            ]
    return keys


def _name_strata(table: PictureTable, column: str | None) -> list[str]:
    """What each picture counts as: the value in its first row."""
    if column is None:
        return [NO_LABEL] * len(table.pictures)
    names = (table.features.get(column) or {}).get("names")
    found = dict(zip(reversed(table.places.tolist()), reversed(table.get_list(column)), strict=True))
    return [
        names[found[place]] if names else write_text(found[place]) or "(none)" for place in range(len(table.pictures))
    ]


def _cut_parts(
    table: PictureTable, split: NDArray[np.int64], augment: Mapping[str, int], seed: int
) -> dict[str, PictureTable]:
    """The table of each split that has pictures, copies added to the train split and taken out of the others."""
    changed = _find_changed(table)
    parts: dict[str, PictureTable] = {}
    for index, name in enumerate(SPLIT_NAMES):
        members = np.flatnonzero(split == index).tolist()
        if name != "train":  # a changed copy is nothing to measure on
            members = [one for one in members if one not in changed]
        if not members:
            continue
        part = table.take(members)
        parts[name] = augment_rare(part, augment, seed) if augment and name == "train" else part
    return parts


def _find_changed(table: PictureTable) -> set[int]:
    """The pictures that are changed copies of others."""
    if AUGMENTED_FROM not in table.columns.column_names:
        return set()
    return {place for place, mark in zip(table.places.tolist(), table.get_list(AUGMENTED_FROM), strict=True) if mark}


def _count_strata(
    strata: Sequence[str], names: Sequence[str], parts: Mapping[str, PictureTable], column: str | None
) -> dict[str, dict[str, int]]:
    """Pictures by stratum before, and in each split after; changed copies by themselves."""
    before = Counter(strata)
    counts = {name: {"all": before[name]} for name in names}
    for split, part in parts.items():
        changed = _find_changed(part)
        found = Counter((name, place in changed) for place, name in enumerate(_name_strata(part, column)))
        for name in names:
            counts[name][split] = found[name, False]
            if found[name, True]:
                counts[name][ADDED] = found[name, True]
    return counts


def _summarise(
    table: PictureTable,
    groups: NDArray[np.int32],
    split: NDArray[np.int64],
    parts: Mapping[str, PictureTable],
    counts: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    repeated = [int(size) for size in np.bincount(groups) if size > 1]
    return {
        "pictures": len(table.pictures),
        "rows": len(table),
        "groups_of_duplicates": len(repeated),
        "pictures_in_such_groups": sum(repeated),
        "unused": int((split >= len(SPLIT_NAMES)).sum()),
        "splits": {
            name: {
                "pictures": len(part.pictures),
                "rows": len(part),
                "labels": {label: row[name] for label, row in sorted(counts.items()) if row[name]},
            }
            for name, part in parts.items()
        },
        "counts": counts,
    }
