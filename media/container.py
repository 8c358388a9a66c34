"""Open media of unknown origin: the one place that touches FFmpeg's demuxers.

FFmpeg always gets a Python file object, never a name, and may only use the demuxers in `DEMUXERS`. Playlist
formats such as HLS, concat or SDP, which make FFmpeg open further files and addresses, are not among them.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from traceback import walk_tb
from typing import BinaryIO, cast

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from .errors import (
    CorruptMedia,
    EmptyMedia,
    MediaError,
    TooManyBytes,
    TooManyPixels,
    TooManyStreams,
    UnsupportedMedia,
)
from .memory import raise_if_starved
from .shared_file import SharedFile

Source = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes themselves, or a seekable binary file object."""

DEMUXERS = frozenset(
    {
        "aac",
        "ac3",
        "aiff",
        "amr",
        "apng",
        "asf",
        "au",
        "av1",
        "avi",
        "bmp_pipe",
        "caf",
        "dts",
        "dv",
        "eac3",
        "flac",
        "flv",
        "gif",
        "h264",
        "hevc",
        "ivf",
        "jpeg_pipe",
        "jpegxl_pipe",
        "m4v",
        "matroska,webm",
        "mjpeg",
        "mov,mp4,m4a,3gp,3g2,mj2",
        "mp3",
        "mpeg",
        "mpegts",
        "mpegvideo",
        "mxf",
        "nut",
        "obu",
        "ogg",
        "png_pipe",
        "rm",
        "tiff_pipe",
        "tta",
        "voc",
        "w64",
        "wav",
        "webp_pipe",
        "wv",
    }
)
SIGNATURES = (
    (4, b"ftyp"),
    (4, b"moov"),
    (0, b"RIFF"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"OggS"),
    (0, b"fLaC"),
    (0, b"ID3"),
    (0, b"\x89PNG"),
    (0, b"\xff\xd8\xff"),
    (0, b"GIF8"),
    (0, b"FLV"),
    (0, b"\x30\x26\xb2\x75"),
)
"""(offset, bytes) of well-known containers: a file that has them and does not open must be damaged."""
NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.dependent
MIN_SAMPLE_RATE = 1_000  # Hz; less cannot be music or speech, and would grow to many times its size


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """The most that a file may take."""

    max_bytes: int = 64 << 30
    max_duration_seconds: float = 24 * 3600.0
    """Of the part that is read, not of the file."""
    max_pixels: int = 4096 * 2304
    """Of one frame."""
    max_streams: int = 32
    max_frames_per_second: float = 1000.0
    """Decoded frames; a burst of as many more is allowed."""
    max_windows: int = 100_000
    max_threads: int = 4
    """Of one stream's decoder; fewer leave more of the processor to others."""


@contextmanager
def open_container(source: Source, limits: MediaLimits) -> Iterator[InputContainer]:
    """The opened container of `source`; a file object is left open, at no particular position.

    Errors of FFmpeg and PyAV inside the context become CorruptMedia.

    Raises:
        EmptyMedia, UnsupportedMedia, CorruptMedia, MediaTooLarge: see `errors`.
        OSError: a path that cannot be read.
    """
    file = _as_file(source)
    try:
        _check_size(file, limits)
        with _open(file, limits) as container, translated():
            _check(container, limits)
            yield container
    finally:
        if file is not source:
            file.close()


@contextmanager
def translated() -> Iterator[None]:
    """Turn every error of FFmpeg and PyAV into CorruptMedia, but a lack of memory into MemoryError.

    Errors of file objects, and faults of this package, are left as they are.
    """
    try:
        yield
    except Exception as error:
        if not is_library_error(error):
            raise
        raise_if_starved(error)
        raise CorruptMedia(f"decoding broke off ({type(error).__name__}); is the file complete?") from error


