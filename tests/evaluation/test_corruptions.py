"""Corruptions of a clip: how much noise there is, which frames are left, how far a point is spread."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.manifests import Item
from evaluation.corruptions import (
    CORRUPTION_SCALES,
    Corruption,
    CorruptionKind,
    babble_noise,
    blur_frames,
    corrupt,
    corruptions_of,
    drop_frames,
    mix_at_snr,
)
from evaluation.views import View, ViewPlan, read_views
from media import ClipSpec, probe
from media.log_mel import log_mel
from tests.made_media import tone


@pytest.fixture(scope="module")
def view(film: Path, spec: ClipSpec) -> View:
    item = Item(film, "both", ("a",), "test")
    return read_views(item, spec, probe(film), ViewPlan(), audio=True, video=True, with_waveform=True)[0]


def _power(x: np.ndarray) -> float:
    return float(np.mean(x.astype(np.float64) ** 2))


def _random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("snr_db", [20.0, 0.0, -10.0])
def test_noise_has_the_power_it_should(snr_db: float) -> None:
    sound = tone(2.0)
    noise = mix_at_snr(sound, _random().standard_normal(len(sound)), snr_db) - sound
    assert 10 * np.log10(_power(sound) / _power(noise)) == pytest.approx(snr_db, abs=0.1)


def test_silence_stays_silence() -> None:
    assert not mix_at_snr(np.zeros(100, np.float32), _random().standard_normal(100), 0.0).any()


@pytest.mark.parametrize("kind", [CorruptionKind.NOISE, CorruptionKind.BABBLE])
def test_noise_makes_the_spectrogram_anew(view: View, spec: ClipSpec, kind: CorruptionKind) -> None:
    others = [tone(1.0, hz=1500), tone(0.3, hz=2500)]
    mild, harsh = (
        corrupt(view, Corruption(kind, level), spec, _random(), babble=others) for level in (20, 0)
    )
    added = harsh.waveform - view.waveform
    assert 10 * np.log10(_power(view.waveform) / _power(added)) == pytest.approx(0, abs=0.2)
    padded = np.pad(harsh.waveform, (0, spec.num_samples - len(harsh.waveform)))
    assert np.array_equal(harsh.clip.audio, log_mel(padded, spec))
    np.testing.assert_allclose(
        (mild.waveform - view.waveform) * 10, added, atol=1e-5
    )  # the same, 20 dB weaker
    assert harsh.clip.video is view.clip.video


def test_babble_is_of_the_other_clips_equally_loud() -> None:
    talkers = [tone(1.0, hz=500, level=0.9), tone(1.0, hz=900, level=0.01)]
    spectrum = np.abs(np.fft.rfft(babble_noise(talkers, 16_000, _random())))
    assert np.argsort(spectrum)[-2:].tolist() in ([500, 900], [900, 500])
    assert spectrum[500] == pytest.approx(spectrum[900], rel=1e-3)
    assert _power(babble_noise([tone(0.1)], 500, _random())) == pytest.approx(1)


def test_babble_of_nobody_fails(view: View, spec: ClipSpec) -> None:
    with pytest.raises(ValueError, match="none of 2 sounds"):
        babble_noise([np.zeros(9, np.float32)] * 2, 100, _random())
    with pytest.raises(ValueError, match="none of 0 sounds"):
        corrupt(view, Corruption(CorruptionKind.BABBLE, 0), spec, _random())


def test_noise_without_a_waveform_fails(view: View, spec: ClipSpec) -> None:
    with pytest.raises(ValueError, match="with_waveform=True"):
        corrupt(replace(view, waveform=None), Corruption(CorruptionKind.NOISE, 0), spec, _random())


def test_dropped_frames_show_the_last_kept() -> None:
    frames = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    shown = drop_frames(frames, 0.5, _random())[:, 0, 0, 0]
    kept = [i for i in range(8) if shown[i] == i]
    assert len(kept) == 4
    assert shown.tolist() == [max(k for k in kept if k <= i) for i in range(8)]
    assert drop_frames(frames, 0.0, _random()).tolist() == frames.tolist()
    assert not drop_frames(frames, 1.0, _random()).any()  # the first alone is left, which is 0


def test_levels_drop_more_of_the_same_frames() -> None:
    frames = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 1, 3), np.uint8)
    few, many = (
        {i for i in range(16) if drop_frames(frames, s, _random())[i, 0, 0, 0] != i} for s in (0.25, 0.75)
    )
    assert (len(few), len(many)) == (4, 12)
    assert few < many


def test_blur_spreads_a_point_as_a_gaussian_does() -> None:
    frames = np.zeros((2, 31, 31, 3), np.uint8)
    frames[0, 15, 15, 1] = 255
    found = blur_frames(frames, 1.0)
    assert found[0, 15, 15, 1] == round(255 / (2 * np.pi))  # a Gaussian's peak: 1 / (2 pi sigma^2)
    assert found[0, 15, 16, 1] == round(255 / (2 * np.pi) * np.exp(-0.5))
    assert not found[1].any()  # frames do not mix
    assert not found[0, :, :, [0, 2]].any()  # nor colours
    assert np.array_equal(blur_frames(frames, 0.0), frames)


def test_a_modality_is_taken_away(view: View, spec: ClipSpec) -> None:
    deaf = corrupt(view, Corruption(CorruptionKind.NO_AUDIO), spec, _random())
    blind = corrupt(view, Corruption(CorruptionKind.NO_VIDEO), spec, _random())
    assert deaf.clip.audio is None
    assert deaf.clip.video is view.clip.video
    assert blind.clip.video is None
    assert blind.clip.audio is view.clip.audio


def test_what_is_not_there_stays_away(view: View, spec: ClipSpec) -> None:
    nothing = replace(view, clip=replace(view.clip, audio=None, video=None), waveform=None)
    for kind, scale in CORRUPTION_SCALES.items():
        assert corrupt(nothing, Corruption(kind, scale.levels[0]), spec, _random()) is nothing


def test_a_corruption_fails() -> None:
    with pytest.raises(ValueError, match="level=None for noise"):
        Corruption(CorruptionKind.NOISE)
    with pytest.raises(ValueError, match="level=3 for no_audio"):
        Corruption(CorruptionKind.NO_AUDIO, 3)
    with pytest.raises(ValueError, match="level=1.5 for dropped_frames"):
        Corruption(CorruptionKind.DROPPED_FRAMES, 1.5)
    with pytest.raises(ValueError, match="level=-1 for blur"):
        Corruption(CorruptionKind.BLUR, -1)
    with pytest.raises(ValueError, match="not a valid CorruptionKind"):
        Corruption("fog", 1)


def test_corruptions_are_listed_from_mild_to_harsh() -> None:
    assert [x.level for x in corruptions_of(CorruptionKind.BLUR)] == [1, 2, 4, 8]
    assert {x.kind for x in corruptions_of()} == CORRUPTION_SCALES.keys()
