"""Media made in code: tones, noise, coloured pictures that move, in any container FFmpeg writes."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

AUDIO_CODECS = {
    ".webm": "libopus",
    ".mkv": "libopus",
    ".wav": "pcm_s16le",
    ".mp3": "libmp3lame",
    ".flac": "flac",
}
VIDEO_CODECS = {".webm": "libvpx", ".mkv": "libx264"}


def tone(seconds: float, *, hz: float = 440.0, sample_rate: int = 16_000, level: float = 0.5) -> np.ndarray:
    """Mono float32 sine."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * sample_rate)) / sample_rate)).astype(
        np.float32
    )


def moving_frames(seconds: float, *, fps: int = 25, size: tuple[int, int] = (96, 64)) -> list[np.ndarray]:
    """RGB frames whose red level counts the time: frame i has red 10 * (i % 25)."""
    width, height = size
    frames = []
    for i in range(round(seconds * fps)):
        frame = np.full((height, width, 3), (10 * (i % 25), 80, 40), np.uint8)
        frame[: height // 4, : width // 4] = (20, 20, 220)
        frames.append(frame)
    return frames


def write_clip(
    path: Path,
    *,
    waveform: np.ndarray | None = None,
    frames: list[np.ndarray] | None = None,
    sample_rate: int = 16_000,
    channels: int = 1,
    fps: int = 25,
) -> Path:
    """Encode sound, picture or both; the container and codecs follow from the suffix."""
    with av.open(str(path), "w") as container:
        # Both before the first packet: the container's header names them.
        video = None if frames is None else _add_video(container, path.suffix, frames[0], fps)
        audio = None if waveform is None else _add_audio(container, path.suffix, sample_rate, channels)
        if video is not None and frames is not None:
            for i, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, fps)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None and waveform is not None:
            _write_audio(container, audio, waveform, sample_rate, channels)
    return path


def clip_bytes(suffix: str, tmp_path: Path, **kwargs: Any) -> bytes:
    """The bytes of `write_clip`."""
    return write_clip(tmp_path / f"made{suffix}", **kwargs).read_bytes()


def jpeg_bytes(rgb: np.ndarray) -> bytes:
    """One picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mjpeg") as container:
        stream = add_video_stream(container, "mjpeg", rate=1, size=(rgb.shape[1], rgb.shape[0]))
        stream.pix_fmt = "yuvj420p"
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuvj420p")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def add_video_stream(
    container: OutputContainer, codec: str, *, rate: int, size: tuple[int, int], **options: str
) -> VideoStream:
    """A new stream of pictures of this size (width, height); options are the encoder's."""
    stream = container.add_stream(codec, rate=rate, options=options)
    assert isinstance(stream, VideoStream), f"{codec} encodes no pictures"
    stream.width, stream.height = size
    return stream


def add_audio_stream(container: OutputContainer, codec: str, *, rate: int, layout: str) -> AudioStream:
    """A new stream of sound."""
    stream = container.add_stream(codec, rate=rate, layout=layout)
    assert isinstance(stream, AudioStream), f"{codec} encodes no sound"
    return stream


def _add_video(container: OutputContainer, suffix: str, first: np.ndarray, fps: int) -> VideoStream:
    size = (first.shape[1], first.shape[0])
    stream = add_video_stream(container, VIDEO_CODECS.get(suffix, "libx264"), rate=fps, size=size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.gop_size = 12
    if stream.codec_context.name == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "12"}
    return stream


def _add_audio(container: OutputContainer, suffix: str, sample_rate: int, channels: int) -> AudioStream:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    return add_audio_stream(container, AUDIO_CODECS.get(suffix, "aac"), rate=sample_rate, layout=layout)


def _write_audio(
    container: OutputContainer, stream: AudioStream, waveform: np.ndarray, sample_rate: int, channels: int
) -> None:
    step = 960
    for start in range(0, len(waveform), step):
        part = np.repeat(waveform[None, start : start + step], channels, axis=0)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(part), format="fltp", layout=stream.layout.name
        )
        frame.sample_rate, frame.pts, frame.time_base = sample_rate, start, Fraction(1, sample_rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
