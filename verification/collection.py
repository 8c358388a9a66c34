"""The clips of a collection's split, as a model was trained on such."""

from dataclasses import replace
from pathlib import Path

from datasets.layouts import read_items
from datasets.manifests import Item, Listing, Spans


def read_split(data: Path, split: str, spans: Spans) -> tuple[Listing, list[Item]]:
    """A collection's listing with its clips as `spans` says, and those of one split.

    Raises:
        ValueError: the collection has no such split.
    """
    listing = read_items(data)
    listing = replace(listing, items=spans.of(listing.items))
    items = [item for item in listing.items if item.split == split]
    if not items:
        splits = sorted({item.split for item in listing.items})
        raise ValueError(f"{data} has no split {split!r}; there are {', '.join(splits)}")
    return listing, items
