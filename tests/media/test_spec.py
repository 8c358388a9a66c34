"""ClipSpec: derived numbers, and contradictions refused."""

import pytest

from media import ClipSpec


def test_derived_numbers() -> None:
    spec = ClipSpec(
        sample_rate=8_000,
        hop_length=80,
        window_length=200,
        num_mel_frames=100,
        num_video_frames=4,
        max_hz=4_000,
    )
    assert spec.num_samples == 8_000
    assert spec.window_seconds == 1.0
    assert spec.frame_offsets_seconds == (0.125, 0.375, 0.625, 0.875)


def test_hash_is_stable_and_tells_specs_apart() -> None:
    assert ClipSpec().hash == "68a3131f944a6d485db5c8ba74d357a945e2192c6c17cec84f1efe79d8b3417d"
    assert ClipSpec(num_mel_bins=64).hash != ClipSpec().hash


def test_dict_there_and_back() -> None:
    spec = ClipSpec(video_mean=(1.0, 2.0, 3.0))
    assert ClipSpec.from_dict(spec.to_dict()) == spec


def test_a_spec_stored_before_the_later_numbers_loads_and_keeps_its_hash() -> None:
    stored = {
        **{"audio_mean": -9.1, "audio_std": 4.1, "frame_size": 128, "hop_length": 160, "log_offset": 1e-06},
        **{"max_hz": 8000.0, "min_hz": 0.0, "num_mel_bins": 80, "num_mel_frames": 512, "num_video_frames": 2},
        **{"sample_rate": 16000, "video_mean": [132.9, 135.0, 137.8], "video_std": [69.9, 68.6, 72.8]},
        "window_length": 512,
    }
    spec = ClipSpec.from_dict(stored)
    assert spec.to_dict() == stored
    assert spec.hash == "17f74618c2f121b5dca03fdaa3dd66669235a632a5d4bd0e9fb9011d7adf3e76"
    assert spec.centre_of_first_frame == 80
    assert (spec.num_fft_samples, spec.symmetric_window, spec.unit_energy) == (512, False, True)
    assert (spec.pre_emphasis, spec.crop_fraction) == (0.0, 1.0)


@pytest.mark.parametrize(
    "later",
    [
        {"fft_length": 1_024},
        {"first_centre": 0},
        {"symmetric_window": True},
        {"unit_energy": False},
        {"pre_emphasis": 0.97},
        {"crop_fraction": 0.875},
    ],
)
def test_later_numbers_are_written_where_they_differ(later: dict[str, float]) -> None:
    spec = ClipSpec(**later)
    assert spec.to_dict() == ClipSpec().to_dict() | later
    assert ClipSpec.from_dict(spec.to_dict()) == spec
    assert spec.hash != ClipSpec().hash


def test_every_number_but_the_later_ones_is_required() -> None:
    with pytest.raises(ValueError, match="missing=\\['log_offset'\\]"):
        ClipSpec.from_dict({k: v for k, v in ClipSpec().to_dict().items() if k != "log_offset"})


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ({"num_mel_bins": 0}, "num_mel_bins=0"),
        ({"window_length": 100}, "window_length"),
        ({"window_length": 401}, "window_length"),
        ({"max_hz": 9_000.0}, "max_hz"),
        ({"log_offset": 0.0}, "positive"),
        ({"fft_length": 511}, "fft_length=511 is shorter"),
        ({"first_centre": -1}, "first_centre"),
        ({"first_centre": 257}, "first_centre"),
        ({"pre_emphasis": 1.0}, "pre_emphasis"),
        ({"pre_emphasis": -0.1}, "pre_emphasis"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": 1.1}, "crop_fraction"),
    ],
)
def test_contradictions_fail(numbers: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ClipSpec(**numbers)


def test_unknown_number_fails() -> None:
    with pytest.raises(ValueError, match="unknown=\\['colour'\\]"):
        ClipSpec.from_dict(ClipSpec().to_dict() | {"colour": 1})
