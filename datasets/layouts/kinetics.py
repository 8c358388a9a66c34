"""Kinetics-400: clips listed in one CSV or several, here or in `annotations/`.

The columns are `label,youtube_id,time_start,time_end,split,is_cc`.

Clips are called `{id}_{start:06d}_{end:06d}.mp4` and lie anywhere under the folder, often in folders by
label. The official "validate" is split "val"; lists of a test split may have no labels.
"""

from collections.abc import Iterator
from pathlib import Path

from datasets.manifests import Item, Listing, ManifestError, read_rows, seconds

from .files import FileIndex, modality_of

KINETICS_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
KINETICS_SPLITS = {"train": "train", "validate": "val", "validation": "val", "val": "val", "test": "test"}


def recognises(folder: Path) -> bool:
    """Whether there are such lists."""
    return bool(_lists(folder))


def read(folder: Path) -> Listing:
    """All clips of the lists, each once if several name it.

    Raises:
        ManifestError: a split or a time is none.
    """
    index = FileIndex(folder)
    items = dict.fromkeys(item for path in _lists(folder) for item in _clips(path, index))
    return Listing.of("kinetics", items, is_there=index.holds)


def _lists(folder: Path) -> list[Path]:
    paths = sorted([*folder.glob("*.csv"), *folder.glob("annotations/*.csv")])
    return [path for path in paths if _header(path) >= set(KINETICS_COLUMNS)]


def _header(path: Path) -> set[str]:
    with path.open(encoding="utf-8-sig") as file:
        return set(file.readline().strip().split(","))


def _clips(path: Path, index: FileIndex) -> Iterator[Item]:
    for row in read_rows(path, KINETICS_COLUMNS):
        where = f"{path}, {row['youtube_id']}"
        if row["split"] not in KINETICS_SPLITS:
            raise ManifestError(
                f"{where}: unknown split {row['split']!r}; there are {sorted(KINETICS_SPLITS)}"
            )
        start, end = (round(seconds(row[column], where)) for column in ("time_start", "time_end"))
        clip = index.find(f"{row['youtube_id']}_{start:06d}_{end:06d}")
        label = row.get("label") or ""
        yield Item(clip, modality_of(clip), (label,) if label else (), KINETICS_SPLITS[row["split"]])
