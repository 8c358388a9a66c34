"""Training on co-recorded clips: windows on one clock, batches by their number alone, pre-training,
fine-tuning."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.layouts import read_items
from datasets.manifests import Item, ManifestError, Spans
from datasets.recordings import cut_frames, cut_log_mel, load_recordings, window_start
from media import ClipSpec, TimeRange, read_clips
from models.weights import load_checkpoint
from tests.made_media import moving_frames, tone, write_clip
from tests.training.small_runs import CLIP_SPEC, MODEL, logged, train_interrupted, train_killed, train_ranks
from training.augment import augment_video_windows, mix_clips
from training.finetune import finetuning_recipe
from training.loop import train
from training.paired_batches import PairedBatches, RecordedClips
from training.ranks import Ranks
from training.recipe import Augmentation, Recipe, trained_spans

RECIPE = (
    """
pairs = "by_clip"
num_steps = {steps}
num_clips = 6
num_warmup_steps = 2
evaluate_every = 4
save_every = 2
bfloat16 = false
{workers}
alone_share = 0.5
contrastive_weight = 1.0
{more}
"""
    + MODEL
    + "drop_path_rate = 0.1\n{model}"
    + CLIP_SPEC
)
STILL = Augmentation(
    max_shift_pixels=0, mirror_probability=0, colour_jitter=0, erase_probability=0, mixup_probability=1.0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of two labels, eight to train on and four to validate by.

    One is mute, one has no picture, one is broken.
    """
    folder, rows = tmp_path_factory.mktemp("clips"), []
    for i in range(12):
        label, hz = ("low", 200 + 10 * i) if i % 2 else ("high", 3_000 + 10 * i)
        frames = [frame if i % 2 else 255 - frame for frame in moving_frames(1.2, size=(32, 32))]
        path = write_clip(folder / f"{i}.mp4", waveform=tone(1.2, hz=hz), frames=frames)
        rows.append((path.name, "both", label, "train" if i < 8 else "val"))
    write_clip(folder / "mute.mp4", frames=moving_frames(1.2, size=(32, 32)))
    write_clip(folder / "dark.wav", waveform=tone(1.2, hz=250))
    (folder / "broken.mp4").write_bytes(b"no film")
    rows += [(name, "both", "low", "train") for name in ("mute.mp4", "dark.wav", "broken.mp4")]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "modality", "label", "split"), *rows])
    return folder


def _recipe(folder: Path, steps: int, more: str = "", model: str = "") -> Path:
    path = folder / f"{steps}-{len(more)}-{len(model)}.toml"
    workers = "" if "num_workers" in more else "num_workers = 0"
    path.write_text(RECIPE.format(steps=steps, more=more, model=model, workers=workers))
    return path


def _batches(data: Path, tmp_path: Path, recipe: Recipe, **ranks: int) -> PairedBatches:
    items = [item for item in read_items(data).items if item.split == "train"]
    recordings = load_recordings(items, recipe.spec, tmp_path / "cache", lambda *_: None)
    return PairedBatches(
        RecordedClips(items, recordings, recipe), {"high": 0, "low": 1}, recipe, ranks=_ranks(**ranks)
    )


def _ranks(rank: int = 0, world_size: int = 1) -> Ranks:
    return Ranks(rank=rank, world_size=world_size, device=torch.device("cpu"))


def test_windows_are_those_that_a_server_reads(data: Path, tmp_path: Path, spec: ClipSpec) -> None:
    item = Item(data / "3.mp4", "both", ("low",), "train", "", 0.32, 0.96)
    recording = load_recordings([item], spec, tmp_path, lambda *_: None).by_path[item.path]
    start = window_start(item, spec, 1.2)
    assert start == pytest.approx(0.32)
    served = next(iter(read_clips(item.path, spec, time_range=TimeRange(start_seconds=start))))
    inside = slice(2, -2)  # a window's own edges see silence before and after it
    np.testing.assert_allclose(
        cut_log_mel(recording.log_mel, start, spec)[inside], served.audio[inside], atol=0.05
    )
    assert np.array_equal(cut_frames(recording.frames, start, spec), served.video)


def test_where_windows_of_spans_start(spec: ClipSpec) -> None:
    long = Item(Path("x"), "both", (), "train", "", 1.0, 3.0)
    assert [window_start(long, spec, 9.0, place=p) for p in (0, 0.5, 1)] == pytest.approx([1.0, 1.68, 2.36])
    word = replace(long, end_seconds=1.2)
    starts = [window_start(word, spec, 9.0, place=p, max_jitter_seconds=0.1) for p in (0, 0.5, 1)]
    assert starts == pytest.approx([0.68, 0.78, 0.88])
    assert window_start(replace(word, start_seconds=0.0, end_seconds=0.1), spec, 9.0) == 0.0
    assert window_start(replace(long, end_seconds=None), spec, 2.0, place=1) == pytest.approx(1.36)
    assert window_start(replace(long, end_seconds=None), spec, 1.2, place=1) == 1.0


