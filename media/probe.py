"""What a file holds, from its headers and its first frame."""

from dataclasses import dataclass, replace
from itertools import islice

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import MediaLimits, Source, audio_stream, open_container, video_stream
from .decoding import Decoder
from .memory import raise_if_starved
from .orientation import orientation


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Facts about a file; None where it does not say."""

    duration_seconds: float | None
    has_audio: bool
    has_video: bool
    width: int | None
    """As displayed: of square pixels, upright."""
    height: int | None
    frames_per_second: float | None
    sample_rate: int | None
    num_channels: int | None
    container: str
    is_still: bool
    """A single picture without sound."""

    def turned(self) -> "MediaInfo":
        """The same, displayed on its side."""
        return replace(self, width=self.height, height=self.width)


def probe(source: Source, *, limits: MediaLimits | None = None) -> MediaInfo:
    """Read the headers of `source` and its first frame.

    Raises:
        MediaError: it cannot be opened; see `errors`.
    """
    limits = limits or MediaLimits()
    with open_container(source, limits) as container:
        info = _headers(container)
        video = video_stream(container)
        return info.turned() if video is not None and _is_turned(container, video, limits) else info


def read_headers(source: Source, *, limits: MediaLimits) -> MediaInfo:
    """What `probe` finds without decoding a frame; the size is the stored one, not the displayed one.

    Raises:
        MediaError: it cannot be opened; see `errors`.
    """
    with open_container(source, limits) as container:
        return _headers(container)


def _headers(container: InputContainer) -> MediaInfo:
    video, audio = video_stream(container), audio_stream(container)
    still = video is not None and audio is None and is_still(container)
    seconds = None if container.duration is None or still else container.duration / av.time_base
    width, height = _stored_size(video) if video is not None else (None, None)
    rate = None if video is None or still else video.average_rate
    return MediaInfo(
        duration_seconds=seconds,
        has_audio=audio is not None,
        has_video=video is not None,
        width=width,
        height=height,
        frames_per_second=float(rate) if rate else None,
        sample_rate=audio.codec_context.sample_rate if audio is not None else None,
        num_channels=audio.codec_context.channels if audio is not None else None,
        container=container.format.name,
        is_still=still,
    )


def is_still(container: InputContainer) -> bool:
    """Whether a container without audio holds a single picture; its position has moved afterwards."""
    video = video_stream(container)
    if video is None or audio_stream(container) is not None:
        return False
    if container.format.name.endswith("_pipe") or video.frames == 1:
        return True
    if video.frames > 1:
        return False
    try:
        return sum(packet.size > 0 for packet in islice(container.demux(video), 2)) == 1
    except av.error.FFmpegError as error:
        raise_if_starved(error)
        return False


def _stored_size(video: VideoStream) -> tuple[int, int]:
    """Width and height in square pixels."""
    ratio = float(video.sample_aspect_ratio or 1)
    return max(1, round(video.codec_context.width * ratio)), video.codec_context.height


def _is_turned(container: InputContainer, video: VideoStream, limits: MediaLimits) -> bool:
    decoder: Decoder[VideoFrame] = Decoder(container, video, limits)
    first = next(decoder.frames_before(0.0) or decoder.frames(), None)
    return first is not None and orientation(first[1]).swaps_axes
