"""Shards: another reader agrees, a killed run goes on to equal files, nothing that is damaged is passed
over."""

import io
import json
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import webdataset
from typer.testing import CliRunner

from cli.main import app
from datasets import shard_writer as shards
from datasets.layouts import read_items
from datasets.manifests import Item, Listing
from datasets.shard_reader import ShardReader
from datasets.shard_writer import ShardError, ShardIndex, write_shards
from tests.made_media import moving_frames, tone, write_clip


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

    def die(stage: str, done: int, *_: object) -> None:
        if (stage, done) == ("shard", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(listing, collection, out, shard_mb=1, on_progress=die)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert len(kept) == 2
    (out / "train-000002.tar.part").write_bytes(b"half a shard")
    with pytest.raises(ShardError, match=r"holds 2 of \d+ shards"):
        ShardReader(out)
    told: list[tuple[object, ...]] = []
    index = write_shards(listing, collection, out, shard_mb=1, on_progress=lambda *x: told.append(x))
    assert tars(out) == tars(written)
    assert index == ShardIndex.load(out) == ShardIndex.load(written)
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept  # complete ones were left alone
    assert told[-1] == ("shard", index.num_shards, index.num_shards)


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


def test_a_damaged_shard_is_never_passed_over(collection: Path, written: Path) -> None:
    path = written / "train-000001.tar"
    whole = path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        ends = [member.offset for member in tar.getmembers()]
    for cut in (ends[2], ends[2] + 100, ends[2] + 700, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(ShardError, match="train-000001.tar"):
            ShardReader(written)
    write_shards(read_items(collection), collection, written, shard_mb=1)
    assert path.read_bytes() == whole


def test_a_files_items_may_lie_in_several_splits(collection: Path, tmp_path: Path) -> None:
    items = [
        Item(collection / "film.MP4", "both", (x,), x, "", start, start + 0.5)
        for x, start in (("a", 0.0), ("b", 0.5))
    ]
    index = write_shards(Listing(layout="x", items=items, missing=[]), collection, tmp_path, shard_mb=1)
    assert [(shard.name, shard.num_items) for shard in index.shards] == [
        ("a-000000.tar", 1),
        ("b-000000.tar", 1),
    ]


def test_the_command_writes_shards_and_prints_counts(collection: Path, written: Path, tmp_path: Path) -> None:
    arguments = ["data", "shard", str(collection), str(tmp_path / "made"), "--shard-mb"]
    result = CliRunner().invoke(app, [*arguments, "1"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "1 unsupported_media" in result.stdout
    assert tars(tmp_path / "made") == tars(written)
    failed = CliRunner().invoke(app, [*arguments, "3"])
    assert failed.exit_code == 1
    assert "another list" in failed.stderr