def test_what_lacks_a_modality_is_counted_and_used(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(_recipe(tmp_path, 4))
    items = [item for item in read_items(data).items if item.split == "train"]
    counts = load_recordings(items, recipe.spec, tmp_path / "cache", lambda *_: None).counts
    assert {name.partition(":")[0]: n for name, n in counts.items()} == {
        "sound and picture": 8,
        "picture only": 1,
        "sound only": 1,
        "broken": 1,
    }
    batches = _batches(data, tmp_path, replace(recipe, num_clips=10, alone_share=0.25))
    (batch,) = batches[0]
    assert (len(batch.audio), len(batch.video), batch.pairs) == (9, 9, slice(0, 8))
    assert batch.pairing.audio_index.tolist()[:9] == [*range(8), 8]
    assert batch.pairing.video_index.tolist()[:9] == [*range(8), -1]
    assert len(batch.row_kept) == 8 + 1 + 1 + 2 + 2
    assert not batch.whole_pairs


FORKED = """
import gc, sys
from types import SimpleNamespace
import av, torch
from training.paired_task import PairedTask

class Collecting:
    def __getitem__(self, step):
        gc.collect()
        return torch.tensor(step)
    def __len__(self):
        return 3

gc.disable()
container = av.open(sys.argv[1])
container.streams.video[0].thread_type = "FRAME"
next(container.decode(video=0))
cycle = [container]
cycle.append(cycle)
del cycle, container
task = SimpleNamespace(drawn=Collecting(), recipe=SimpleNamespace(num_steps=3, num_workers=1))
print([int(step) for step in PairedTask.batches(task, 0)])
"""


@pytest.mark.slow
def test_a_decoder_that_waits_to_be_collected_does_not_stop_the_workers(data: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(data / "0.mp4")]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 1, 2]\n", done.stderr


def test_a_batch_depends_on_its_number_alone(data: Path, tmp_path: Path) -> None:
    batches = _batches(data, tmp_path, Recipe.load(_recipe(tmp_path, 9)))
    first, again, other = (batches[i][0] for i in (3, 3, 4))
    assert torch.equal(first.audio, again.audio)
    assert not torch.equal(first.audio, other.audio)
    epoch = [i for step in range(5) for i in batches.chosen(step)]
    assert [sorted(epoch[k : k + 10]) for k in (0, 10, 20)] == [list(range(10))] * 3


