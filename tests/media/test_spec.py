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


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ({"num_mel_bins": 0}, "num_mel_bins=0"),
        ({"window_length": 100}, "window_length"),
        ({"window_length": 401}, "window_length"),
        ({"max_hz": 9_000.0}, "max_hz"),
        ({"log_offset": 0.0}, "positive"),
    ],
)
def test_contradictions_fail(numbers: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ClipSpec(**numbers)


def test_unknown_number_fails() -> None:
    with pytest.raises(ValueError, match="unknown=\\['colour'\\]"):
        ClipSpec.from_dict(ClipSpec().to_dict() | {"colour": 1})
