"""Find the checkpoint that training, export, scores and proof start from.

It is alone in its folder, or in a bundle.

Nothing of a bundle is read before its bytes are verified. Bundles of any schema are accepted, so that old
ones can be exported anew.
"""

from pathlib import Path
from typing import Any, NamedTuple

from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import WEIGHTS_FILE, CheckpointError
from runtime.bundle import CARD_FILE, CHECKPOINT_FOLDER, read_sealed
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE


class CheckpointSource(NamedTuple):
    """A checkpoint, and what its bundle says of it that no export could find out."""

    checkpoint: Path
    """Its folder."""
    card: str = ""
    metrics: dict[str, Any] | None = None
    about: dict[str, Any] | None = None
    decision: dict[str, Any] | None = None


def open_checkpoint_source(folder: Path) -> CheckpointSource:
    """The checkpoint in `folder`, which is a checkpoint's own or a bundle's.

    Raises:
        CheckpointError: it is a bundle without a checkpoint.
        BundleError: it is a bundle, and damaged.
    """
    bundle = _bundle_around(folder)
    if bundle is None:
        return CheckpointSource(folder)
    manifest = read_sealed(bundle, CHECKPOINT_FOLDER, CARD_FILE)
    needed = {f"{CHECKPOINT_FOLDER}/{name}" for name in (WEIGHTS_FILE, CHECKPOINT_FILE)}
    if not needed <= manifest["files"].keys():
        raise CheckpointError(
            f"{bundle} is a bundle without a checkpoint; give the checkpoint it was exported from, or a "
            "bundle "
            "that was exported without --no-checkpoint"
        )
    card = (bundle / CARD_FILE).read_text() if CARD_FILE in manifest["files"] else ""
    return CheckpointSource(
        bundle / CHECKPOINT_FOLDER,
        card,
        manifest.get("metrics"),
        manifest.get("about"),
        manifest.get("decision"),
    )


def _bundle_around(folder: Path) -> Path | None:
    """The bundle that `folder` is, or whose checkpoint it is."""
    if (folder / BUNDLE_FILE).is_file():
        return folder
    above = folder.resolve().parent
    return above if folder.resolve().name == CHECKPOINT_FOLDER and (above / BUNDLE_FILE).is_file() else None
