"""What a file holds, without decoding it."""

from dataclasses import dataclass

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from .container import STILL_CODECS, MediaLimits, Source, audio_stream, open_container, video_stream


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Facts from the container's headers; None where the container does not say."""

    duration_seconds: float | None
    has_audio: bool
    has_video: bool
    width: int | None
    """Of square pixels, before any turn that the frames themselves ask for."""
    height: int | None
    frames_per_second: float | None
    sample_rate: int | None
    num_channels: int | None
    container: str
    is_still: bool
    """A picture without sound that does not move."""


def probe(source: Source, *, limits: MediaLimits | None = None) -> MediaInfo:
    """Read the headers of `source`.

    Raises:
        MediaError: it cannot be opened; see `errors`.
    """
    with open_container(source, limits or MediaLimits()) as container:
        return describe(container)


def describe(container: InputContainer) -> MediaInfo:
    """Facts of an opened container."""
    video = video_stream(container)
    audio = audio_stream(container)
    is_still = video is not None and audio is None and _is_still(container, video)
    seconds = None if container.duration is None or is_still else container.duration / av.time_base
    width, height = displayed_size(video) if video is not None else (None, None)
    rate = None if video is None or is_still else video.average_rate
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
        is_still=is_still,
    )


def displayed_size(video: VideoStream) -> tuple[int, int]:
    """(width, height) with the sample aspect ratio applied; turns are known only to frames."""
    ratio = video.sample_aspect_ratio or 1
    return max(1, round(video.codec_context.width * float(ratio))), video.codec_context.height


def _is_still(container: InputContainer, video: VideoStream) -> bool:
    is_image_container = container.format.name.endswith("_pipe") or container.format.name == "image2"
    return is_image_container or (video.codec_context.name in STILL_CODECS and video.frames == 1)
