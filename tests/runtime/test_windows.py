"""Windows: run in small batches, pooled by their seconds of real material, and given as tensors."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media import Clip, Modality, read_clips
from runtime import Engines, TimeRange, Zorro
from runtime.errors import InvalidOption
from tests.made_media import moving_frames, tone, write_clip


@pytest.fixture(scope="module")
def model(bundle: Path) -> Zorro:
    return Zorro.open(bundle)


@pytest.fixture(scope="module")
def uneven_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound for half of the picture, which ends inside its third window."""
    path = tmp_path_factory.mktemp("media") / "uneven.mkv"
    return write_clip(path, waveform=tone(0.9, hz=700.0), frames=moving_frames(1.6))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize(
    ("modality", "stream", "seconds"),
    [
        (Modality.AUDIO, "audio", lambda clip: clip.audio_seconds),
        (Modality.VIDEO, "video", lambda clip: clip.video_seconds),
        (Modality.FUSED, "fusion", lambda clip: max(clip.audio_seconds, clip.video_seconds)),
    ],
)
def test_each_stream_is_pooled_by_its_own_seconds(
    modality: Modality, stream: str, seconds: Any, model: Zorro, uneven_film: Path
) -> None:
    clips = list(read_clips(uneven_film, model.bundle.clip_spec))
    embeddings = model.run("fused", clips)[f"{stream}_embedding"]
    weights = np.array([seconds(clip) for clip in clips])
    assert len(set(np.round(weights, 2))) > 1  # else the rule would not show
    expected = _unit((weights[:, None] * embeddings).sum(0))
    got = model.embed(uneven_film).whole[modality].embedding
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_padding_does_not_vote(model: Zorro, tmp_path: Path) -> None:
    """A window of nothing but padding weighs nothing: sound alone, and the same sound under a longer film."""
    sound, frames = tone(0.64), moving_frames(1.92)
    alone = write_clip(tmp_path / "a.wav", waveform=sound)
    longer = write_clip(tmp_path / "a.mkv", waveform=sound, frames=frames)
    result = model.embed(longer, modalities=["audio", "video"])
    assert [window.padded for window in result.windows] == [False, True, True]
    first = result.windows[0].streams["audio"].embedding
    np.testing.assert_allclose(result.whole["audio"].embedding, first, atol=1e-6)
    assert len(model.embed(alone).windows) == 1


def test_if_all_is_silent_windows_weigh_the_same(model: Zorro, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.wav", waveform=np.zeros(round(1.6 * 16_000), np.float32))
    result = model.embed(path)
    vectors = [window.streams["audio"].embedding for window in result.windows]
    np.testing.assert_allclose(result.whole["audio"].embedding, _unit(np.mean(vectors, axis=0)), atol=1e-6)
    assert result.warnings[0].startswith("silent_audio")


def test_windows_run_in_batches_while_they_are_read(
    model: Zorro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_clip(tmp_path / "long.wav", waveform=tone(0.64 * 20))
    batches = []
    run = model.run

    def recorded(modality: Modality, clips: list[Clip]) -> dict[str, np.ndarray]:
        batches.append(len(clips))
        return run(modality, clips)

    monkeypatch.setattr(model, "run", recorded)
    assert len(model.classify(path).windows) == 20
    size = Engines().max_batch_size
    assert batches == [size, size, 4]


def test_bytes_and_file_objects_are_answered_as_paths(model: Zorro, song: Path) -> None:
    content = song.read_bytes()
    answers = [model.classify(source).whole for source in (song, str(song), content, io.BytesIO(content))]
    assert all(answer == answers[0] for answer in answers)


def test_times_are_honoured(model: Zorro, film: Path) -> None:
    time_range = TimeRange(start_seconds=0.25, end_seconds=1.25, stride_seconds=0.32)
    result = model.classify(film, time_range=time_range)
    assert [window.start_seconds for window in result.windows] == pytest.approx([0.25, 0.57, 0.89])


def test_one_name_is_a_modality(model: Zorro, film: Path) -> None:
    assert list(model.classify(film, modalities="video").whole) == ["video"]


def test_a_threshold_and_top_k_are_honoured(model: Zorro, song: Path) -> None:
    every = model.classify(song, top_k=4).whole["audio"].labels
    limit = (every[0].score + every[1].score) / 2
    assert model.classify(song, threshold=limit).whole["audio"].labels == every[:1]
    assert model.classify(song, top_k=2).whole["audio"].labels == every[:2]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"top_k": 1.5}, "whole number"),
        ({"top_k": True}, "whole number"),
        ({"top_k": "3"}, "whole number"),
        ({"top_k": float("nan")}, "whole number"),
        ({"threshold": "0.5"}, "probability"),
        ({"threshold": -0.1}, "probability"),
        ({"modalities": "smell"}, r"\['smell'\]; give one or more of audio, video, fused"),
        ({"time_range": (0.0, 1.0)}, r"time_range=\(0.0, 1.0\); give a TimeRange"),
        ({"time_range": None}, "time_range=None; give a TimeRange"),
    ],
)
def test_options_that_mean_nothing_fail(
    options: dict[str, Any], match: str, model: Zorro, song: Path
) -> None:
    with pytest.raises(InvalidOption, match=match):
        model.classify(song, **options)


def test_run_answers_for_tensors(model: Zorro, film: Path) -> None:
    clips = list(read_clips(film, model.bundle.clip_spec))
    outputs = model.run("fused", clips)
    assert outputs["fusion_logits"].shape == (len(clips), 4)
    np.testing.assert_array_equal(
        outputs["audio_features"], model.run(Modality.AUDIO, clips)["audio_features"]
    )
    assert model.logits(Modality.VIDEO, []).shape == (0, 4)


def test_run_fails_on_clips_that_are_not_for_it(model: Zorro, film: Path) -> None:
    clip = next(iter(read_clips(film, model.bundle.clip_spec)))
    for wrong, match in (
        (replace(clip, audio=None), "got None"),
        (replace(clip, audio=clip.audio[:-1]), r"audio as float32\[64, 32\], got float32\[63, 32\]"),
        (replace(clip, audio=clip.audio.astype(np.float64)), "got float64"),
    ):
        with pytest.raises(InvalidOption, match=match):
            model.run("audio", [clip, wrong])
    with pytest.raises(InvalidOption, match="0 clips"):
        model.run("audio", [])
    with pytest.raises(InvalidOption, match="give one or more of"):
        model.run("smell", [clip])
