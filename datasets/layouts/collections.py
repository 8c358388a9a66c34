"""Several collections side by side, each a folder with a manifest, read as one; see `Item.collection`."""

from dataclasses import replace
from pathlib import Path

from datasets.manifests import Item, Listing, read_listing

MANIFEST = "manifest.csv"


def recognises(folder: Path) -> bool:
    """Whether folders in this one have manifests."""
    return any(folder.glob(f"*/{MANIFEST}"))


def read(folder: Path) -> Listing:
    """Items of all manifests, by the names of their folders; other folders are passed over.

    Raises:
        ManifestError: see `manifests.read_listing`.
    """
    listings = {path.parent.name: read_listing(path) for path in sorted(folder.glob(f"*/{MANIFEST}"))}
    return Listing(
        layout="collections",
        items=[_of(name, item) for name, listing in listings.items() for item in listing.items],
        missing=[_of(name, item) for name, listing in listings.items() for item in listing.missing],
    )


def _of(name: str, item: Item) -> Item:
    return replace(item, collection=name)
