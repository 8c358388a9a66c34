"""Opening strangers' media: the one place that touches FFmpeg's demuxers.

A file is always handed over as a Python file object, never as a name, and only with a demuxer from `DEMUXERS`: playlist
formats such as HLS, concat or SDP, which make FFmpeg open further files and addresses, are not among them.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.frame import Frame
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from .errors import EmptyMedia, MediaTooLarge, UnsupportedMedia

Source = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes themselves, or a seekable binary file object."""

DEMUXERS = frozenset(
    {
        "aac", "ac3", "aiff", "amr", "apng", "asf", "au", "av1", "avi", "bmp_pipe", "caf", "dts", "dv", "eac3", "flac",
        "flv", "gif", "h264", "hevc", "image2", "ivf", "jpeg_pipe", "m4v", "matroska,webm", "mjpeg",
        "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpeg", "mpegts", "mpegvideo", "mxf", "nut", "obu", "ogg", "png_pipe", "rm",
        "tiff_pipe", "tta", "voc", "w64", "wav", "webp_pipe", "wv",
    }
)  # fmt: skip
STILL_CODECS = frozenset({"mjpeg", "png", "webp", "bmp", "tiff", "jpegxl", "gif", "apng"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """The most a file may ask of us."""

    max_duration_seconds: float = 24 * 3600.0
    max_pixels: int = 4096 * 2304
    max_streams: int = 32
    max_windows: int = 100_000


@contextmanager
def open_container(source: Source, limits: MediaLimits) -> Iterator[InputContainer]:
    """The opened container of `source`; a file object is left open, at no particular position.

    Raises:
        EmptyMedia, UnsupportedMedia, MediaTooLarge: see `errors`.
        OSError: a path that cannot be read.
    """
    file, is_ours = as_file(source)
    try:
        if file.seek(0, os.SEEK_END) == 0:
            raise EmptyMedia("got 0 bytes; send the bytes of a media file")
        file.seek(0)
        with _open(file) as container:
            _check(container, limits)
            yield container
    finally:
        if is_ours:
            file.close()


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first stream that shows a moving or still picture; cover art is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            return stream
    return None


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The first stream of sound that has a decoder."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def as_file(source: Source) -> tuple[BinaryIO, bool]:
    """A binary file object, and whether it is ours to close."""
    if isinstance(source, bytes):
        return io.BytesIO(source), True
    if isinstance(source, str | os.PathLike):
        return Path(source).open("rb"), True
    return source, False


def _open(file: BinaryIO) -> InputContainer:
    try:
        options = {"format_whitelist": ",".join(sorted(DEMUXERS)), "protocol_whitelist": "none"}
        container = av.open(file, mode="r", metadata_errors="ignore", options=options)
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise UnsupportedMedia(
            "no container that can be read was found; send a complete file such as MP4, WebM, MOV, WAV, MP3 or JPEG"
        ) from error
    return container


def _check(container: InputContainer, limits: MediaLimits) -> None:
    if len(container.streams) > limits.max_streams:
        raise MediaTooLarge(f"{len(container.streams)} streams, the limit is {limits.max_streams}; remux the file")
    video = video_stream(container)
    if video is None and audio_stream(container) is None:
        raise UnsupportedMedia("the file has no sound or picture stream with a known codec; send one that has")
    if video is not None and video.codec_context.width * video.codec_context.height > limits.max_pixels:
        size = f"{video.codec_context.width}x{video.codec_context.height}"
        raise MediaTooLarge(f"pictures of {size}, the limit is {limits.max_pixels} pixels; scale the video down")
    seconds = (container.duration or 0) / av.time_base
    if seconds > limits.max_duration_seconds:
        raise MediaTooLarge(
            f"the file lasts {seconds:.1f} s, the limit is {limits.max_duration_seconds:g} s; cut it, or ask for a part"
        )


def decode_stream(container: InputContainer, stream: Stream, faults: list[str]) -> Iterator[Frame]:
    """Frames of one stream, to its end; packets that do not decode are passed over and told in `faults`."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OverflowError) as error:
            faults.append(f"{stream.type}: the file breaks off ({type(error).__name__})")
            return
        try:
            for frame in packet.decode():
                assert isinstance(frame, Frame)  # subtitles are never asked for
                yield frame
        except (av.error.FFmpegError, OverflowError) as error:
            faults.append(f"{stream.type}: a packet does not decode ({type(error).__name__})")


def origin_seconds(container: InputContainer) -> float:
    """Presentation time at which the container starts: time zero of everything here."""
    return (container.start_time or 0) / av.time_base


class SharedFile(io.RawIOBase):
    """A reader with a position of its own over a file that others read too, one call at a time."""

    def __init__(self, file: BinaryIO, lock: Lock) -> None:
        super().__init__()
        self._file, self._lock, self._position = file, lock, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position of this reader."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move this reader alone."""
        with self._lock:
            if whence == os.SEEK_END:
                self._position = self._file.seek(offset, os.SEEK_END)
            else:
                self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Bytes at this reader's position."""
        with self._lock:
            self._file.seek(self._position)
            chunk = self._file.read(size)
        self._position += len(chunk)
        return chunk
