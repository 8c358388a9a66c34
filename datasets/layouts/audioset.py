"""AudioSet: `*_segments.csv` and `class_labels_indices.csv`, with clips anywhere under the folder.

A list has three lines of comment, a space after each comma, and labels as one quoted list of codes (MIDs);
ids may start with "-". Clips are the ten seconds that were cut: `{id}_{start:06d}`, `{id}_{start}`, `{id}` or
`Y{id}` with a film's or sound's ending. Training lists are split "train", whether balanced or not;
`Item.source` keeps which it was.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from datasets.manifests import Item, Listing, ManifestError, read_rows, seconds

from .files import FileIndex, clip_stems, modality_of

AUDIOSET_LISTS = "*_segments.csv"
AUDIOSET_LABELS = "class_labels_indices.csv"
AUDIOSET_SPLITS = {
    "eval": "test",
    "valid": "val",
    "val": "val",
    "balanced_train": "train",
    "unbalanced_train": "train",
}
"""By a list's name without `_segments.csv`."""


def recognises(folder: Path) -> bool:
    """Whether the folder holds such lists."""
    return any(folder.glob(AUDIOSET_LISTS))


def read(folder: Path) -> Listing:
    """Clips of all the lists; labels are MIDs, `names` what they are called, in the order of their list.

    Raises:
        ManifestError: `class_labels_indices.csv` is missing or lacks a label, or a list is of an unknown name
            or shape.
    """
    if not (folder / AUDIOSET_LABELS).is_file():
        raise ManifestError(
            f"{folder} has {AUDIOSET_LISTS} without {AUDIOSET_LABELS}, which says what labels are called; "
            "put it there"
        )
    rows = read_rows(folder / AUDIOSET_LABELS, ("mid", "display_name"))
    names = {row["mid"]: row["display_name"] for row in rows}
    index = FileIndex(folder)
    items = [item for path in sorted(folder.glob(AUDIOSET_LISTS)) for item in _segments(path, index, names)]
    return Listing.of("audioset", items, names=names, is_there=index.holds)


def _segments(path: Path, index: FileIndex, names: dict[str, str]) -> Iterator[Item]:
    source = path.name.removesuffix("_segments.csv")
    if source not in AUDIOSET_SPLITS:
        raise ManifestError(
            f"{path}: there are lists {sorted(f'{name}_segments.csv' for name in AUDIOSET_SPLITS)}"
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file, skipinitialspace=True):
            if not row or row[0].startswith("#"):
                continue
            if len(row) != 4:
                raise ManifestError(f'{path}: {row} is not id, start, end and one quoted list "mid,mid"')
            labels = tuple(row[3].split(","))
            if not names.keys() >= set(labels):
                raise ManifestError(
                    f"{path}: {row[0]} has labels {row[3]!r}, of which {AUDIOSET_LABELS} lacks some"
                )
            clip = index.find(*clip_stems(row[0], seconds(row[1], f"{path}, {row[0]}")))
            yield Item(clip, modality_of(clip), labels, AUDIOSET_SPLITS[source], source)
