"""What `index.json` of a folder of shards says.

It says which shards there are, of which split, and what was left out of them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from .manifests import Item

INDEX_FILE = "index.json"


class ShardError(ValueError):
    """Shards are those of another list, incomplete or damaged."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A complete shard."""

    name: str
    split: str
    num_files: int
    num_items: int
    num_bytes: int
    """Of the tar file."""
    broken: dict[str, int]
    """Files that were left out since they do not open, by their `MediaError`'s code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardIndex:
    """What `index.json` holds."""

    items_sha256: str
    """Of the list, the sizes of its files and the size of shards: all that shards depend on."""
    num_shards: int
    layout: str
    names: dict[str, str]
    """See `Listing`."""
    missing: dict[str, int]
    """Items whose file was not there, by split."""
    shards: list[Shard] = field(default_factory=list)
    """Those that are complete, in order."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The index of a folder of shards.

        Raises:
            ShardError: there is none, or it is none.
        """
        try:
            stored = json.loads((folder / INDEX_FILE).read_text())
            return cls(**stored | {"shards": [Shard(**shard) for shard in stored["shards"]]})
        except FileNotFoundError:
            raise ShardError(f"{folder} has no {INDEX_FILE}; make shards with `zorro data shard`") from None
        except (ValueError, TypeError, KeyError) as error:
            raise ShardError(f"{folder / INDEX_FILE} is no index of shards: {error}") from error

    def save(self, folder: Path) -> None:
        """Write it so that a kill leaves the old or the new one."""
        part = folder / f"{INDEX_FILE}.part"
        part.write_text(json.dumps(asdict(self), indent=1))
        part.replace(folder / INDEX_FILE)

    def check_complete(self, folder: Path) -> None:
        """Raise ShardError unless all shards were written."""
        if len(self.shards) < self.num_shards:
            count = f"{len(self.shards)} of {self.num_shards} shards"
            raise ShardError(f"{folder} holds {count}; run `zorro data shard` again to write the rest")


def items_of(record: Mapping[str, Any]) -> Iterator[Item]:
    """Items of a sample's JSON; their path is relative to the collection's folder."""
    for item in record["items"]:
        yield Item(path=Path(record["path"]), **item | {"labels": tuple(item["labels"])})
