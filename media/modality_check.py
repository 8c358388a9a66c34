"""Which modalities of those that are asked for a file has what to read for, and what is read for them."""

from collections.abc import Sequence

from .clip import ClipReader, Modality
from .container import MediaLimits, Source
from .errors import MissingAudio, MissingVideo
from .probe import MediaInfo, probe, read_headers
from .span import Span
from .spec import ClipSpec


def read_present(
    source: Source,
    spec: ClipSpec,
    asked: Sequence[Modality],
    *,
    must_have: bool,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    stride_seconds: float | None = None,
    first_window: int = 0,
    info: MediaInfo | None = None,
    limits: MediaLimits | None = None,
) -> tuple[list[Modality], ClipReader]:
    """The modalities that `source` has what to read for, and its windows with what they read.

    Args:
        source: see `read_clips`, as for what is not said here.
        spec: the model's numbers.
        asked: modalities.
        must_have: whether it must have what each of them reads.
        start_seconds: start of the first window.
        end_seconds: end of what is read.
        stride_seconds: from one window to the next.
        first_window: windows before this one are passed over.
        info: what `probe` or an earlier reader says of it, which saves finding out.
        limits: the most that a file may ask.

    Raises:
        MediaError: see `present_modalities` and `read_clips`.
    """
    limits = limits or MediaLimits()
    stride = spec.window_seconds if stride_seconds is None else stride_seconds
    span = Span(start_seconds=start_seconds, end_seconds=end_seconds, stride_seconds=stride)
    headers = info or read_headers(source, limits=limits)
    present = present_modalities(asked, headers, must_have=must_have)
    audio, video = needed_media(present)
    if info is None and headers.has_video and not video:
        info = probe(source, limits=limits)  # nobody else looks at a picture
    reader = ClipReader(
        source,
        spec,
        audio=audio,
        video=video,
        span=span,
        limits=limits,
        first_window=first_window,
        info=info,
        headers=headers,
    )
    return present, reader


def needed_media(modalities: Sequence[Modality]) -> tuple[bool, bool]:
    """Whether sound, and whether pictures, must be read for answers of these."""
    return any(m != Modality.VIDEO for m in modalities), any(m != Modality.AUDIO for m in modalities)


def present_modalities(asked: Sequence[Modality], info: MediaInfo, *, must_have: bool) -> list[Modality]:
    """Those of `asked` that the media has what to read for.

    Raises:
        MissingAudio, MissingVideo: there is none, or one is lacking that the media must have.
    """
    has = {Modality.AUDIO: info.has_audio, Modality.VIDEO: info.has_video}
    has[Modality.FUSED] = info.has_audio and info.has_video
    present = [modality for modality in asked if has[modality]]
    if len(present) < len(asked) and (must_have or not present):
        if not info.has_audio and any(m != Modality.VIDEO for m in asked):
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        raise MissingVideo("the file has no picture (cover art is none); send one that has, or ask for audio")
    return present
