"""One output for a whole clip, from the outputs of its windows.

A window's weight is the seconds of real material that it holds for the modality: padding and silence have
none. Logits are averaged before a softmax; with a sigmoid, probabilities are averaged.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .clip import Clip, Modality


def window_weights(clips: Sequence[Clip], modality: Modality) -> Float[np.ndarray, " windows"]:
    """Seconds of real material in each window: of audible sound, of video, or the larger of both for fusion.

    If there is none at all, as in a silent recording, all windows weigh the same.
    """
    weights = np.array([_seconds(clip, modality) for clip in clips])
    return weights if weights.any() else np.ones(len(clips))


def pool(
    values: Float[np.ndarray, "windows dim"], weights: Float[np.ndarray, " windows"]
) -> Float[np.ndarray, " dim"]:
    """Weighted mean over windows, as `np.average` but without its checks, which take longer than the mean."""
    return np.asarray((values * weights[:, np.newaxis]).sum(axis=0) / weights.sum()).astype(values.dtype)


def _seconds(clip: Clip, modality: Modality) -> float:
    audio_seconds = 0.0 if clip.is_silent else clip.audio_seconds
    if modality == Modality.AUDIO:
        return audio_seconds
    if modality == Modality.VIDEO:
        return clip.video_seconds
    return max(audio_seconds, clip.video_seconds)
