"""The check of a collection: each fault is found in media made to have it, and nothing is found in good
ones."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from datasets.check import CheckReport, ItemFault, check_items, inspect_file
from datasets.layouts import read_items
from datasets.manifests import Item
from tests.datasets.faulty_inspectors import crash_on_some, take_long
from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip

pytestmark = pytest.mark.slow

SILENCE = np.zeros(16_000, np.float32)
STILL = [np.full((64, 96, 3), (90, 120, 30), np.uint8)] * 25


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind, in the project's own layout."""
    folder = tmp_path_factory.mktemp("collection")
    write_clip(folder / "good.mp4", waveform=tone(1.0), frames=moving_frames(1.0))
    write_clip(folder / "silent.mp4", waveform=SILENCE, frames=moving_frames(1.0))
    write_clip(folder / "no_sound.mp4", frames=moving_frames(1.0))
    write_clip(folder / "stands.mp4", waveform=tone(1.0), frames=STILL)
    write_clip(folder / "song.wav", waveform=tone(1.0))
    write_clip(folder / "late.wav", waveform=np.concatenate([np.zeros(16_000 * 6, np.float32), tone(1.0)]))
    (folder / "picture.jpg").write_bytes(jpeg_bytes(STILL[0]))
    whole = write_clip(folder / "whole.mkv", waveform=tone(4.0), frames=moving_frames(4.0)).read_bytes()
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 3])
    (folder / "text.mp4").write_text("just text\n" * 50)
    (folder / "empty.mp4").write_bytes(b"")
    rows = [
        ("good.mp4", "both", "train", "", ""),
        ("good.mp4", "both", "train", "0.2", "1.0"),
        ("good.mp4", "both", "train", "0.5", "1.5"),
        ("silent.mp4", "both", "train", "", ""),
        ("silent.mp4", "video", "val", "", ""),
        ("no_sound.mp4", "both", "val", "", ""),
        ("stands.mp4", "both", "val", "", ""),
        ("stands.mp4", "audio", "val", "", ""),
        ("song.wav", "both", "val", "", ""),
        ("song.wav", "audio", "val", "", ""),
        ("late.wav", "audio", "val", "", ""),
        ("picture.jpg", "image", "val", "", ""),
        ("cut.mkv", "both", "test", "", ""),
        ("text.mp4", "both", "test", "", ""),
        ("empty.mp4", "audio", "test", "", ""),
        ("gone.mp4", "both", "test", "", ""),
    ]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("path", "modality", "split", "start_seconds", "end_seconds", "label"))
        csv.writer(file).writerows([(*row, "x") for row in rows])
    return folder


@pytest.fixture(scope="module")
def report(collection: Path) -> CheckReport:
    listing = read_items(collection)
    return check_items(listing.items, missing=listing.missing, num_workers=1)


def test_each_fault_is_found_where_it_is(report: CheckReport) -> None:
    found = [(Path(f.path).name, f.split, f.fault, f.code) for f in report.findings]
    assert sorted(found) == sorted(
        [
            ("good.mp4", "train", "short", ""),
            ("silent.mp4", "train", "mute", ""),
            ("no_sound.mp4", "val", "mute", ""),
            ("stands.mp4", "val", "still", ""),
            ("song.wav", "val", "still", ""),
            ("picture.jpg", "val", "still", ""),
            ("cut.mkv", "test", "damaged", ""),
            ("text.mp4", "test", "broken", "unsupported_media"),
            ("empty.mp4", "test", "broken", "empty_media"),
            ("gone.mp4", "test", "missing", ""),
        ]
    )


def test_counts_are_by_split(report: CheckReport) -> None:
    none = dict.fromkeys(("items", "ok", *ItemFault), 0)
    assert report.counts == {
        "train": none | {"items": 4, "ok": 2, "short": 1, "mute": 1},
        "val": none | {"items": 8, "ok": 4, "mute": 1, "still": 3},
        "test": none | {"items": 4, "broken": 2, "damaged": 1, "missing": 1},
    }
    assert report.num(ItemFault.STILL) == 3


def test_messages_say_where_a_file_ends(report: CheckReport) -> None:
    messages = {finding.fault: finding.message for finding in report.findings}
    assert "its span at 1.50 s" in messages[ItemFault.SHORT]
    assert "ends after" in messages[ItemFault.DAMAGED]


def test_a_good_film_has_no_fault_and_progress_is_told(film: Path) -> None:
    told: list[tuple[object, ...]] = []
    items = [Item(film, "both", (), "train"), Item(film, "both", (), "train", "", 0.0, 2.0)]
    report = check_items(items, num_workers=1, on_progress=lambda *x: told.append(x))
    assert report.findings == ()
    assert told == [("check", 1, 1)]
    assert inspect_file(film, True, True).num_seconds == pytest.approx(2.0, abs=0.1)


def test_a_file_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    assert inspect_file(tmp_path, True, True).code == "unreadable"


def test_a_crash_costs_its_file_alone() -> None:
    items = [Item(Path(name), "both", (), "train") for name in ("a.mp4", "crash.mp4", "b.mp4")]
    report = check_items(items, num_workers=1, inspect=crash_on_some)
    assert [(f.path, f.fault, f.code) for f in report.findings] == [("crash.mp4", "broken", "crashed")]
    assert report.counts["train"]["ok"] == 2


def test_a_hang_costs_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.check.CHECK_TIMEOUT_SECONDS", 0.2)
    report = check_items([Item(Path("a.mp4"), "both", (), "train")], num_workers=1, inspect=take_long)
    assert [f.code for f in report.findings] == ["timeout"]


def test_an_interrupt_does_not_wait_for_what_is_queued() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    items = [Item(Path(f"{i}.mp4"), "both", (), "train") for i in range(60)]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        check_items(items, num_workers=1, inspect=take_long, on_progress=interrupt)
    assert time.monotonic() - started < 30


def _zorro(*arguments: object, status: int) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_the_command_prints_a_table_and_fails_on_broken_files(collection: Path) -> None:
    out = _zorro("data", "check", collection, status=1).stdout
    assert "manifest" in out
    assert f"broken: {collection / 'empty.mp4'} empty_media" in out
    assert out.index("broken: ") < out.index("missing: ") < out.index("still: ")


def test_the_command_as_json_and_missing_files(tmp_path: Path) -> None:
    write_clip(tmp_path / "good.wav", waveform=tone(0.3))
    (tmp_path / "manifest.csv").write_text(
        "path,modality,label,split\ngood.wav,audio,x,train\ngone.wav,audio,x,val\n"
    )
    answer = json.loads(_zorro("data", "check", tmp_path, "--json", status=1).stdout)
    assert answer["counts"]["val"]["missing"] == answer["counts"]["train"]["ok"] == 1
    assert [finding["fault"] for finding in answer["findings"]] == ["missing"]
    _zorro("data", "check", tmp_path, "--allow-missing", "--json", status=0)


def test_the_command_fails_on_a_folder_of_no_layout(tmp_path: Path) -> None:
    assert "layout" in _zorro("data", "check", tmp_path, status=1).stderr
