"""Material on disk: made once, each item by the seed and its number alone, of whatever decodes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.manifests import Item
from media import ClipSpec
from media.progress import ignore_progress
from tests.made_media import jpeg_bytes, moving_frames, tone, write_clip
from tests.training.distillation.fake_teachers import (
    CAT,
    DALMATIAN,
    DOG,
    TABBY,
    FakeAudioTeacher,
    FakePictureTeacher,
)
from training.distillation.material import SplitPlan
from training.distillation.pictures import picture_material
from training.distillation.sounds import _coloured_noise, _with_other, sound_material
from training.recipe import Distillation

SPEC = ClipSpec(num_mel_frames=64, num_mel_bins=32, frame_size=32)
HOW = Distillation(num_sounds=6, num_pictures=6)


@pytest.fixture
def plan(tmp_path: Path) -> SplitPlan:
    """Two sounds, two pictures, a film, and a file that is none of these."""
    files = tmp_path / "files"
    files.mkdir()
    for name, hz in (("dog", 300), ("cat", 3_000)):
        write_clip(files / f"{name}.wav", waveform=tone(0.9, hz=hz))
    for name, colour in (("dalmatian", (220, 30, 30)), ("tabby", (30, 30, 220))):
        (files / f"{name}.jpg").write_bytes(jpeg_bytes(np.full((48, 64, 3), colour, np.uint8)))
    write_clip(files / "film.mp4", frames=moving_frames(1.0, size=(64, 48)))
    (files / "broken.wav").write_bytes(b"no sound")
    names = ("dog.wav", "broken.wav", "cat.wav", "dalmatian.jpg", "tabby.jpg", "film.mp4")
    items = [
        Item(files / x, "audio" if x.endswith("wav") else "video", (x.partition(".")[0],), "train")
        for x in names
    ]
    return SplitPlan(
        items=items,
        spec=SPEC,
        how=HOW,
        seed=3,
        augment=True,
        cache_dir=tmp_path / "cache",
        on_progress=ignore_progress,
    )


def test_windows_are_those_of_their_seed_and_number(plan: SplitPlan) -> None:
    six = sound_material(plan, lambda: [FakeAudioTeacher()])
    three = sound_material(replace(plan, how=replace(HOW, num_sounds=3)), lambda: [FakeAudioTeacher()])
    for name in ("log_mel", "probabilities", "source", "is_plain"):
        np.testing.assert_array_equal(getattr(six, name)[:3], getattr(three, name))
    other = sound_material(replace(plan, seed=4), lambda: [FakeAudioTeacher()])
    assert not np.array_equal(six.log_mel, other.log_mel)


def test_pictures_are_those_of_their_seed_and_number(plan: SplitPlan) -> None:
    six = picture_material(plan, lambda: [FakePictureTeacher()])
    three = picture_material(replace(plan, how=replace(HOW, num_pictures=3)), lambda: [FakePictureTeacher()])
    np.testing.assert_array_equal(six.frames[:3], three.frames)
    np.testing.assert_array_equal(six.source[:3], three.source)


def test_material_that_is_there_needs_no_teacher(plan: SplitPlan) -> None:
    def nobody() -> list[FakeAudioTeacher]:
        raise AssertionError("asked for teachers")

    made = sound_material(plan, lambda: [FakeAudioTeacher()])
    np.testing.assert_array_equal(sound_material(plan, nobody).log_mel, made.log_mel)
    with pytest.raises(AssertionError, match="asked for teachers"):
        sound_material(replace(plan, spec=replace(SPEC, num_mel_bins=16)), nobody)


def test_without_augmentation_there_is_one_of_each_item_that_decodes(plan: SplitPlan) -> None:
    plain = replace(plan, augment=False)
    sounds = sound_material(plain, lambda: [FakeAudioTeacher()])
    assert sounds.source.tolist() == [0, 2]
    assert sounds.is_plain.all()
    assert sounds.probabilities.argmax(1).tolist() == [DOG, CAT]
    pictures = picture_material(plain, lambda: [FakePictureTeacher()])
    assert pictures.source.tolist() == [3, 4, 5]
    assert (pictures.probabilities.argmax(1) + 527).tolist()[:2] == [DALMATIAN, TABBY]


def test_teachers_are_joined_where_they_know_a_label(plan: SplitPlan) -> None:
    plain = replace(plan, augment=False)
    both = [FakeAudioTeacher(), FakeAudioTeacher(knows=[CAT])]
    dog = sound_material(plain, lambda: both).probabilities[0].astype(float)
    assert dog[DOG] == pytest.approx(0.8, abs=1e-3)
    assert dog[CAT] == pytest.approx(0.01, abs=1e-3)


def test_a_split_of_which_nothing_decodes_fails(plan: SplitPlan) -> None:
    broken = replace(plan, items=[plan.items[1]])
    with pytest.raises(ValueError, match="none of 1 files of audio decodes; run zorro data check"):
        sound_material(broken, lambda: [FakeAudioTeacher()])


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 15.0])
def test_a_second_sound_is_so_many_decibels_below(snr_db: float) -> None:
    draw = np.random.default_rng(0)
    first, second = (_coloured_noise(32_000, slope, draw) for slope in (0.0, 0.5))
    added = _with_other(first, second, snr_db) - first
    assert 10 * np.log10(np.mean(first**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=1e-3)


def test_silence_is_mixed_as_it_is() -> None:
    sound = tone(0.5)
    np.testing.assert_array_equal(_with_other(np.zeros_like(sound), sound, 10.0), sound)
