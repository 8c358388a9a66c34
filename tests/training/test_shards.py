"""Shards: every byte comes back, a killed run goes on to equal files, workers and ranks share without overlap or loss."""

import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import webdataset
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from cli.main import app
from media import ClipSpec, read_clips
from tests.made_media import moving_frames, tone, write_clip
from training import shards
from training.layouts import read_items
from training.manifests import Item, Listing
from training.shards import ShardDataset, ShardError, ShardIndex, write_shards


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 sounds, a film with two spans, one file that is broken, one that is missing."""
    folder = tmp_path_factory.mktemp("collection")
    rows = ["path,modality,label,split,start_seconds,end_seconds"]
    for i in range(40):
        write_clip(folder / f"{i:02d}.v2.wav", waveform=tone(0.05 + 0.001 * i, hz=100 + 10 * i))
        rows.append(f"{i:02d}.v2.wav,audio,label_{i % 5},{'train' if i < 32 else 'val'},,")
    write_clip(folder / "film.MP4", waveform=tone(1.0), frames=moving_frames(1.0))
    rows += ["film.MP4,both,a|b,train,0,0.5", "film.MP4,both,c,train,0.5,1"]
    (folder / "text.mp4").write_text("just text\n" * 50)
    rows += ["text.mp4,both,a,val,,", "gone.mp4,both,a,val,,"]
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(autouse=True)
def _kilobytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard for every ten kilobytes, to have several of small files."""
    monkeypatch.setattr(shards, "MEGABYTE", 10_000)


@pytest.fixture
def written(collection: Path, tmp_path: Path) -> Path:
    write_shards(read_items(collection), collection, tmp_path / "written", shard_mb=1)
    return tmp_path / "written"


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tar*")}


def keys(pairs: Any) -> Counter[tuple[str, float]]:
    return Counter((item.path.name, item.start_seconds) for item, _ in pairs)


def expected(collection: Path, split: str) -> Counter[tuple[str, float]]:
    items = [i for i in read_items(collection).items if i.split == split and i.path.name != "text.mp4"]
    return Counter((item.path.name, item.start_seconds) for item in items)


def test_every_item_and_every_byte_comes_back(collection: Path, written: Path) -> None:
    listed = [i for i in read_items(collection).items if i.path.name != "text.mp4"]
    for split in ("train", "val"):
        found = list(ShardDataset(written, split))
        assert sorted((item for item, _ in found), key=str) == sorted(
            (replace(i, path=i.path.relative_to(collection)) for i in listed if i.split == split), key=str
        )
        assert all(content == (collection / item.path).read_bytes() for item, content in found)


def test_another_reader_of_the_layout_agrees(collection: Path, written: Path) -> None:
    names = sorted(str(path) for path in written.glob("train-*.tar"))
    assert len(names) > 3
    samples = list(webdataset.WebDataset(names, shardshuffle=False))
    records = [json.loads(sample["json"]) for sample in samples]
    assert {r["path"] for r in records} == {f"{i:02d}.v2.wav" for i in range(32)} | {"film.MP4"}
    (film,) = [s for s, r in zip(samples, records, strict=True) if r["path"] == "film.MP4"]
    assert film["mp4"] == (collection / "film.MP4").read_bytes()  # once, for both of its spans
    assert [item["labels"] for item in json.loads(film["json"])["items"]] == [["a", "b"], ["c"]]


def test_shards_are_full_mixed_and_of_one_split(written: Path) -> None:
    index = ShardIndex.load(written)
    for shard in index.shards:
        with tarfile.open(written / shard.name) as tar:
            records = [json.load(tar.extractfile(m)) for m in tar.getmembers() if m.name.endswith(".json")]
            sizes = [member.size for member in tar.getmembers() if not member.name.endswith(".json")]
        assert {item["split"] for record in records for item in record["items"]} <= {shard.split}
        assert len(records) == shard.num_files
        assert sum(sizes) <= 10_000 or len(sizes) == 1
    first = next(shard for shard in index.shards if shard.num_files > 3)
    with tarfile.open(written / first.name) as tar:
        paths = [json.load(tar.extractfile(m))["path"] for m in tar.getmembers() if m.name.endswith(".json")]
    assert paths != sorted(paths)


def test_the_index_counts_what_is_missing_and_broken(written: Path) -> None:
    index = ShardIndex.load(written)
    assert index.missing == {"val": 1}
    assert sum((Counter(shard.broken) for shard in index.shards), Counter()) == {"unsupported_media": 1}
    assert sum(shard.num_items for shard in index.shards) == 42
    assert sum(shard.num_files for shard in index.shards) == 41


