"""Training from shards: the same clips as from the folder, faults counted, exact after a kill, whoever
decodes."""

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datasets import shard_writer as shards
from datasets.layouts import read_items
from datasets.recordings import cut_window, load_recordings
from datasets.shard_reader import ShardReader
from datasets.shard_writer import write_shards
from media import read_clips
from models.weights import load_checkpoint
from tests.made_media import moving_frames, tone, write_clip
from tests.training.small_runs import CLIP_SPEC, MODEL, logged, train_interrupted, train_killed, train_ranks
from training.loop import train
from training.paired_batches import PairedBatches
from training.ranks import Ranks, union_over_ranks
from training.recipe import Recipe
from training.shard_clips import ShardClips, ShardValidationTable, decode_window
from training.sharded_task import ShardedTask
from training.tasks import open_task
from training.validation import ValidationTable

RECIPE = (
    """
pairs = "by_clip"
num_steps = {steps}
num_clips = 5
num_warmup_steps = 2
evaluate_every = 10
save_every = 2
bfloat16 = false
learning_rate = 3e-3
{more}
"""
    + MODEL
    + CLIP_SPEC
)
pytestmark = pytest.mark.slow
ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of two labels, ten to train on and four to validate by; one is mute, one has no picture."""
    folder, rows = tmp_path_factory.mktemp("clips"), []
    for i in range(12):
        label, hz = ("low", 200 + 10 * i) if i % 2 else ("high", 3_000 + 10 * i)
        frames = [frame if i % 2 else 255 - frame for frame in moving_frames(1.2, size=(32, 32))]
        path = write_clip(folder / f"{i}.mp4", waveform=tone(1.2, hz=hz), frames=frames)
        rows.append((path.name, "both", label, "train" if i < 8 else "val"))
    write_clip(folder / "mute.mp4", frames=moving_frames(1.2, size=(32, 32)))
    write_clip(folder / "dark.wav", waveform=tone(1.2, hz=250))
    rows += [(name, "both", "low", "train") for name in ("mute.mp4", "dark.wav")]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "modality", "label", "split"), *rows])
    return folder


@pytest.fixture(scope="module")
def written(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films in several shards."""
    out = tmp_path_factory.mktemp("shards") / "clips"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MEGABYTE", 20_000)
        write_shards(read_items(data), data, out, shard_mb=1)
    assert len(list(out.glob("train-*.tar"))) > 1
    return out