def is_library_error(error: Exception) -> bool:
    """Whether FFmpeg or PyAV raised this while it read a file.

    The surprising fact: PyAV raises ValueError, KeyError and others too, where a file holds what it has no
    name for. They are told from faults of this package by the innermost frame that is either's: the frames
    of PyAV's compiled code have no module, but names of files that start with "av/".
    """
    if isinstance(error, av.error.FFmpegError | OverflowError):
        return True
    if isinstance(error, MediaError | OSError):
        return False
    is_pyavs = False
    for frame, _ in walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__") or frame.f_code.co_filename.replace("/", ".")
        package = module.partition(".")[0]
        if package in ("av", __package__):
            is_pyavs = package == "av"
    return is_pyavs


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first stream of a video or a still picture; cover art, thumbnails and tiles do not count."""
    for stream in container.streams.video:
        if not stream.disposition & NO_PICTURE and stream.codec_context is not None:
            return stream
    return None


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The first audio stream that has a decoder."""
    for stream in container.streams.audio:
        if stream.codec_context is not None and stream.codec_context.sample_rate >= MIN_SAMPLE_RATE:
            return stream
    return None


def origin_seconds(container: InputContainer) -> float:
    """Presentation time at which the container starts; all times of this package count from it."""
    return (container.start_time or 0) / av.time_base


def _as_file(source: Source) -> BinaryIO:
    """A file object without a name: by some suffixes FFmpeg chooses demuxers that open files themselves."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        return _open_unnamed(source)
    return source if isinstance(source, SharedFile) else cast(BinaryIO, SharedFile(source, Lock()))


def _open_unnamed(path: str | os.PathLike[str]) -> BinaryIO:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return open(descriptor, "rb", buffering=0)  # FFmpeg has a buffer of its own
    except (
        OSError
    ) as error:  # a folder; the descriptor stays open, and the error names it instead of the path
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def _check_size(file: BinaryIO, limits: MediaLimits) -> None:
    num_bytes = file.seek(0, os.SEEK_END)
    if num_bytes == 0:
        raise EmptyMedia("got 0 bytes; send the bytes of a media file")
    if num_bytes > limits.max_bytes:
        raise TooManyBytes(f"{num_bytes} bytes, the limit is {limits.max_bytes}; compress the file or cut it")
    file.seek(0)


def _open(file: BinaryIO, limits: MediaLimits) -> InputContainer:
    options = {
        "format_whitelist": ",".join(sorted(DEMUXERS)),
        "protocol_whitelist": "none",
        "max_pixels": str(limits.max_pixels),  # a bomb is refused before its pixels are allocated
    }
    try:
        return av.open(file, mode="r", metadata_errors="ignore", options=options)
    except Exception as error:
        if not is_library_error(error):
            raise
        raise_if_starved(error)
        file.seek(0)
        start = file.read(16)
        if any(start[offset : offset + len(mark)] == mark for offset, mark in SIGNATURES):
            raise CorruptMedia("the file starts like media but cannot be opened; is it complete?") from error
        raise UnsupportedMedia(
            "no container that can be read was found; send a file such as MP4, WebM, MOV, WAV, MP3 or JPEG"
        ) from error


def _check(container: InputContainer, limits: MediaLimits) -> None:
    if len(container.streams) > limits.max_streams:
        raise TooManyStreams(
            f"{len(container.streams)} streams, the limit is {limits.max_streams}; remux the file"
        )
    video = video_stream(container)
    if video is None and audio_stream(container) is None:
        raise UnsupportedMedia(
            "the file has no sound or picture stream with a known codec; send one that has"
        )
    if video is None:
        return
    width, height = video.codec_context.width, video.codec_context.height
    if width * height > limits.max_pixels:
        raise TooManyPixels(
            f"pictures of {width}x{height}, the limit is {limits.max_pixels} pixels; scale the video down"
        )
    if width == 0 and container.format.name.endswith("_pipe"):
        raise _error_of_unread_still(container, video, limits)


def _error_of_unread_still(container: InputContainer, video: VideoStream, limits: MediaLimits) -> MediaError:
    """Why a still has no size: only for a picture over `max_pixels` FFmpeg reports an invalid argument."""
    video.codec_context.options = {"max_pixels": str(limits.max_pixels)}
    try:
        next(container.decode(video), None)
    except av.error.ArgumentError:
        return TooManyPixels(f"the picture is over the limit of {limits.max_pixels} pixels; scale it down")
    except av.error.FFmpegError as error:
        raise_if_starved(error, num_pixels=limits.max_pixels)
    return CorruptMedia("the picture does not decode; is the file complete?")
