"""VGGSound: `vggsound.csv` without a header, with clips anywhere under the folder.

The columns are id, start second, label and split.

Clips are the ten seconds that were cut: `{id}_{start:06d}`, `{id}_{start}` or `{id}` with a film's or sound's
ending.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from datasets.manifests import Item, Listing, ManifestError, seconds

from .files import FileIndex, clip_stems, modality_of

VGGSOUND_LIST = "vggsound.csv"
VGGSOUND_SPLITS = ("train", "test")


def recognises(folder: Path) -> bool:
    """Whether the folder holds the list."""
    return (folder / VGGSOUND_LIST).is_file()


def read(folder: Path) -> Listing:
    """All clips of the list; a label is its name, commas and all.

    Raises:
        ManifestError: a row is not id, start second, label, train or test.
    """
    index = FileIndex(folder)
    return Listing.of("vggsound", _clips(folder / VGGSOUND_LIST, index), is_there=index.holds)


def _clips(path: Path, index: FileIndex) -> Iterator[Item]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            if not row:
                continue
            if len(row) != 4 or row[3] not in VGGSOUND_SPLITS:
                raise ManifestError(
                    f"{path}: {row} is not id, start second, label, and one of {VGGSOUND_SPLITS}; it has no "
                    "header"
                )
            video_id, start, label, split = row
            clip = index.find(*clip_stems(video_id, seconds(start, f"{path}, {video_id}")))
            yield Item(clip, modality_of(clip), (label,), split)
