"""Manifests: which files, what they show and sound like, and which split they belong to.

The layout here is a CSV with the columns path, modality (audio | image | video | both), label (several are
separated by "|"; an empty cell is none) and split, perhaps also start_seconds, end_seconds and source, and
any others. Layouts of known collections are in `datasets.layouts`.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Self


class ManifestError(ValueError):
    """A manifest is missing, lacks a column or names what does not exist."""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled file, or a labelled span of one."""

    path: Path
    modality: str
    """"audio", "video" or "both": what of it is there to learn from.

    A picture is a video that stands still.
    """
    labels: tuple[str, ...]
    """None where it is there for pre-training alone; several where the set is multi-label."""
    split: str
    source: str = ""
    start_seconds: float = 0.0
    end_seconds: float | None = None
    collection: str = ""
    """Name of the folder of its collection, where several are read as one."""

    @property
    def label(self) -> str:
        """The only label.

        Raises:
            ManifestError: there are none or several.
        """
        if len(self.labels) != 1:
            raise ManifestError(f"{self.path} has the labels {list(self.labels)} where exactly one is wanted")
        return self.labels[0]


class Spans(StrEnum):
    """What is one clip of a list that names spans of files."""

    EACH = "each"  # a span, with its own labels
    WHOLE = "whole"  # a file, with the labels of all its spans

    def of(self, items: list[Item]) -> list[Item]:
        """The clips.

        Raises:
            ManifestError: see `whole_files`.
        """
        return items if self == Spans.EACH else whole_files(items)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What a collection's lists name, and what of it is there."""

    layout: str
    items: list[Item]
    """Those whose file is there, in the list's order."""
    missing: list[Item]
    """Those whose file is not; the path is where it would be."""
    names: dict[str, str] = field(default_factory=dict)
    """What to call each label where it is a code, in the collection's own order of labels.

    Empty where labels are names.
    """

    @classmethod
    def of(
        cls,
        layout: str,
        items: Iterable[Item],
        *,
        names: dict[str, str] | None = None,
        is_there: Callable[[Path], bool] = Path.is_file,
    ) -> Self:
        """Items sorted out by whether their file is there."""
        found: dict[bool, list[Item]] = {True: [], False: []}
        for item in items:
            found[is_there(item.path)].append(item)
        return cls(layout=layout, items=found[True], missing=found[False], names=names or {})


MODALITY_OF = {"audio": "audio", "image": "video", "video": "video", "both": "both"}
MANIFEST_COLUMNS = frozenset({"path", "modality", "label", "split"})


def read_manifest(path: str | Path) -> list[Item]:
    """All items of a manifest, in its order.

    Raises:
        ManifestError: see there; the message counts what is missing.
    """
    listing = read_listing(path)
    if listing.missing:
        total = len(listing.items) + len(listing.missing)
        absent = (
            f"{len(listing.missing)} of {total} files do not exist, the first is {listing.missing[0].path}"
        )
        raise ManifestError(f"{path}: {absent}")
    return listing.items


def read_listing(path: str | Path) -> Listing:
    """What a manifest names, and what of it is missing.

    Raises:
        ManifestError: there is no manifest, it lacks a column, or a row cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"no manifest at {path}; give the folder that holds manifest.csv with --data")
    rows = read_rows(path, MANIFEST_COLUMNS)
    unknown = Counter(row["modality"] for row in rows if row["modality"] not in MODALITY_OF)
    if unknown:
        raise ManifestError(f"{path}: unknown modalities {dict(unknown)}; there are {sorted(MODALITY_OF)}")
    return Listing.of("manifest", [_item(row, path) for row in rows])


def _item(row: dict[str, str], path: Path) -> Item:
    where = f"{path}, {row['path']}"
    start, end = (row.get(column) or "" for column in ("start_seconds", "end_seconds"))
    return spanned(
        Item(
            path=path.parent / row["path"],
            modality=MODALITY_OF[row["modality"]],
            labels=tuple(label for label in row["label"].split("|") if label),
            split=row["split"],
            source=row.get("source") or "",
            start_seconds=seconds(start, where) if start else 0.0,
            end_seconds=seconds(end, where) if end else None,
        ),
        where,
    )


def read_rows(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV by its header's names.

    Raises:
        ManifestError: there are none, a column is not there, or a row is too short to have it.
    """
    wanted = sorted(columns)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not set(wanted) <= rows[0].keys():
        raise ManifestError(f"{path} needs rows with the columns {wanted}")
    for number, row in enumerate(rows, 1):
        lacking = [column for column in wanted if row[column] is None]
        if lacking:
            raise ManifestError(f"{path}: row {number} after the header ends before {lacking[0]!r}: {row}")
    return rows


def seconds(text: str, where: str) -> float:
    """A time in seconds.

    Raises:
        ManifestError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ManifestError(f"{where}: {text!r} is no time in seconds")
    return value


def spanned(item: Item, where: str) -> Item:
    """The item itself.

    Raises:
        ManifestError: its span ends before it starts.
    """
    if item.end_seconds is not None and item.end_seconds <= item.start_seconds:
        raise ManifestError(
            f"{where}: the span from {item.start_seconds:g} s to {item.end_seconds:g} s is empty"
        )
    return item


def is_unpaired(items: Iterable[Item]) -> bool:
    """Whether sounds and pictures are whole files of their own, with one label at most.

    Pairs of such files are made by label.
    """
    return all(
        item.modality != "both"
        and len(item.labels) <= 1
        and not item.start_seconds
        and item.end_seconds is None
        for item in items
    )


def whole_files(items: Iterable[Item]) -> list[Item]:
    """Each file once, from its start to its end, with the labels of all its spans in order of time.

    Raises:
        ManifestError: spans of a file are of different splits.
    """
    spans: dict[Path, list[Item]] = {}
    for item in items:
        spans.setdefault(item.path, []).append(item)
    return [_joined(sorted(of_file, key=lambda item: item.start_seconds)) for of_file in spans.values()]


def _joined(spans: list[Item]) -> Item:
    first = spans[0]
    splits, modalities, sources = (
        {getattr(x, name) for x in spans} for name in ("split", "modality", "source")
    )
    if len(splits) > 1:
        raise ManifestError(
            f"{first.path} has spans of the splits {sorted(splits)}; a file taken whole is of one split"
        )
    return replace(
        first,
        modality=first.modality if len(modalities) == 1 else "both",
        labels=tuple(dict.fromkeys(label for item in spans for label in item.labels)),
        source=first.source if len(sources) == 1 else "",
        start_seconds=0.0,
        end_seconds=None,
    )


def label_table(items: list[Item], names: Mapping[str, str] | None = None) -> list[dict[str, object]]:
    """Labels in alphabetical order, with the modalities each was learned from.

    `names` says what to call them.
    """
    names = names or {}
    modalities: dict[str, set[str]] = {}
    for item in items:
        heard_or_seen = {"audio", "video"} if item.modality == "both" else {item.modality}
        for label in item.labels:
            modalities.setdefault(label, set()).update(heard_or_seen)
    return [
        {
            "id": label,
            "label": names.get(label, label.replace("_", " ")),
            "modalities": sorted(modalities[label]),
        }
        for label in sorted(modalities)
    ]