def test_a_killed_run_goes_on_to_equal_shards(collection: Path, written: Path, tmp_path: Path) -> None:
    listing, out = read_items(collection), tmp_path / "killed"

    def die(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(listing, collection, out, shard_mb=1, on_progress=die)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(kept) == 2
    (out / "train-000002.tar.part").write_bytes(b"half a shard")
    with pytest.raises(ShardError, match=r"holds 2 of \d+ shards"):
        ShardDataset(out, "train")
    told: list[tuple[int, int]] = []
    index = write_shards(listing, collection, out, shard_mb=1, on_progress=lambda *x: told.append(x))
    assert tars(out) == tars(written)
    assert index == ShardIndex.load(out) == ShardIndex.load(written)
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept  # complete ones were left alone
    assert told[-1] == (index.num_shards, index.num_shards)


def test_a_kill_within_a_shard_leaves_no_half_shard(
    collection: Path, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing, out, write = read_items(collection), tmp_path / "killed", webdataset.TarWriter.write
    count = iter(range(100))

    def write_some(writer: Any, sample: Any) -> None:
        if next(count) == 10:
            raise KeyboardInterrupt
        write(writer, sample)

    monkeypatch.setattr(webdataset.TarWriter, "write", write_some)
    with pytest.raises(KeyboardInterrupt):
        write_shards(listing, collection, out, shard_mb=1)
    complete = {path.name for path in out.glob("*.tar")}
    assert complete == {shard.name for shard in ShardIndex.load(out).shards}
    monkeypatch.undo()
    monkeypatch.setattr(shards, "MEGABYTE", 10_000)
    write_shards(listing, collection, out, shard_mb=1)
    assert tars(out) == tars(written)


def test_another_list_or_size_is_refused(collection: Path, written: Path) -> None:
    listing = read_items(collection)
    for other in (replace(listing, items=listing.items[1:]), replace(listing, missing=[])):
        with pytest.raises(ShardError, match="another list"):
            write_shards(other, collection, written, shard_mb=1)
    with pytest.raises(ShardError, match="another list"):
        write_shards(listing, collection, written, shard_mb=2)
    with pytest.raises(ValueError, match="shard_mb=0"):
        write_shards(listing, collection, written, shard_mb=0)
    with pytest.raises(ValueError, match="1 files are missing"):
        write_shards(replace(listing, items=[]), collection, written)


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (1, 2), (3, 0), (2, 2)])
def test_ranks_and_workers_share_all_items(collection: Path, written: Path, world_size: int, num_workers: int) -> None:
    parts = []
    for rank in range(world_size):
        own = ShardDataset(written, "train", rank=rank, world_size=world_size)
        parts.append(list(DataLoader(own, batch_size=None, num_workers=num_workers)))
    assert keys(chain(*parts)) == expected(collection, "train")
    assert max(expected(collection, "train").values()) == 1
    assert all(parts)


def test_order_depends_on_seed_and_epoch_alone(collection: Path, written: Path) -> None:
    def order(seed: int, epoch: int, buffer_size: int = 8) -> list[str]:
        ours = ShardDataset(written, "train", seed=seed, buffer_size=buffer_size)
        ours.set_epoch(epoch)
        return [f"{item.path} {item.start_seconds}" for item, _ in ours]

    assert order(1, 0) == order(1, 0)
    orders = [order(1, 0), order(1, 1), order(2, 0), order(1, 0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    assert all(sorted(o) == sorted(orders[0]) for o in orders)


def test_workers_that_stay_are_told_of_the_epoch(written: Path) -> None:
    ours = ShardDataset(written, "train")
    loader = DataLoader(ours, batch_size=None, num_workers=1, persistent_workers=True)
    orders = []
    for epoch in (0, 1, 0):
        ours.set_epoch(epoch)
        orders.append([item.path for item, _ in loader])
    assert orders[0] == orders[2] != orders[1]


def decode(pairs: list[tuple[Item, bytes]]) -> list[tuple[float, ...]]:
    """Runs in a loader's worker."""
    spec = ClipSpec(num_mel_frames=64, num_mel_bins=32, num_video_frames=2, frame_size=32)
    spans = {"start_seconds": pairs[0][0].start_seconds, "end_seconds": pairs[0][0].end_seconds}
    return [next(iter(read_clips(content, spec, video=False, **spans))).audio.shape for _, content in pairs]


def test_bytes_decode_in_loader_workers(written: Path) -> None:
    loader = DataLoader(ShardDataset(written, "val"), batch_size=1, num_workers=1, collate_fn=decode)
    assert list(chain(*loader)) == [(64, 32)] * 8


def test_readers_fail_on_what_is_no_set_of_shards(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no index.json"):
        ShardDataset(tmp_path, "train")
    with pytest.raises(ShardError, match=r"0 shards of the split 'dev'.*\['train', 'val'\]"):
        ShardDataset(written, "dev")
    with pytest.raises(ShardError, match="for 99 ranks"):
        ShardDataset(written, "train", world_size=99)
    for wrong in ({"buffer_size": 0}, {"rank": 1}, {"rank": -1}):
        with pytest.raises(ValueError, match="need 1 <= "):
            ShardDataset(written, "train", **wrong)
    (written / "index.json").write_text("{}")
    with pytest.raises(ShardError, match="is no index"):
        ShardDataset(written, "train")


def test_a_damaged_shard_is_never_passed_over(collection: Path, written: Path) -> None:
    path = written / "train-000001.tar"
    whole = path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        ends = [member.offset for member in tar.getmembers()]
    for cut in (ends[2], ends[2] + 100, ends[2] + 700, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(ShardError, match="train-000001.tar"):
            list(ShardDataset(written, "train"))
    write_shards(read_items(collection), collection, written, shard_mb=1)
    assert path.read_bytes() == whole


def test_a_files_items_may_lie_in_several_splits(collection: Path, tmp_path: Path) -> None:
    items = [Item(collection / "film.MP4", "both", (x,), x, "", start, start + 0.5) for x, start in (("a", 0.0), ("b", 0.5))]
    index = write_shards(Listing(layout="x", items=items, missing=[]), collection, tmp_path, shard_mb=1)
    assert [(shard.name, shard.num_items) for shard in index.shards] == [("a-000000.tar", 1), ("b-000000.tar", 1)]


def test_the_command_writes_shards_and_prints_counts(collection: Path, written: Path, tmp_path: Path) -> None:
    arguments = ["data", "shard", str(collection), str(tmp_path / "made"), "--shard-mb"]
    result = CliRunner().invoke(app, [*arguments, "1"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "1 unsupported_media" in result.stdout
    assert tars(tmp_path / "made") == tars(written)
    failed = CliRunner().invoke(app, [*arguments, "3"])
    assert failed.exit_code == 1
    assert "another list" in failed.stderr