def test_ranks_share_one_batch(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(_recipe(tmp_path, 9))
    parts = [_batches(data, tmp_path, recipe, rank=r, world_size=2) for r in (0, 1)]
    assert parts[0].chosen(2) == parts[1].chosen(2)
    batches = [part[2][0] for part in parts]
    assert sum(len(batch.contrast_rows) for batch in batches) == 6
    assert not torch.equal(batches[0].audio, batches[1].audio)
    with pytest.raises(ValueError, match="6 clips do not divide among 4 ranks"):
        _batches(data, tmp_path, recipe, rank=0, world_size=4)[0]


def test_nothing_to_draw_from_fails(data: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(_recipe(tmp_path, 2))
    items = [Item(data / "broken.mp4", "both", ("low",), "train")]
    recordings = load_recordings(items, recipe.spec, tmp_path, lambda *_: None)
    with pytest.raises(ValueError, match="none of 1 clips decodes"):
        RecordedClips(items, recordings, recipe)


def test_films_move_by_whole_pixels_around_the_mean() -> None:
    torch.manual_seed(0)
    video = torch.randint(0, 256, (8, 2, 16, 16, 3), dtype=torch.uint8)
    assert torch.equal(augment_video_windows(video, STILL), video.float())
    mean = torch.rand(16, 16, 3) * 255
    means = mean.round().to(torch.uint8).expand(8, 2, -1, -1, -1)
    moved = augment_video_windows(means, replace(STILL, max_shift_pixels=2), mean=mean)
    assert (moved - mean).abs().max() <= 0.5 + 1e-3, "the mean picture itself stays where it is"
    shifted = augment_video_windows(video, replace(STILL, max_shift_pixels=2))
    moves = [(y, x) for y in range(5) for x in range(5)]
    found = {
        next((y, x) for y, x in moves if torch.equal(after[:, 2:14, 2:14], before[:, y : y + 12, x : x + 12]))
        for after, before in zip(shifted, video.float(), strict=True)
    }
    assert len(found) > 1


def test_mixed_clips_share_one_share() -> None:
    torch.manual_seed(0)
    values = torch.arange(6.0)
    audio, video, targets = mix_clips(
        values.view(6, 1, 1),
        values.view(6, 1, 1, 1, 1),
        values.view(6, 1),
        4,
        replace(STILL, mixup_alpha=1.0),
    )
    assert torch.equal(audio.flatten(), targets.flatten())
    assert torch.equal(video.flatten(), targets.flatten())
    assert torch.equal(audio.flatten()[4:], values[4:])
    assert not torch.equal(audio.flatten()[:4], values[:4])


@pytest.mark.slow
def test_pre_training_then_fine_tuning(data: Path, tmp_path: Path) -> None:
    contrast = _recipe(tmp_path, 4, "supervised = false", "centre = 'picture'")
    pre_trained = train(contrast, tmp_path / "pre", data_dir=data)
    scores = [json.loads(x) for x in (tmp_path / "pre" / "metrics.jsonl").read_text().splitlines()]
    assert set(scores[-1]) >= {"audio_to_video_r1", "fusion_to_audio_r1"}
    assert load_checkpoint(pre_trained).labels == []
    tuned = train(
        _recipe(tmp_path, 4, 'layer_decay = 0.5\nfreeze = ["video_tokens"]', "centre = 'picture'"),
        tmp_path / "tuned",
        data_dir=data,
        start_from=pre_trained,
    )
    before, after = load_checkpoint(pre_trained).model.state_dict(), load_checkpoint(tuned)
    assert [label["id"] for label in after.labels] == ["high", "low"]
    same = {
        name
        for name, value in after.model.state_dict().items()
        if name in before and torch.equal(value, before[name])
    }
    assert {name for name in before if name.startswith("video_tokens.")} <= same
    assert "audio_tokens.embed.0.weight" not in same


@pytest.mark.slow
def test_spans_of_a_file_are_one_clip_or_several(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spans"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.mp4").symlink_to(data / f"{i}.mp4")
    rows = [
        (f"{i}.mp4", "both", label, "train" if i < 6 else "val", start, start + 0.6)
        for i in range(8)
        for label, start in (("first", 0.0), ("odd" if i % 2 else "even", 0.6))
    ]
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "modality", "label", "split", "start_seconds", "end_seconds"), *rows]
        )
    whole = load_checkpoint(
        train(
            _recipe(tmp_path, 2, 'spans = "whole"\nmulti_label = true'), tmp_path / "whole", data_dir=folder
        )
    )
    assert trained_spans(whole.extra) == Spans.WHOLE
    assert [label["id"] for label in whole.labels] == ["even", "first", "odd"]
    assert whole.extra["validation"].keys() >= {"audio_map", "video_map", "fusion_map"}
    tuned = finetuning_recipe(whole, read_items(folder).items)
    assert (tuned.spans, tuned.multi_label, tuned.num_clips) == (Spans.WHOLE, True, 6)
    with pytest.raises(ManifestError, match="8 clips have several labels, .* set multi_label = true"):
        train(_recipe(tmp_path, 2, 'spans = "whole"'), tmp_path / "single", data_dir=folder)
    each = load_checkpoint(train(_recipe(tmp_path, 2), tmp_path / "each", data_dir=folder))
    assert trained_spans(each.extra) == Spans.EACH
    assert finetuning_recipe(each, read_items(folder).items).num_clips == 12


SEGMENTS = "# Segments csv\n# num_ytids\n# YTID, start_seconds, end_seconds, positive_labels\n"
LABELS = (
    'index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/068hy,"Domestic animals, pets"\n2,/m/none,Not there\n'
)


@pytest.mark.slow
def test_labels_of_a_collection_are_called_by_their_names(data: Path, tmp_path: Path) -> None:
    """AudioSet names them by codes, in a list of their names."""
    folder = tmp_path / "audioset"
    folder.mkdir()
    (folder / "class_labels_indices.csv").write_text(LABELS)
    for name, numbers in (("balanced_train", range(6)), ("valid", (8, 9))):
        for i in numbers:
            (folder / f"clip{i}.mp4").symlink_to(data / f"{i}.mp4")
        rows = [f'clip{i}, 0.000, 10.000, "/m/09x0r{",/m/068hy" if i % 2 else ""}"\n' for i in numbers]
        (folder / f"{name}_segments.csv").write_text(SEGMENTS + "".join(rows))
    run = train(_recipe(tmp_path, 2, "multi_label = true"), tmp_path / "run", data_dir=folder)
    assert [(label["id"], label["label"]) for label in load_checkpoint(run).labels] == [
        ("/m/068hy", "Domestic animals, pets"),
        ("/m/09x0r", "Speech"),
    ]


