"""Media for tests, made in code: films, sounds and pictures whose content at every time is known.

A frame shown at `t` seconds is grey of level `grey_at(t)` unless told otherwise, so a frame betrays its time.
"""

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

Picture = Callable[[float], np.ndarray]
"""Time in seconds to RGB, uint8[height, width, 3]."""
Sound = Callable[[np.ndarray], np.ndarray]
"""Times in seconds, float64[samples], to float samples in [-1, 1]: [samples] or [channels, samples]."""

VIDEO_CODECS = {".webm": "libvpx", ".avi": "mpeg4", ".gif": "gif", ".ts": "libx264"}
AUDIO_CODECS = {
    ".webm": "libopus", ".opus": "libopus", ".ogg": "libopus", ".wav": "pcm_s16le", ".mp3": "libmp3lame",
    ".flac": "flac", ".avi": "libmp3lame", ".mkv": "pcm_s16le", ".mov": "pcm_s16le",
}  # fmt: skip
AUDIO_ONLY = {".wav", ".mp3", ".flac", ".opus", ".ogg", ".m4a"}
VIDEO_ONLY = {".gif"}
GREY_STEP_SECONDS = 0.2


def grey_at(seconds: float) -> int:
    """Grey level of the default picture: steps of 0.2 s, far enough apart to survive compression."""
    return 20 + 7 * (int(seconds / GREY_STEP_SECONDS + 1e-6) % 30)


def grey(size: tuple[int, int]) -> Picture:
    """A film of `size` (width, height) that is `grey_at` all over."""
    width, height = size
    return lambda seconds: np.full((height, width, 3), grey_at(seconds), np.uint8)


def tone(hz: float = 440.0, amplitude: float = 0.5) -> Sound:
    """A sine that never stops."""
    return lambda times: amplitude * np.sin(2 * np.pi * hz * times)


def silence(times: np.ndarray) -> np.ndarray:
    """Nothing to hear."""
    return np.zeros(len(times))


def beep(at_seconds: float, *, length_seconds: float = 0.1, hz: float = 1000.0) -> Sound:
    """Silence but for one beep."""
    return lambda times: np.where(
        (times >= at_seconds) & (times < at_seconds + length_seconds), 0.8 * np.sin(2 * np.pi * hz * times), 0.0
    )


def flash(at_seconds: float, size: tuple[int, int], *, length_seconds: float = 0.1) -> Picture:
    """Black but for one white flash."""
    width, height = size

    def picture(seconds: float) -> np.ndarray:
        is_lit = at_seconds - 1e-6 <= seconds < at_seconds + length_seconds - 1e-6
        return np.full((height, width, 3), 255 if is_lit else 0, np.uint8)

    return picture


