"""What training, export and proof start from: a checkpoint, alone in its folder or in a bundle that holds one.

Of a bundle nothing is read before its bytes are verified. Its schema may be any, so that an old bundle can be
exported anew.
"""

from pathlib import Path
from typing import Any, NamedTuple

from models.weights import MANIFEST_FILE as CHECKPOINT_FILE
from models.weights import WEIGHTS_FILE, CheckpointError
from runtime.bundle import CARD_FILE, CHECKPOINT_FOLDER, read_sealed
from runtime.bundle import MANIFEST_FILE as BUNDLE_FILE


class Origin(NamedTuple):
    """A checkpoint, and what its bundle says of it that no export could find out."""

    checkpoint: Path
    """Its folder."""
    card: str = ""
    metrics: dict[str, Any] | None = None
    about: dict[str, Any] | None = None


def open_origin(target: Path) -> Origin:
    """The checkpoint that `target` is, or holds if it is a bundle.

    Raises:
        CheckpointError: it is a bundle without a checkpoint.
        BundleError: it is a bundle, and damaged.
    """
    bundle = _bundle_of(target)
    if bundle is None:
        return Origin(target)
    manifest = read_sealed(bundle, CHECKPOINT_FOLDER, CARD_FILE)
    if (
        not {f"{CHECKPOINT_FOLDER}/{name}" for name in (WEIGHTS_FILE, CHECKPOINT_FILE)}
        <= manifest["files"].keys()
    ):
        raise CheckpointError(
            f"{bundle} is a bundle without a checkpoint; give the checkpoint it was exported from, or a bundle that was "
            "exported without --no-checkpoint"
        )
    card = (bundle / CARD_FILE).read_text() if CARD_FILE in manifest["files"] else ""
    return Origin(bundle / CHECKPOINT_FOLDER, card, manifest.get("metrics"), manifest.get("about"))


def _bundle_of(target: Path) -> Path | None:
    """The bundle that `target` is, or whose checkpoint it is."""
    if (target / BUNDLE_FILE).is_file():
        return target
    above = target.resolve().parent
    return above if target.resolve().name == CHECKPOINT_FOLDER and (above / BUNDLE_FILE).is_file() else None
