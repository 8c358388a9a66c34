"""Layouts of known collections on disk; `read_items(folder)` finds out which one a folder has.

Each module has `recognises(folder)`, which looks at file names and headers, and `read(folder)`, whose further
arguments are choices of that collection. Clips that a list names and that are not there are kept as
`Listing.missing`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from datasets.manifests import Listing, ManifestError, read_listing

from . import audioset, collections, esc50, folders, grid, kinetics, vggsound

__all__ = ["LAYOUTS", "Layout", "read_items"]


class Layout(NamedTuple):
    """One way to lay out a collection."""

    name: str
    marks: str
    """By what it is recognised."""
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Listing]


LAYOUTS = (
    Layout(
        "manifest",
        "manifest.csv",
        lambda folder: (folder / "manifest.csv").is_file(),
        lambda folder: read_listing(folder / "manifest.csv"),
    ),
    Layout("collections", "folders that each have a manifest.csv", collections.recognises, collections.read),
    Layout("audioset", "*_segments.csv and class_labels_indices.csv", audioset.recognises, audioset.read),
    Layout("vggsound", "vggsound.csv", vggsound.recognises, vggsound.read),
    Layout("kinetics", "CSVs with youtube_id,time_start,time_end,split", kinetics.recognises, kinetics.read),
    Layout("esc50", "meta/esc50.csv", esc50.recognises, esc50.read),
    Layout("grid", "sentences.csv and words.csv", grid.recognises, grid.read),
    Layout("folders", "media files in LABEL/ or {train,val,test}/LABEL/", folders.recognises, folders.read),
)
"""In order of precedence: one's own manifest goes before a collection's lists, and lists before plain
folders."""


def read_items(folder: str | Path) -> Listing:
    """Items of a folder, by whichever layout it has.

    Raises:
        ManifestError: it has none of `LAYOUTS`, or its lists are not as they should be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ManifestError(f"no folder at {folder}")
    for layout in LAYOUTS:
        if layout.recognises(folder):
            return layout.read(folder)
    known = "; ".join(f"{layout.name}: {layout.marks}" for layout in LAYOUTS)
    raise ManifestError(f"{folder} has no layout that is known here. There are {known}")