def write_clip(
    path: str | Path,
    *,
    seconds: float = 3.0,
    fps: float = 25,
    size: tuple[int, int] = (64, 48),
    audio: bool = True,
    video: bool = True,
    sample_rate: int = 16000,
    channels: int = 1,
    picture: Picture | None = None,
    sound: Sound | None = None,
    frame_times: Sequence[float] | None = None,
    video_codec: str | None = None,
    audio_codec: str | None = None,
    pixel_aspect: Fraction | None = None,
    keyframe_every: int = 12,
    video_start_seconds: float = 0.0,
    audio_start_seconds: float = 0.0,
    audio_gaps: Sequence[tuple[float, float]] = (),
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a film, a sound or both; the container goes by the suffix.

    Args:
        path: .mp4, .mov, .mkv, .webm, .avi, .ts, .gif, .wav, .mp3, .flac, .opus, .ogg or .m4a.
        seconds: length of sound and picture.
        fps: frames per second, unless `frame_times` are given.
        size: (width, height), both even.
        audio: whether there is sound (never in .gif).
        video: whether there is a picture (never in .wav, .mp3, ...).
        sample_rate: of the sound; Opus wants 48,000 and gets it.
        channels: 1, 2 or 6.
        picture: what is seen; default `grey`.
        sound: what is heard; default `tone()`.
        frame_times: presentation times in seconds, for a variable frame rate.
        video_codec: FFmpeg's name; default by the container.
        audio_codec: FFmpeg's name; default by the container.
        pixel_aspect: width by height of one pixel.
        keyframe_every: frames from one keyframe to the next.
        video_start_seconds: presentation time of the first frame.
        audio_start_seconds: presentation time of the first sample.
        audio_gaps: spans of presentation time in which there are no samples at all.
        container_options: for the muxer, such as {"movflags": "frag_keyframe"}.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    with av.open(str(path), "w", options=container_options or {}) as container:
        streams: list[tuple[VideoStream | None, AudioStream | None]] = []
        video_out = audio_out = None
        if video and suffix not in AUDIO_ONLY:
            video_out = _add_video(container, video_codec or VIDEO_CODECS.get(suffix, "libx264"), fps, size)
            video_out.codec_context.gop_size = keyframe_every
            if pixel_aspect is not None:
                video_out.codec_context.sample_aspect_ratio = pixel_aspect
        if audio and suffix not in VIDEO_ONLY:
            codec = audio_codec or AUDIO_CODECS.get(suffix, "aac")
            sample_rate = 48_000 if codec == "libopus" else sample_rate
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
            audio_out = container.add_stream(codec, rate=sample_rate, layout=layout)
        streams.append((video_out, audio_out))
        if video_out is not None:
            times = [i / fps for i in range(round(seconds * fps))] if frame_times is None else list(frame_times)
            _write_frames(container, video_out, picture or grey(size), times, video_start_seconds)
        if audio_out is not None:
            _write_sound(
                container, audio_out, sound or tone(), seconds, channels, audio_start_seconds, audio_gaps
            )
    return path


def clip_bytes(suffix: str, folder: Path, **options: object) -> bytes:
    """The bytes of what `write_clip` writes, with its options; `folder` is for the time being."""
    path = write_clip(folder / f"clip-{abs(hash(repr(sorted(options.items()))))}{suffix}", **options)  # type: ignore[arg-type]
    return path.read_bytes()


def write_picture(path: str | Path, rgb: np.ndarray | None = None) -> Path:
    """Write a still picture, .jpg or .png; default a grey of 64 x 48."""
    path = Path(path)
    rgb = np.full((48, 64, 3), 128, np.uint8) if rgb is None else rgb
    codec, pixel_format = {".jpg": ("mjpeg", "yuvj444p"), ".png": ("png", "rgb24")}[path.suffix]
    path.write_bytes(_encode_picture(codec, pixel_format, rgb))
    return path


def write_wav(
    path: str | Path, samples: np.ndarray, *, sample_rate: int = 16_000, codec: str = "pcm_f32le"
) -> Path:
    """Write exactly these samples, [samples] or [channels, samples], without a resampler in between.

    Codecs: pcm_u8, pcm_s16le, pcm_s32le, pcm_f32le, pcm_f64le.
    """
    path = Path(path)
    samples = np.atleast_2d(samples)
    sample_format, dtype, scale, offset = {
        "pcm_u8": ("u8", np.uint8, 127.0, 128), "pcm_s16le": ("s16", np.int16, 32767.0, 0),
        "pcm_s32le": ("s32", np.int32, 2147483647.0, 0), "pcm_f32le": ("flt", np.float32, 1.0, 0),
        "pcm_f64le": ("dbl", np.float64, 1.0, 0),
    }[codec]  # fmt: skip
    interleaved = (samples.T.reshape(1, -1) * scale + offset).astype(dtype)
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    frame = av.AudioFrame.from_ndarray(interleaved, format=sample_format, layout=layout)
    frame.sample_rate = sample_rate
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=sample_rate, layout=layout)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_cover(source: str | Path, path: str | Path, rgb: np.ndarray) -> Path:
    """Copy a sound with a cover picture attached; .mp3 or .m4a."""
    path = Path(path)
    with av.open(str(source)) as sound, av.open(str(path), "w") as container:
        audio_in = sound.streams.audio[0]
        audio_out = container.add_stream_from_template(audio_in)
        cover_out = container.add_stream("png", rate=1)
        cover_out.width, cover_out.height, cover_out.pix_fmt = rgb.shape[1], rgb.shape[0], "rgb24"
        cover_out.disposition = av.stream.Disposition.attached_pic
        packets = cover_out.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")) + cover_out.encode(None)
        container.mux(packets)
        for packet in sound.demux(audio_in):
            if packet.dts is not None:
                packet.stream = audio_out
                container.mux(packet)
    return path


def _add_video(container: OutputContainer, codec: str, fps: float, size: tuple[int, int]) -> VideoStream:
    stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = {"gif": "rgb8", "ffv1": "bgr0", "png": "rgb24"}.get(codec, "yuv420p")
    stream.codec_context.time_base = Fraction(1, 1000)
    if codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "12"}
    elif codec == "libvpx":
        stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "8"}
        stream.bit_rate = 2_000_000
    elif codec == "mpeg4":
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = 1 / Fraction(fps).limit_denominator(1001)
    elif codec == "gif":
        stream.codec_context.time_base = Fraction(1, 100)
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
    channels: int,
    start: float,
    gaps: Sequence[tuple[float, float]],
) -> None:
    rate = stream.codec_context.sample_rate
    resampler = av.AudioResampler(stream.codec_context.format, stream.codec_context.layout, rate, frame_size=0)
    size = stream.codec_context.frame_size or 1024
    total = round(seconds * rate)
    for first in range(0, total, size):
        last = min(first + size, total)
        if any(begin <= first / rate + start and last / rate + start <= end for begin, end in gaps):
            continue
        samples = np.broadcast_to(sound(np.arange(first, last) / rate), (channels, last - first))
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, np.float32), format="fltp", layout=stream.codec_context.layout.name
        )
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = first + round(start * rate)
        for ready in resampler.resample(frame):
            container.mux(stream.encode(ready))
    container.mux(stream.encode(None))


def _encode_picture(codec: str, pixel_format: str, rgb: np.ndarray) -> bytes:
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = rgb.shape[1], rgb.shape[0], pixel_format
    context.time_base = Fraction(1, 25)
    if codec == "mjpeg":
        context.color_range = 2  # full, as JPEG is
        context.options = {"qmin": "1", "qmax": "2"}
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)
    out = io.BytesIO()
    for packet in [*context.encode(frame), *context.encode(None)]:
        out.write(bytes(packet))
    return out.getvalue()
