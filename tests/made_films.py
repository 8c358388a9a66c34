"""Films whose picture and sound at every time are known, with the oddities that real files have.

A frame shown at `t` seconds is grey of level `grey_at(t)` unless told otherwise, so a frame betrays its time.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from tests.made_media import add_audio_stream, add_video_stream

Picture = Callable[[float], np.ndarray]
"""Time in seconds to RGB, uint8[height, width, 3]."""
Sound = Callable[[np.ndarray], np.ndarray]
"""Times in seconds, float64[samples], to samples in [-1, 1]."""

VIDEO_CODECS = {".webm": "libvpx", ".avi": "mpeg4", ".gif": "gif"}
AUDIO_CODECS = {
    ".webm": "libopus", ".wav": "pcm_s16le", ".mp3": "libmp3lame", ".flac": "flac", ".ogg": "libopus",
    ".avi": "libmp3lame", ".mkv": "pcm_s16le", ".mov": "pcm_s16le",
}  # fmt: skip
GREY_STEP_SECONDS = 0.2


def grey_at(seconds: float) -> int:
    """Grey level of the default picture: steps of 0.2 s, far enough apart to survive compression."""
    return 20 + 7 * (int(seconds / GREY_STEP_SECONDS + 1e-6) % 30)


def grey(size: tuple[int, int]) -> Picture:
    """A film of `size` (width, height) that is `grey_at` all over."""
    width, height = size
    return lambda seconds: np.full((height, width, 3), grey_at(seconds), np.uint8)


def sine(hz: float = 440.0, level: float = 0.5) -> Sound:
    """A tone that never stops."""
    return lambda times: level * np.sin(2 * np.pi * hz * times)


def beep(at_seconds: float, length_seconds: float = 0.1) -> Sound:
    """Silence but for one beep."""
    return lambda times: sine(1000.0)(times) * ((times >= at_seconds) & (times < at_seconds + length_seconds))


def flash(at_seconds: float, size: tuple[int, int], length_seconds: float = 0.1) -> Picture:
    """Black but for one white flash."""
    width, height = size

    def picture(seconds: float) -> np.ndarray:
        is_lit = at_seconds - 1e-6 <= seconds < at_seconds + length_seconds - 1e-6
        return np.full((height, width, 3), 255 if is_lit else 0, np.uint8)

    return picture


def write_film(
    path: Path,
    *,
    seconds: float = 3.0,
    fps: int = 25,
    size: tuple[int, int] = (64, 48),
    sound: Sound | None = None,
    picture: Picture | None = None,
    audio: bool = True,
    video: bool = True,
    sample_rate: int = 16000,
    layout: str = "mono",
    frame_times: Sequence[float] | None = None,
    pixel_aspect: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    keyframe_every: int = 12,
    num_reordered: int = 0,
    x264: str = "b-adapt=0",
    video_start_seconds: float = 0.0,
    audio_start_seconds: float = 0.0,
    audio_gap: tuple[float, float] = (0.0, 0.0),
    options: dict[str, str] | None = None,
) -> Path:
    """Write a film, a sound or both; container and codecs go by the suffix.

    Args:
        path: .mp4, .mov, .mkv, .webm, .avi, .ts, .gif, .wav, .mp3, .flac, .ogg or .m4a.
        seconds: length of sound and picture.
        fps: frames per second, unless `frame_times` are given.
        size: (width, height), both even.
        sound: what is heard; default `sine()`.
        picture: what is seen; default `grey(size)`.
        audio: whether there is sound.
        video: whether there is a picture.
        sample_rate: of the sound; Opus gets 48,000.
        layout: FFmpeg's name of the channel layout.
        frame_times: presentation times in seconds, for a variable frame rate.
        pixel_aspect: width by height of one pixel.
        matrix: (a, b, c, d) of the display matrix: a pixel at (x, y) is shown at (a x + c y, b x + d y).
        keyframe_every: frames from one keyframe to the next.
        num_reordered: frames in a row that are decoded after a later one (H.264 only).
        x264: parameters of the encoder, where frames are reordered.
        video_start_seconds: presentation time of the first frame.
        audio_start_seconds: presentation time of the first sample.
        audio_gap: presentation times between which there are no samples at all.
        options: of the muxer, such as {"movflags": "frag_keyframe"}.
    """
    suffix = path.suffix
    with av.open(str(path), "w", options=options or {}) as container:
        shown: VideoStream | None = None
        heard: AudioStream | None = None
        if video:
            shown = _add_video(container, VIDEO_CODECS.get(suffix, "libx264"), fps, size)
            shown.codec_context.gop_size = keyframe_every
            if num_reordered:
                shown.codec_context.max_b_frames = num_reordered
                shown.options = {"preset": "veryfast", "crf": "12", "x264-params": x264}
            if pixel_aspect is not None:
                shown.codec_context.sample_aspect_ratio = pixel_aspect
            if matrix is not None:
                a, b, c, d = (65536 * x for x in matrix)
                shown.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        if audio:
            codec = AUDIO_CODECS.get(suffix, "aac")
            rate = 48_000 if codec == "libopus" else sample_rate
            heard = add_audio_stream(container, codec, rate=rate, layout=layout)
        if shown is not None:
            times = frame_times or [i / fps for i in range(round(seconds * fps))]
            _write_frames(container, shown, picture or grey(size), times, video_start_seconds)
        if heard is not None:
            _write_sound(container, heard, sound or sine(), seconds, audio_start_seconds, audio_gap)
    return path


def write_wav(
    path: Path, samples: np.ndarray, *, sample_rate: int = 16_000, codec: str = "pcm_f32le"
) -> Path:
    """Write exactly these samples, [samples] or [channels, samples], with no resampler in between."""
    samples = np.atleast_2d(samples)
    sample_format, dtype, scale, offset = {
        "pcm_u8": ("u8", np.uint8, 127.0, 128),
        "pcm_s16le": ("s16", np.int16, 32767.0, 0),
        "pcm_s24le": ("s32", np.int32, 2147483647.0, 0),
        "pcm_f32le": ("flt", np.float32, 1.0, 0),
        "pcm_f64le": ("dbl", np.float64, 1.0, 0),
    }[codec]
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    interleaved = (samples.T.reshape(1, -1) * scale + offset).astype(dtype)
    frame = av.AudioFrame.from_ndarray(interleaved, format=sample_format, layout=layout)
    frame.sample_rate = sample_rate
    with av.open(str(path), "w") as container:
        stream = add_audio_stream(container, codec, rate=sample_rate, layout=layout)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_cover(source: Path, path: Path) -> Path:
    """Copy a sound with a cover picture attached."""
    with av.open(str(source)) as sound, av.open(str(path), "w") as container:
        copy = container.add_stream_from_template(sound.streams.audio[0])
        cover = add_video_stream(container, "png", rate=1, size=(32, 32))
        cover.pix_fmt = "rgb24"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture) + cover.encode(None))
        for packet in sound.demux(audio=0):
            if packet.dts is not None:
                packet.stream = copy
                container.mux(packet)
    return path


def join(paths: Sequence[Path], path: Path) -> Path:
    """Bytes one after the other: how broadcast recordings get clocks that jump."""
    path.write_bytes(b"".join(part.read_bytes() for part in paths))
    return path


def _add_video(container: OutputContainer, codec: str, fps: int, size: tuple[int, int]) -> VideoStream:
    stream = add_video_stream(container, codec, rate=fps, size=size)
    stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
    stream.codec_context.time_base = {"mpeg4": Fraction(1, fps), "gif": Fraction(1, 100)}.get(
        codec, Fraction(1, 1000)
    )
    if codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "12"}
    elif codec == "libvpx":
        stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "8"}
    if codec in ("libvpx", "mpeg4"):
        stream.codec_context.bit_rate = 2_000_000
    return stream


def _write_frames(
    container: OutputContainer, stream: VideoStream, picture: Picture, times: Sequence[float], start: float
) -> None:
    for seconds in times:
        frame = av.VideoFrame.from_ndarray(picture(seconds), format="rgb24").reformat(format=stream.pix_fmt)
        frame.time_base = stream.codec_context.time_base
        frame.pts = round((seconds + start) / frame.time_base)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_sound(
    container: OutputContainer,
    stream: AudioStream,
    sound: Sound,
    seconds: float,
    start: float,
    gap: tuple[float, float],
) -> None:
    context = stream.codec_context
    rate, size = context.sample_rate, context.frame_size or 960
    resampler = av.AudioResampler(context.format, context.layout, rate)
    for first in range(0, round(seconds * rate), size):
        last = min(first + size, round(seconds * rate))
        if gap[0] <= first / rate + start and last / rate + start <= gap[1]:
            continue
        samples = np.broadcast_to(
            sound(np.arange(first, last) / rate), (context.layout.nb_channels, last - first)
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, np.float32), format="fltp", layout=context.layout.name
        )
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + round(start * rate)
        for ready in resampler.resample(frame):
            container.mux(stream.encode(ready))
    container.mux(stream.encode(None))
