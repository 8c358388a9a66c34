"""Items in shards, read by their place: every byte comes back in any order, and damage is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from datasets import shard_writer as shards
from datasets.layouts import read_items
from datasets.shard_index import ShardError
from datasets.shard_reader import ShardReader, has_shards
from datasets.shard_writer import write_shards
from tests.made_media import tone, write_clip


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen sounds, of which the first has two spans, a broken file and a missing one."""
    folder = tmp_path_factory.mktemp("collection")
    rows = ["path,modality,label,split,start_seconds,end_seconds"]
    for i in range(16):
        write_clip(folder / f"{i:02d}.v2.wav", waveform=tone(0.05 + 0.001 * i))
        rows.append(f"{i:02d}.v2.wav,audio,label_{i % 3},{'val' if i > 11 else 'train'},,")
    (folder / "text.wav").write_text("just text\n")
    rows += [
        "00.v2.wav,audio,other,train,0.01,0.02",
        "text.wav,audio,other,val,,",
        "gone.wav,audio,other,val,,",
    ]
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture
def written(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "MEGABYTE", 4_000)
    write_shards(read_items(collection), collection, tmp_path / "written", shard_mb=1)
    return tmp_path / "written"


def test_every_item_and_every_byte_comes_back(collection: Path, written: Path) -> None:
    stored = ShardReader(written)
    assert len({item.path for item in stored.items}) == 16
    listed = [replace(item, path=item.path.relative_to(collection)) for item in read_items(collection).items]
    assert {*stored.items} == {item for item in listed if item.path.name != "text.wav"}
    for item in reversed(stored.items):
        assert stored.read(item) == (collection / item.path).read_bytes()


def test_order_is_that_of_the_shards_alone(written: Path) -> None:
    assert ShardReader(written).items == ShardReader(written).items
    assert [item.split for item in ShardReader(written).items] == ["train"] * 13 + ["val"] * 4


def test_what_was_left_out_is_counted(written: Path) -> None:
    assert ShardReader(written).left_out == {"missing": 1, "broken: unsupported_media": 1}


def test_only_folders_of_shards_are_known_as_such(collection: Path, written: Path, tmp_path: Path) -> None:
    assert has_shards(written)
    (tmp_path / "index.json").write_text("{}")
    assert not has_shards(tmp_path)
    assert not has_shards(collection)


def test_damage_is_refused(written: Path) -> None:
    path = written / "train-000001.tar"
    whole = path.read_bytes()
    for content in (whole[:-512], whole + b"\0", b"x" * len(whole), bytes(len(whole))):
        path.write_bytes(content)
        with pytest.raises(ShardError, match=r"train-000001\.tar"):
            ShardReader(written)
    path.unlink()
    with pytest.raises(ShardError, match=r"train-000001\.tar is damaged"):
        ShardReader(written)
    (written / "index.json").unlink()
    with pytest.raises(ShardError, match=r"no index\.json"):
        ShardReader(written)


def test_a_shard_that_is_cut_meanwhile_is_refused(written: Path) -> None:
    stored = ShardReader(written)
    for path in written.glob("*.tar"):
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ShardError, match="ends too early"):
        stored.read(stored.items[-1])
