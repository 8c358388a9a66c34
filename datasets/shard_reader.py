"""Files in shards, read by their place: any item at any time, so that a batch can depend on its number alone.

Where each file lies is found out once, from the headers of the tar files; no media are read for that. A read
is one seek and one read of a whole file, which takes a small part of the time that decoding it does.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .manifests import Item
from .shard_index import INDEX_FILE, Shard, ShardError, ShardIndex, items_of


@dataclass(frozen=True, slots=True)
class FileLocation:
    """Where a file's bytes lie."""

    shard: str
    offset: int
    num_bytes: int


class ShardReader:
    """Items of all splits of a folder of shards, in its order, and the bytes of their files.

    Raises:
        ShardError: shards are incomplete or damaged; or, at a read, one was changed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = ShardIndex.load(self.folder)
        self.index.check_complete(self.folder)
        self.items: list[Item] = []
        self._places: dict[Path, FileLocation] = {}
        for shard in self.index.shards:
            for items, place in _files_of(self.folder, shard):
                self.items += items
                self._places[items[0].path] = place

    @property
    def left_out(self) -> dict[str, int]:
        """What shards were written without: missing items, and broken files by their error's code."""
        broken = sum((Counter(shard.broken) for shard in self.index.shards), Counter())
        return {"missing": sum(self.index.missing.values())} | {
            f"broken: {code}": n for code, n in broken.items()
        }

    def read(self, item: Item) -> bytes:
        """The whole file that an item is, or is a span of."""
        place = self._places[item.path]
        with (self.folder / place.shard).open("rb") as file:
            file.seek(place.offset)
            content = file.read(place.num_bytes)
        if len(content) < place.num_bytes:
            raise ShardError(
                f"{self.folder / place.shard} ends too early; delete it and run `zorro data shard` again"
            )
        return content


def has_shards(folder: str | Path) -> bool:
    """Whether a folder is one of shards rather than of recordings."""
    folder = Path(folder)
    return (folder / INDEX_FILE).is_file() and any(folder.glob("*.tar"))


def _files_of(folder: Path, shard: Shard) -> Iterator[tuple[list[Item], FileLocation]]:
    """Each file's items and place, in the shard's order."""
    path = folder / shard.name
    places: dict[str, FileLocation] = {}
    records: dict[str, list[Item]] = {}
    try:
        if path.stat().st_size != shard.num_bytes:
            raise ShardError(
                f"{path} has {path.stat().st_size} bytes where {shard.num_bytes} were written; write it again"
            )
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, ending = member.name.partition(".")
                if ending != "json":
                    places[key] = FileLocation(shard.name, member.offset_data, member.size)
                elif content := tar.extractfile(member):
                    records[key] = list(items_of(json.load(content)))
    except (OSError, tarfile.TarError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{path} is damaged: {error}; delete it and run `zorro data shard` again") from error
    if places.keys() != records.keys() or len(places) != shard.num_files:
        raise ShardError(
            f"{path} holds {len(places)} files where {shard.num_files} were written; delete and write it "
            "again"
        )
    for key, items in records.items():
        yield items, places[key]
