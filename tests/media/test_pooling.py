"""One answer from many windows: padding and silence do not vote."""

import numpy as np
import pytest

from media import Clip, Modality
from media.pooling import pool, window_weights


def window(audio_seconds: float, video_seconds: float, *, is_silent: bool = False) -> Clip:
    return Clip(0.0, 1.0, None, None, audio_seconds, video_seconds, is_silent, padded=False)


WINDOWS = [window(1.0, 1.0), window(0.5, 0.25), window(1.0, 0.75, is_silent=True)]


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        (Modality.AUDIO, [1.0, 0.5, 0.0]),
        (Modality.VIDEO, [1.0, 0.25, 0.75]),
        (Modality.FUSED, [1.0, 0.5, 0.75]),
    ],
)
def test_a_window_weighs_what_it_holds(modality: Modality, expected: list[float]) -> None:
    assert window_weights(WINDOWS, modality).tolist() == expected


def test_silence_alone_weighs_the_same_everywhere() -> None:
    silent = [window(1.0, 0.0, is_silent=True)] * 3
    assert window_weights(silent, Modality.AUDIO).tolist() == [1.0, 1.0, 1.0]


def test_the_pooled_value_is_the_weighted_mean() -> None:
    values = np.array([[1.0, 0.0], [4.0, 8.0]], np.float32)
    pooled = pool(values, np.array([3.0, 1.0]))
    np.testing.assert_allclose(pooled, [1.75, 2.0])
    assert pooled.dtype == np.float32
