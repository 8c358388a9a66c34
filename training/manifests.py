"""Manifests: which files, what they show and sound like, and which split they belong to.

The layout here is a CSV with the columns path, modality (audio | image | video), label, split, and any others.
"""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


class ManifestError(ValueError):
    """A manifest is missing, lacks a column or names what does not exist."""


@dataclass(frozen=True, slots=True)
class Item:
    """One labelled file."""

    path: Path
    modality: str
    """"audio" or "video"; a picture is a video that stands still."""
    label: str
    split: str
    source: str


MODALITY_OF = {"audio": "audio", "image": "video", "video": "video"}


def read_manifest(path: str | Path) -> list[Item]:
    """All items of a manifest, in its order.

    Raises:
        ManifestError: see there; the message counts what is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"no manifest at {path}; give the folder that holds manifest.csv with --data")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = {"path", "modality", "label", "split"}
    if not rows or not wanted <= rows[0].keys():
        raise ManifestError(f"{path} needs rows with the columns {sorted(wanted)}")
    unknown = Counter(row["modality"] for row in rows if row["modality"] not in MODALITY_OF)
    if unknown:
        raise ManifestError(f"{path}: unknown modalities {dict(unknown)}; there are {sorted(MODALITY_OF)}")
    items = [
        Item(path.parent / r["path"], MODALITY_OF[r["modality"]], r["label"], r["split"], r.get("source", ""))
        for r in rows
    ]
    absent = [item.path for item in items if not item.path.is_file()]
    if absent:
        raise ManifestError(f"{path}: {len(absent)} of {len(items)} files do not exist, the first is {absent[0]}")
    return items


def label_table(items: list[Item]) -> list[dict[str, object]]:
    """Labels in alphabetical order, with the modalities each was learned from."""
    modalities: dict[str, set[str]] = {}
    for item in items:
        modalities.setdefault(item.label, set()).add(item.modality)
    return [
        {"id": label, "label": label.replace("_", " "), "modalities": sorted(modalities[label])}
        for label in sorted(modalities)
    ]
