"""Films made in code that decode like real ones.

Textures move under grain and scenes are cut; H.264 has the settings that x264 has by default, and the audio
is AAC. A long film is a short one whose packets are repeated with later times.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer

FRAMES_PER_SECOND = 30
FILM_SAMPLE_RATE = 48_000
SCENE_SECONDS = (0.0, 2.3, 4.1, 6.6, 8.2)  # starts of scenes; x264 puts a keyframe at a cut
GRAIN = 4.0  # standard deviation of the noise, of 255
MAX_GAP_FRAMES = 250  # between keyframes: x264's default


def write_film(
    path: Path,
    *,
    width: int,
    height: int,
    seconds: float = 10.0,
    preset: str = "medium",
    gap_frames: int = MAX_GAP_FRAMES,
) -> Path:
    """Write a film of H.264 and AAC to `path`, an .mp4; returns the path.

    Args:
        path: of the file.
        width: in pixels.
        height: in pixels.
        seconds: length of the film.
        preset: x264's preset.
        gap_frames: at most so many frames from one keyframe to the next.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAMES_PER_SECOND)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.options = {"preset": preset, "crf": "23"}
        video.codec_context.gop_size = gap_frames
        audio = container.add_stream("aac", rate=FILM_SAMPLE_RATE, layout="stereo")
        audio.bit_rate = 128_000
        scenes = _Scenes(width, height)
        for i in range(round(seconds * FRAMES_PER_SECOND)):
            frame = av.VideoFrame.from_ndarray(scenes.pixels(i), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, FRAMES_PER_SECOND)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        _write_audio(container, audio, seconds)
    return path


def repeat(source: Path, path: Path, *, times: int) -> Path:
    """Write the packets of `source` `times` times in a row to `path`, without decoding them."""
    with av.open(str(source)) as film, av.open(str(path), "w") as container:
        streams = {
            s.index: container.add_stream_from_template(s)
            for s in (film.streams.video[0], film.streams.audio[0])
        }
        packets = [packet for packet in film.demux() if packet.dts is not None]
        lengths = {
            index: sum(packet.duration or 0 for packet in packets if packet.stream_index == index)
            for index in streams
        }
        content = [
            (bytes(p), p.stream_index, p.pts or 0, p.dts or 0, p.duration, p.time_base, p.is_keyframe)
            for p in packets
        ]
        for i in range(times):
            for data, index, pts, dts, duration, time_base, is_keyframe in content:
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + i * lengths[index], dts + i * lengths[index]
                packet.duration, packet.time_base, packet.is_keyframe = duration, time_base, is_keyframe
                packet.stream = streams[index]
                container.mux(packet)
    return path


class _Scenes:
    """Frames of a film: a texture that pans, a disc that crosses it, and grain."""

    def __init__(self, width: int, height: int) -> None:
        self._width, self._height = width, height
        self._random = np.random.default_rng(7)
        self._grain = [self._random.normal(0, GRAIN, (height, width, 1)).astype(np.int16) for _ in range(8)]
        self._textures = [self._texture() for _ in SCENE_SECONDS]
        self._rows, self._columns = np.mgrid[:height, :width] / height

    def pixels(self, index: int) -> np.ndarray:
        """Frame `index`, uint8 [height, width, 3]."""
        seconds = index / FRAMES_PER_SECOND
        scene = sum(start <= seconds % 10 for start in SCENE_SECONDS) - 1
        texture = self._textures[scene]
        drift = self._height * 0.05 * seconds
        top, left = round(drift * np.sin(scene)) % self._height, round(drift * 1.7) % self._width
        shown = (
            texture[top : top + self._height, left : left + self._width]
            + self._grain[self._random.integers(8)]
        )
        across = 0.3 + 0.15 * (seconds % 7)
        disc = (self._rows - 0.5 - 0.2 * np.sin(3 * seconds)) ** 2 + (self._columns - across) ** 2 < 0.03
        shown[disc] += np.array((60, -40, 20), np.int16)
        return shown.clip(0, 255).astype(np.uint8)

    def _texture(self) -> np.ndarray:
        """Noise with the falling spectrum of photographs, twice as high and wide as a frame."""
        height, width = 2 * self._height, 2 * self._width
        frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]) + 1 / self._height
        channels = []
        for _ in range(3):
            spectrum = np.fft.rfft2(self._random.standard_normal((height, width))) / frequency**1.2
            channel = np.fft.irfft2(spectrum, s=(height, width))
            channels.append(channel / channel.std())
        luma = channels[0][..., None]
        texture: np.ndarray = 120 + 45 * luma + 12 * np.stack(channels, axis=-1)
        return texture.astype(np.int16)


def _write_audio(container: OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """A chord in noise, stereo."""
    num_samples = round(seconds * FILM_SAMPLE_RATE)
    t = np.arange(num_samples) / FILM_SAMPLE_RATE
    noise = np.random.default_rng(3).normal(0, 0.05, (2, num_samples))
    chord = sum(0.15 * np.sin(2 * np.pi * hz * t) for hz in (220, 277.2, 329.6))
    samples = (chord + noise).astype(np.float32)
    size = stream.codec_context.frame_size or 1024
    for start in range(0, num_samples, size):
        part = np.ascontiguousarray(samples[:, start : start + size])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = FILM_SAMPLE_RATE, start, Fraction(1, FILM_SAMPLE_RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
