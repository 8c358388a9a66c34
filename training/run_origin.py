"""What a run belongs to beside its recipe: the clips it learns from, and the weights it started from."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.manifests import Item, Listing
from datasets.shard_reader import ShardReader
from models.weights import WEIGHTS_FILE

LEARNED_SPLITS = ("train", "val")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrigin:
    """Data and starting weights of a run, by name and by content."""

    data: str
    """The folder, resolved."""
    data_sha256: str
    """Of each clip to train on or to validate by: path within the folder, labels, split, span, and size of
    its file."""
    num_clips: int
    start: str = ""
    """The folder of the checkpoint that the run started from; empty if there was none."""
    start_sha256: str = ""

    def check_same(self, before: "RunOrigin", run_dir: Path) -> None:
        """Refuse to go on with a run that belongs to something else; the same data may have moved.

        Raises:
            ValueError: the run had other data, or started from other weights.
        """
        advice = f"give this run another folder with --run, or delete {run_dir} to train anew"
        if self.data_sha256 != before.data_sha256 and self.data == before.data:
            raise ValueError(
                f"{self.data} has changed since the run in {run_dir} was started: it had {before.num_clips} "
                "clips to "
                f"train on and validate by, and has {self.num_clips} now, or their files or labels differ; "
                f"{advice}"
            )
        if self.data_sha256 != before.data_sha256:
            raise ValueError(
                f"{run_dir} holds a run on {before.data} ({before.num_clips} clips), "
                f"got {self.data} ({self.num_clips} clips); {advice}"
            )
        if self.start_sha256 != before.start_sha256:
            started, got = before.start or "no checkpoint", self.start or "no checkpoint"
            raise ValueError(f"{run_dir} holds a run that started from {started}, got {got}; {advice}")

    def to_dict(self) -> dict[str, str | int]:
        """As it stands in the state of a run."""
        return asdict(self)


def run_origin(folder: Path, data: Listing | ShardReader, start: Path | None) -> RunOrigin:
    """The origin of a run on a collection or on shards of it."""
    items = [item for item in data.items if item.split in LEARNED_SPLITS]
    is_sharded = isinstance(data, ShardReader)
    return RunOrigin(
        data=str(folder.resolve()),
        data_sha256=data.index.items_sha256 if isinstance(data, ShardReader) else _digest(items, folder),
        num_clips=len(data.items) if is_sharded else len(items),
        start=str(start.resolve()) if start else "",
        start_sha256=hashlib.sha256((start / WEIGHTS_FILE).read_bytes()).hexdigest() if start else "",
    )


def _digest(items: Iterable[Item], folder: Path) -> str:
    digest = hashlib.sha256()
    sizes: dict[Path, int] = {}
    for item in items:
        if item.path not in sizes:
            sizes[item.path] = item.path.stat().st_size
        within = item.path.relative_to(folder) if item.path.is_relative_to(folder) else item.path
        span = (item.start_seconds, item.end_seconds)
        row = (within.as_posix(), item.modality, item.labels, item.split, *span, sizes[item.path])
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()
