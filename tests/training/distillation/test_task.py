"""A distillation on made media: it learns, resumes exactly, and refuses what it cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.layouts import read_items
from models.weights import load_checkpoint
from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip
from tests.training.distillation.fake_teachers import FakeAudioTeacher, FakePictureTeacher
from tests.training.small_runs import logged, train_interrupted
from training.distillation.errors import TeacherError
from training.distillation.teachers import open_audio_teacher, open_picture_teacher
from training.loop import train
from training.recipe import Recipe

RECIPE = """
preset = "mobile"
num_steps = 6
num_audio = 4
num_video = 4
num_pairs = 2
num_mixed_pairs = 2
multi_label = true
learning_rate = 3e-3
num_warmup_steps = 1
evaluate_every = 3
save_every = 2
freeze_statistics = true
bfloat16 = false
{more}
[model]
embed_dim = 32
depth = 1
num_heads = 2
projection_dim = 16
[model.mobile]
audio_width = 0.1
video_width = 0.1
video_depth = 0.2
audio_classes = [0, 527]
video_classes = [527, 1527]
[clip_spec]
num_mel_frames = 64
num_mel_bins = 32
frame_size = 32
[distillation]
audio_teachers = ["ears.pt"]
video_teachers = ["eyes"]
num_sounds = 8
num_pictures = 8
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two collections, of sounds and of pictures of dogs and cats, each with a manifest."""
    folder = tmp_path / "data"
    rows: dict[str, list[str]] = {"sounds": [], "pictures": []}
    for split in ("train", "val"):
        for label, hz, colour in (("dog", 300, (220, 30, 30)), ("cat", 3_000, (30, 30, 220))):
            for i in range(2):
                name = f"{split}-{label}-{i}"
                (folder / "sounds").mkdir(parents=True, exist_ok=True)
                (folder / "pictures").mkdir(exist_ok=True)
                write_clip(folder / "sounds" / f"{name}.wav", waveform=tone(0.8, hz=hz + 20 * i))
                picture = np.full((48, 64 + i, 3), colour, np.uint8)
                (folder / "pictures" / f"{name}.jpg").write_bytes(jpeg_bytes(picture))
                rows["sounds"].append(f"{name}.wav,audio,{label},{split}")
                rows["pictures"].append(f"{name}.jpg,image,{label},{split}")
    for collection, lines in rows.items():
        text = "\n".join(["path,modality,label,split", *lines]) + "\n"
        (folder / collection / "manifest.csv").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def fake_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teachers by any name."""
    monkeypatch.setattr("training.distillation.task.open_audio_teacher", lambda _: FakeAudioTeacher())
    monkeypatch.setattr("training.distillation.task.open_picture_teacher", lambda _: FakePictureTeacher())


def _nobody(name: object) -> None:
    raise AssertionError(f"a resumed run asked for the teacher {name}")


def _recipe(folder: Path, more: str = "") -> Path:
    path = folder / "everyday.toml"
    path.write_text(RECIPE.format(more=more))
    return path


def test_collections_side_by_side_are_read_as_one(data: Path) -> None:
    listing = read_items(data)
    assert {item.collection for item in listing.items} == {"sounds", "pictures"}
    assert len(listing.items) == 16


@pytest.mark.slow
def test_a_run_learns_and_resumes_exactly(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe(tmp_path)
    whole = load_checkpoint(train(recipe, tmp_path / "whole", data_dir=data))
    resumed = load_checkpoint(train_interrupted(recipe, tmp_path / "killed", data, at_step=4))
    weights, again = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert len(whole.labels) == 1_581
    assert whole.labels[0] | {"id": "speech", "modalities": ["audio"]} == whole.labels[0]
    scores = [line for line in logged(tmp_path / "whole") if line["kind"] == "val"]
    assert {f"{x}_agreement" for x in ("audio", "video", "fusion")} <= scores[-1].keys()

    monkeypatch.setattr("training.distillation.task.open_audio_teacher", _nobody)
    monkeypatch.setattr("training.distillation.task.open_picture_teacher", _nobody)
    checkpoint = train(recipe, tmp_path / "whole", data_dir=data)  # its clips and its weights are there
    assert (checkpoint / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "match"),
    [("supervised = false\npairs = 'by_clip'", "learns independent probabilities; set multi_label = true")],
)
def test_recipes_that_contradict_themselves_fail(more: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        Recipe.load(_recipe(tmp_path, more))


def test_films_with_their_sound_are_refused(data: Path, tmp_path: Path) -> None:
    write_clip(data / "sounds" / "film.mp4", waveform=tone(1.0), frames=moving_frames(1.0))
    manifest = data / "sounds" / "manifest.csv"
    manifest.write_text(manifest.read_text() + "film.mp4,both,dog,train\n")
    with pytest.raises(ValueError, match=r"1 clips have sound and picture, the first is .*film\.mp4"):
        train(_recipe(tmp_path), tmp_path / "run", data_dir=data)


def test_teachers_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"no teacher at .*ears\.pt; name files of audio_teachers"):
        open_audio_teacher(tmp_path / "ears.pt")
    with pytest.raises(TeacherError, match="is no teacher of sounds that is known"):
        open_audio_teacher(tmp_path / "ears.wav")
    with pytest.raises(TeacherError, match="no teacher of pictures 'eyes'; there are efficientnet-lite0"):
        open_picture_teacher("eyes")
