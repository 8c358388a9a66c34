"""Scores of unpaired pairs with one side corrupted: what fusion is for."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from datasets.manifests import Item
from media.clip import Clip, Modality, read_waveform
from media.log_mel import log_mel
from media.spec import ClipSpec

from .corruptions import mix_at_snr
from .metrics import score_logits
from .pairing import make_pairs, pair_clips
from .predictors import Predictor
from .unpaired_scores import pooled_logits

SNR_DB = -5.0


def score_corrupted_pairs(
    predictor: Predictor,
    items: Sequence[Item],
    targets: dict[str, int],
    spec: ClipSpec,
    clips: Sequence[Sequence[Clip]],
    *,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Tables of the pairs with white noise 5 dB above the sound, and with noise in place of the picture.

    For each there are two tables: of the corrupted stream, and of the fused one.
    """
    pairs = make_pairs(items, seed=seed)
    if not pairs:
        return {}
    names = [label for label, _ in sorted(targets.items(), key=lambda pair: pair[1])]
    truth = np.array([targets[items[i].label] for i, _ in pairs])
    random = np.random.default_rng(seed)
    noisy = {
        i: noisy_windows(items[i], clips[i], spec, random, SNR_DB) for i in sorted({i for i, _ in pairs})
    }
    noisy_audio = [pair_clips(noisy[i], clips[j]) for i, j in pairs]
    noise_for_video = [
        [with_noise_for_video(clip, random) for clip in pair_clips(clips[i], clips[j])] for i, j in pairs
    ]
    tables = {}
    for name, paired, stream in (
        ("noisy_sound", noisy_audio, Modality.AUDIO),
        ("noise_for_picture", noise_for_video, Modality.VIDEO),
    ):
        for modality in (stream, Modality.FUSED):
            tables[f"{name}_{modality}"] = score_logits(
                pooled_logits(predictor, modality, paired), truth, names
            )
    return tables


def noisy_windows(
    item: Item, windows: Sequence[Clip], spec: ClipSpec, random: np.random.Generator, snr_db: float
) -> list[Clip]:
    """The item's windows with white noise added to the waveform.

    `snr_db` is the ratio of the whole recording's power to the noise.
    """
    waveform = read_waveform(item.path, spec)
    noisy = mix_at_snr(waveform, random.standard_normal(len(waveform)), snr_db)
    found = []
    for window in windows:
        start = round(window.start_seconds * spec.sample_rate)
        part = noisy[start : start + spec.num_samples]
        padded = np.pad(part, (0, spec.num_samples - len(part)))
        found.append(replace(window, audio=log_mel(padded, spec), is_silent=False))
    return found


def with_noise_for_video(clip: Clip, random: np.random.Generator) -> Clip:
    """The clip with noise in place of its frames."""
    assert clip.video is not None
    return replace(clip, video=random.integers(0, 256, clip.video.shape, dtype=np.uint8))
