"""Collections as tar shards of the WebDataset layout: few large files, which are read from end to end.

A sample is a whole file as it was, `KEY.mp4`, and `KEY.json` with its path and the items that are spans of
it; nothing is encoded again. A shard holds one split, in an order drawn from a hash of the paths, so that
labels are mixed. Shards are a function of the list alone, so that a run which was stopped goes on, and
`index.json` says which are complete.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import webdataset

from media.probe import probe
from media.progress import OnProgress, ignore_progress

from .manifests import Item, Listing
from .read_failure import read_failure
from .shard_index import INDEX_FILE, Shard, ShardError, ShardIndex

MEGABYTE = 1_000_000
NUM_PROBES = 4  # files that are looked at side by side


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    name: str  # relative to the collection's folder
    num_bytes: int
    items: tuple[Item, ...]  # of one split

    @property
    def split(self) -> str:
        return self.items[0].split


def write_shards(
    listing: Listing,
    folder: str | Path,
    out: str | Path,
    *,
    shard_mb: int = 256,
    on_progress: OnProgress = ignore_progress,
) -> ShardIndex:
    """Write a collection as shards, or the rest of them where an earlier run was stopped.

    Args:
        listing: what to write.
        folder: to which paths in shards are relative.
        out: folder of the shards; made if absent.
        shard_mb: megabytes of media after which a shard is full; a file larger than that has one of its own.
        on_progress: told of the stage "shard", in shards.

    Raises:
        ShardError: `out` holds shards of another list, or of another size.
        ValueError: `shard_mb` is less than 1, or there is nothing to write.
    """
    if shard_mb < 1:
        raise ValueError(f"{shard_mb=} must be at least 1")
    if not listing.items:
        raise ValueError(f"nothing to write: {len(listing.missing)} files are missing and none is there")
    folder, out = Path(folder), Path(out)
    plan = _plan(_files(listing.items, folder), shard_mb * MEGABYTE)
    index = _index_for(listing, folder, plan, out)
    complete = {
        s.name: s
        for s in index.shards
        if (out / s.name).is_file() and (out / s.name).stat().st_size == s.num_bytes
    }
    for done, (name, files) in enumerate(plan.items(), 1):
        if name not in complete:
            complete[name] = _write_shard(out / name, files)
            index = replace(index, shards=[complete[x] for x in plan if x in complete])
            index.save(out)
        on_progress("shard", done, len(plan))
    return index


def _index_for(listing: Listing, folder: Path, plan: dict[str, list[_File]], out: Path) -> ShardIndex:
    """The index that is there, or a new one."""
    shards = [(name, [(file.num_bytes, _record(file)) for file in files]) for name, files in plan.items()]
    missing_files = [(_relative(item.path, folder), item.split) for item in listing.missing]
    key = hashlib.sha256(json.dumps([shards, missing_files]).encode()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    if (out / INDEX_FILE).exists():
        index = ShardIndex.load(out)
        if index.items_sha256 != key:
            raise ShardError(
                f"{out} holds shards of another list of files or another --shard-mb; choose another folder"
            )
        return index
    missing = dict(Counter(item.split for item in listing.missing))
    return ShardIndex(
        items_sha256=key, num_shards=len(plan), layout=listing.layout, names=listing.names, missing=missing
    )


def _files(items: Sequence[Item], folder: Path) -> list[_File]:
    """Files with their items, those of a split together and mixed by a hash."""
    grouped: dict[tuple[str, Path], list[Item]] = {}
    for item in items:
        grouped.setdefault((item.split, item.path), []).append(item)
    files = [
        _File(path, _relative(path, folder), path.stat().st_size, tuple(x))
        for (_, path), x in grouped.items()
    ]
    return sorted(files, key=lambda file: (file.split, hashlib.sha256(file.name.encode()).digest()))


def _plan(files: list[_File], max_bytes: int) -> dict[str, list[_File]]:
    """Which shard holds which files."""
    plan: dict[str, list[_File]] = {}
    for split, of_split in groupby(files, key=lambda file: file.split):
        shards: list[list[_File]] = [[]]
        num_bytes = 0
        for file in of_split:
            if shards[-1] and num_bytes + file.num_bytes > max_bytes:
                shards.append([])
                num_bytes = 0
            shards[-1].append(file)
            num_bytes += file.num_bytes
        plan |= {f"{split}-{number:06d}.tar": shard for number, shard in enumerate(shards)}
    return plan


def _write_shard(path: Path, files: list[_File]) -> Shard:
    part = path.with_name(f"{path.name}.part")
    num_items = 0
    with part.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, mtime=0) as tar:
        with ThreadPoolExecutor(NUM_PROBES) as pool:
            codes = list(pool.map(_code, files))
        for number, (file, code) in enumerate(zip(files, codes, strict=True)):
            if code:
                continue
            ending = file.path.suffix.lower().lstrip(".") or "bin"
            record = json.dumps(_record(file)).encode()
            tar.write(
                {"__key__": f"{path.stem}-{number:06d}", ending: file.path.read_bytes(), "json": record}
            )
            num_items += len(file.items)
    part.replace(path)
    broken = Counter(code for code in codes if code)
    return Shard(
        path.name, files[0].split, len(files) - broken.total(), num_items, path.stat().st_size, dict(broken)
    )


def _code(file: _File) -> str:
    """Why a file does not open, or nothing."""
    try:
        probe(file.path)
    except Exception as error:  # whatever a decoder raises costs its file alone
        return read_failure(file.path, error).code
    return ""


def _record(file: _File) -> dict[str, Any]:
    items = [{name: value for name, value in asdict(item).items() if name != "path"} for item in file.items]
    return {"path": file.name, "items": items}


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()