@pytest.fixture
def hurt(written: Path, tmp_path: Path) -> Path:
    """The shards with one file of each split that opens no more: its bytes are there, and mean nothing."""
    copy = Path(shutil.copytree(written, tmp_path / "hurt"))
    stored = ShardReader(copy)
    film = next(item for item in stored.items if item.path.name == "2.mp4")
    for item in (film, stored.items[-1]):
        place = stored._places[item.path]
        with (copy / place.shard).open("r+b") as file:
            file.seek(place.offset)
            file.write(b"nothing of a film " * (place.num_bytes // 18))
    return copy


def _recipe(folder: Path, steps: int, more: str = "num_workers = 0") -> Path:
    path = folder / f"{steps}-{len(more)}.toml"
    path.write_text(RECIPE.format(steps=steps, more=more))
    return path


def _task(folder: Path, recipe: Path, told: list[Any] | None = None) -> ShardedTask:
    report = (lambda *x: None) if told is None else (lambda *x: told.append(x))
    task = open_task(Recipe.load(recipe), ShardReader(folder), folder, folder, report, ALONE)
    assert isinstance(task, ShardedTask)
    return task


def _epoch(batches: PairedBatches, num_steps: int) -> Counter[str]:
    return Counter(
        batches.clips.items[i].path.name for step in range(num_steps) for i in batches.chosen(step)
    )


def test_an_epoch_has_the_clips_of_the_folder(data: Path, written: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 4)
    folder = open_task(Recipe.load(recipe), read_items(data), data, tmp_path, lambda *_: None, ALONE)
    stream = _task(written, recipe)
    assert stream.labels == folder.labels
    assert _epoch(stream.drawn, 2) == _epoch(folder.drawn, 2)
    assert set(_epoch(stream.drawn, 2).values()) == {1}


def test_a_window_is_that_which_a_server_reads(data: Path, written: Path, tmp_path: Path) -> None:
    stored, recipe = ShardReader(written), Recipe.load(_recipe(tmp_path, 1))
    item = next(item for item in stored.items if item.path.name == "3.mp4")
    window = decode_window(stored.read(item), item, recipe, place=0.0)
    served = next(iter(read_clips(data / "3.mp4", recipe.spec)))
    assert np.array_equal(window.audio, served.audio)
    assert np.array_equal(window.video, served.video)
    alone = decode_window(stored.read(item), replace(item, modality="audio"), recipe)
    assert alone.video is None
    assert not alone.is_whole


def test_shards_and_folders_are_read_at_the_rate_of_the_recipe(
    data: Path, written: Path, tmp_path: Path
) -> None:
    """They hold files as they were, at 16 kHz; the inner mel frames of a folder's arrays are the same."""
    numbers = {
        **{"sample_rate": 32_000, "window_length": 800, "fft_length": 1_024, "hop_length": 320},
        **{"pre_emphasis": 0.97, "num_mel_bins": 128, "max_hz": 15_000.0, "num_mel_frames": 64},
        **{"first_centre": 1, "frame_size": 28, "crop_fraction": 0.875},
    }
    stored, recipe = ShardReader(written), Recipe(clip_spec=numbers)
    item = next(item for item in stored.items if item.path.name == "3.mp4")
    window = decode_window(stored.read(item), item, recipe, place=0.0)
    served = next(iter(read_clips(data / "3.mp4", recipe.spec)))
    assert served.audio.shape == (64, 128)
    assert np.array_equal(window.audio, served.audio)
    assert np.array_equal(window.video, served.video)
    there = replace(item, path=data / item.path)
    recordings = load_recordings([there], recipe.spec, tmp_path, lambda *_: None)
    cut = cut_window(recordings.by_path[there.path], 0.0, recipe.spec)
    assert np.array_equal(cut.audio[:62], served.audio[:62])
    assert cut.video.shape == served.video.shape
    assert np.array_equal(cut.video[0], served.video[0])


def test_two_workers_draw_what_one_draws(written: Path, tmp_path: Path) -> None:
    """Each clip once an epoch, in the same windows, whoever decodes them."""
    recipes = [_recipe(tmp_path, 2, f"num_workers = {n}{' ' * n}") for n in (0, 2)]
    one, two = (list(_task(written, recipe).batches(0)) for recipe in recipes)
    assert sum(len(chunk.contrast_rows) for chunks in two for chunk in chunks) == 10
    for (first,), (second,) in zip(one, two, strict=True):
        assert torch.equal(first.audio, second.audio)
        assert torch.equal(first.video, second.video)


def test_ranks_share_one_batch(written: Path, tmp_path: Path) -> None:
    recipe = replace(Recipe.load(_recipe(tmp_path, 4)), num_clips=10)
    stored = ShardReader(written)
    items = [item for item in stored.items if item.split == "train"]
    ranks = [Ranks(rank=r, world_size=2, device=torch.device("cpu")) for r in (0, 1)]
    targets = {"high": 0, "low": 1}
    parts = [PairedBatches(ShardClips(stored, items, recipe), targets, recipe, rank)[0][0] for rank in ranks]
    assert [len(part.contrast_rows) for part in parts] == [5, 5]
    assert sum(len(part.faults) for part in parts) == 2, "each file is read by one of them"


def test_faults_are_counted_and_their_places_taken(hurt: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    task = _task(hurt, _recipe(tmp_path, 4), told)
    steps = list(task.batches(0))
    assert [len(chunk.contrast_rows) for (chunk,) in steps] == [5] * 4
    stage, done, total, counts = told[-1]
    assert (stage, done, total) == ("faults", 3, 14)
    assert {name.partition(":")[0]: n for name, n in counts.items()} == {
        "broken": 1,
        "mute": 1,
        "no picture": 1,
    }
    model = load_checkpoint(train(_recipe(tmp_path, 1), tmp_path / "run", data_dir=hurt)).model
    streams = ("audio", "video", "fusion", "fusion_by_audio", "fusion_by_video")
    assert task.validate(model).keys() == {f"{stream}_top1" for stream in streams}
    assert told[-1][1] == 4
    assert sorted(task.validation.outputs(model)["audio"].clips) == [0, 1, 2], "the last does not decode"


def test_nothing_that_decodes_fails(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.load(_recipe(tmp_path, 4))
    stored = ShardReader(written)
    with pytest.raises(ValueError, match="nothing to draw from"):
        ShardClips(stored, [], recipe)
    monkeypatch.setattr(stored, "read", lambda _: b"nothing")
    clips = ShardClips(stored, [item for item in stored.items if item.split == "val"], recipe)
    with pytest.raises(
        ValueError, match=r"none of 4 files in a row decodes: {'broken: unsupported_media': 4}"
    ):
        clips.draw([0])
    model = load_checkpoint(train(_recipe(tmp_path, 1), tmp_path / "run", data_dir=written)).model
    with pytest.raises(ValueError, match="none of 4 clips to validate by decodes"):
        ShardValidationTable(clips, {"high": 0, "low": 1}).outputs(model)


def test_validation_agrees_with_the_folders(data: Path, written: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(_recipe(tmp_path, 1, "num_workers = 1"))
    model = load_checkpoint(train(_recipe(tmp_path, 1), tmp_path / "run", data_dir=written)).model
    stored = ShardReader(written)
    items = [item for item in stored.items if item.split == "val"]
    table = ShardValidationTable(ShardClips(stored, items, recipe), {"high": 0, "low": 1})
    there = [replace(item, path=data / item.path) for item in items]
    recordings = load_recordings(there, recipe.spec, tmp_path, lambda *_: None)
    other = ValidationTable(there, recordings, {"high": 0, "low": 1}, recipe)
    assert torch.equal(table.labels, other.labels)
    ours, theirs = table.outputs(model), other.outputs(model)
    assert ours.keys() == theirs.keys()
    for name, answers in ours.items():
        assert np.array_equal(answers.clips, theirs[name].clips)
        # Edges of a window hear silence here, and what lies beyond them there.
        np.testing.assert_allclose(answers.logits, theirs[name].logits, atol=0.05)


def test_a_run_learns(written: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    quiet = "augmentation = { mixup_probability = 0.0, noise_probability = 0.0, time_mask_frames = 0 }"
    recipe = _recipe(tmp_path, 60, f"num_workers = 2\nlabel_smoothing = 0.0\n{quiet}")
    train(recipe, tmp_path / "run", data_dir=written, on_progress=lambda *x: told.append(x))
    figures = [x[3] for x in told if x[0] == "train"]
    assert figures
    assert all(x["clips/s"] > 0 for x in figures)
    losses = [line["audio"] + line["video"] for line in logged(tmp_path / "run") if line["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    "more",
    [
        "num_workers = 1",
        "num_workers = 0\nmulti_label = true",
        "num_workers = 0\nsupervised = false",
        "num_workers = 0\nmodality = 'video'",
    ],
)
def test_kinds_of_runs_resume_exactly(more: str, hurt: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 5, more)
    whole = load_checkpoint(train(recipe, tmp_path / "whole", data_dir=hurt)).model.state_dict()
    resumed = load_checkpoint(
        train_interrupted(recipe, tmp_path / "killed", hurt, at_step=4)
    ).model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    states = [
        torch.load(tmp_path / name / "state.pt", weights_only=True)["task"] for name in ("whole", "killed")
    ]
    assert states[0] == states[1]
    assert states[0]["faults"]


@pytest.mark.exhaustive
def test_a_run_killed_outright_gives_the_same_losses(written: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 40)
    train(recipe, tmp_path / "whole", data_dir=written)
    train_killed(recipe, tmp_path / "killed", written, saved_within_seconds=300)
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")


def test_what_shards_cannot_give_fails(data: Path, written: Path, tmp_path: Path) -> None:
    stored, recipe = ShardReader(written), Recipe.load(_recipe(tmp_path, 4))
    for wrong, match in (
        (replace(recipe, pairs="by_label"), "train on its folder instead"),
        (replace(recipe, model={"centre": "picture"}), "choose centre = 'motion'"),
    ):
        with pytest.raises(ValueError, match=match):
            open_task(wrong, stored, tmp_path, tmp_path, lambda *_: None, ALONE)
    with pytest.raises(ValueError, match="not on these shards"):
        _task(written, _recipe(tmp_path, 4)).restore({})
    folder = open_task(recipe, read_items(data), data, tmp_path, lambda *_: None, ALONE)
    with pytest.raises(ValueError, match="the run was on shards"):
        folder.restore(_task(written, _recipe(tmp_path, 4)).state())


@pytest.mark.exhaustive
def test_the_faults_of_two_ranks_are_counted_together(hurt: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "ranks.toml"
    recipe.write_text(_recipe(tmp_path, 2).read_text().replace("num_clips = 5", "num_clips = 10"))
    train_ranks(recipe, tmp_path / "run", hurt, 2, "ddp")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert Counter(fault.partition(":")[0] for fault in state["task"]["faults"].values()) == {
        "broken": 2,
        "mute": 1,
        "no picture": 1,
    }


def test_faults_of_one_rank_are_its_own() -> None:
    assert union_over_ranks({"a.mp4": "mute"}) == {"a.mp4": "mute"}