@pytest.mark.slow
def test_low_rank_runs_end_in_plain_weights(data: Path, tmp_path: Path) -> None:
    start = train(_recipe(tmp_path, 2), tmp_path / "start", data_dir=data)
    tuned = train(_recipe(tmp_path, 3, "lora_rank = 2"), tmp_path / "tuned", data_dir=data, start_from=start)
    first, last = load_checkpoint(start).model.state_dict(), load_checkpoint(tuned).model.state_dict()
    assert first.keys() == last.keys()
    assert not torch.equal(first["trunk.blocks.0.qkv.weight"], last["trunk.blocks.0.qkv.weight"])
    assert torch.equal(first["trunk.blocks.0.mlp.0.weight"], last["trunk.blocks.0.mlp.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        'modality = "audio"',
        "multi_label = true",
        "num_workers = 1",
        "num_chunks = 2",
        "supervised = false\nnum_chunks = 3\nlearn_temperature = true",
        "checkpoint_activations = true",
    ],
)
def test_kinds_of_runs_resume_exactly(more: str, data: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 6, more)
    whole = load_checkpoint(train(recipe, tmp_path / "whole", data_dir=data)).model.state_dict()
    resumed = load_checkpoint(
        train_interrupted(recipe, tmp_path / "killed", data, at_step=5)
    ).model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_recipes_that_contradict_themselves_fail(tmp_path: Path) -> None:
    for more, match in (
        ('modality = "smell"', "modality='smell'"),
        ('spans = "half"', "'half' is not a valid Spans"),
        ("alone_shore = 1", "alone_shore"),
    ):
        with pytest.raises(ValueError, match=match):
            Recipe.load(_recipe(tmp_path, 2, more))
    for modality in ("audio", "video"):
        with pytest.raises(
            ValueError, match=f"modality='{modality}' with pairs='by_label'.*set pairs = 'by_clip', or"
        ):
            Recipe(modality=modality, pairs="by_label")
        assert Recipe(modality=modality).with_pairs_for([]).pairs == "by_clip"
        assert Recipe(modality=modality, pairs="by_clip").modality == modality
    with pytest.raises(ValueError, match="num_clips must be at least 1"):
        Recipe(num_clips=0)
    with pytest.raises(ValueError, match="without supervision nothing is learned"):
        Recipe(supervised=False, pairs="by_label")


STILL_RECIPE = (
    """
pairs = "by_clip"
num_steps = 10
num_clips = 4
num_warmup_steps = 2
evaluate_every = 10
save_every = 5
bfloat16 = false
alone_share = 0.0
num_workers = 0
"""
    + MODEL
    + 'stem = "patch"\n'
    + CLIP_SPEC
    + """
[augmentation]
max_time_stretch = 0.0
max_frequency_shift = 0.0
max_gain_db = 0.0
max_tilt_db = 0.0
noise_probability = 0.0
time_mask_frames = 0
frequency_mask_bins = 0
mixup_probability = 0.0
max_shift_pixels = 0
mirror_probability = 0.0
colour_jitter = 0.0
erase_probability = 0.0
"""
)
"""Nothing is left to chance, and there is no batch norm, whose statistics are of a rank's own share."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_ranks_train_as_one(engine: str, data: Path, tmp_path: Path) -> None:
    spans = tmp_path / "spans"
    spans.mkdir()
    rows = [
        (f"{data / str(i)}.mp4", "both", "low" if i % 2 else "high", "train" if i < 8 else "val", 0.3, 0.8)
        for i in range(12)
    ]
    with (spans / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [("path", "modality", "label", "split", "start_seconds", "end_seconds"), *rows]
        )
    recipe = tmp_path / "still.toml"
    recipe.write_text(STILL_RECIPE)
    train(recipe, tmp_path / "one", data_dir=spans)
    one = [json.loads(line) for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    two = train_ranks(recipe, tmp_path / "two", spans, 2, engine)
    assert two[0]["contrastive"] == pytest.approx(one[0]["contrastive"], abs=2e-3)
    assert two[-1] == pytest.approx(one[-1], abs=1e-6), "scores of what was learned"
    first, second = (
        load_checkpoint(tmp_path / name / "checkpoint").model.state_dict() for name in ("one", "two")
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-3, rtol=1e-2, msg=name)
    state = torch.load(tmp_path / "two" / "state.pt", weights_only=True)
    assert state["step"] == 10
    assert set(state["model"]) == set(torch.load(tmp_path / "one" / "state.pt", weights_only=True)["model"])


@pytest.mark.exhaustive
def test_a_run_killed_outright_gives_the_same_losses(data: Path, tmp_path: Path) -> None:
    recipe = _recipe(tmp_path, 40)
    train(recipe, tmp_path / "whole", data_dir=data)
    train_killed(recipe, tmp_path / "killed", data, saved_within_seconds=120)
    assert logged(tmp_path / "whole") == logged(tmp_path / "killed")
