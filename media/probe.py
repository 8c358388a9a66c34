"""What a file holds: its headers, and a look at its first frame."""

from dataclasses import dataclass
from itertools import islice

import av
import av.error
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import MediaLimits, Source, audio_stream, open_container, video_stream
from .decoding import Decoder
from .video import orientation


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


def probe(source: Source, *, limits: MediaLimits | None = None) -> MediaInfo:
    """Read the headers of `source` and its first frame.

    Raises:
        MediaError: it cannot be opened; see `errors`.
    """
    limits = limits or MediaLimits()
    with open_container(source, limits) as container:
        return describe(container, limits)


def describe(container: InputContainer, limits: MediaLimits) -> MediaInfo:
    """Facts about an opened container; it stands after its first frame then."""
    video, audio = video_stream(container), audio_stream(container)
    still = video is not None and audio is None and is_still(container)
    seconds = None if container.duration is None or still else container.duration / av.time_base
    width, height = _displayed_size(container, video, limits) if video is not None else (None, None)
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
    """Whether a container without sound holds a single picture; it stands anywhere then."""
    video = video_stream(container)
    if video is None or audio_stream(container) is not None:
        return False
    if container.format.name.endswith("_pipe") or video.frames == 1:
        return True
    if video.frames > 1:
        return False
    try:
        return sum(packet.size > 0 for packet in islice(container.demux(video), 2)) == 1
    except av.error.FFmpegError:
        return False


def _displayed_size(container: InputContainer, video: VideoStream, limits: MediaLimits) -> tuple[int, int]:
    ratio = float(video.sample_aspect_ratio or 1)
    width, height = max(1, round(video.codec_context.width * ratio)), video.codec_context.height
    decoder: Decoder[VideoFrame] = Decoder(container, video, limits)
    first = next(decoder.frames_before(0.0) or decoder.frames(), None)
    return (height, width) if first is not None and orientation(first[1])[0] else (width, height)
