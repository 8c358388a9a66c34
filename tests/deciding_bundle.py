"""Copies of a bundle whose manifest has the table `decision`."""

import json
import shutil
from pathlib import Path
from typing import Any

from export.bundle_writer import seal_bundle

MODALITIES = {"a": ["audio"], "b": ["video"], "c": ["audio", "video"], "d": ["audio"]}
"""Of the labels of a copy, unless others are given."""


def deciding_bundle(bundle: Path, folder: Path, decision: object, **labels: dict[str, Any]) -> Path:
    """A copy that decides, and of whose labels some are known by one stream alone.

    Args:
        bundle: of the labels a, b, c and d.
        folder: in which the copy is made.
        decision: the table.
        labels: by id, what is added to a label or replaced of it.
    """
    copy = Path(shutil.copytree(bundle, folder / "several" / "1"))
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["labels"] = [
        x | {"modalities": MODALITIES[x["id"]]} | labels.get(x["id"], {}) for x in manifest["labels"]
    ]
    seal_bundle(copy, manifest | {"decision": decision})
    return copy
