"""Decide which requested modalities a file can answer, and open a reader for what they need."""

from collections.abc import Sequence

from .clip import ClipReader, Modality, ReadState
from .container import MediaLimits, Source
from .errors import MissingAudio, MissingVideo
from .probe import MediaInfo, probe, read_headers
from .spec import ClipSpec
from .time_range import WHOLE_MEDIA, TimeRange


def read_modalities(
    source: Source,
    spec: ClipSpec,
    requested: Sequence[Modality],
    *,
    require_all: bool,
    time_range: TimeRange = WHOLE_MEDIA,
    limits: MediaLimits | None = None,
    state: ReadState | None = None,
) -> tuple[list[Modality], ClipReader]:
    """The requested modalities that `source` can answer, and a reader of its windows with what they need.

    Args:
        source: path, bytes or a seekable binary file; see `read_clips`.
        spec: the model's numbers.
        requested: modalities to answer.
        require_all: raise if the file lacks what one of them needs; otherwise leave that one out.
        time_range: part of the media to read; default all of it.
        limits: the most that a file may take.
        state: what an earlier reader of the same file found, and the window to go on with; default the first.

    Raises:
        MediaError: see `available_modalities` and `read_clips`.
    """
    limits = limits or MediaLimits()
    if state is None:
        state = ReadState(info=read_headers(source, limits=limits), has_displayed_size=False)
    available = available_modalities(requested, state.info, require_all=require_all)
    audio, video = needed_media(available)
    if state.info.has_video and not video and not state.has_displayed_size:
        # No frame will be read for an answer, and only a frame says whether it is displayed on its side.
        state = ReadState(info=probe(source, limits=limits))
    return available, ClipReader(
        source, spec, audio=audio, video=video, time_range=time_range, limits=limits, state=state
    )


def needed_media(modalities: Sequence[Modality]) -> tuple[bool, bool]:
    """Whether answers of these modalities need (audio, video)."""
    return any(m != Modality.VIDEO for m in modalities), any(m != Modality.AUDIO for m in modalities)


def available_modalities(
    requested: Sequence[Modality], info: MediaInfo, *, require_all: bool
) -> list[Modality]:
    """The requested modalities for which the file has audio, video, or for fusion both.

    Raises:
        MissingAudio, MissingVideo: none is available, or one is not and `require_all` is set.
    """
    has = {Modality.AUDIO: info.has_audio, Modality.VIDEO: info.has_video}
    has[Modality.FUSED] = info.has_audio and info.has_video
    available = [modality for modality in requested if has[modality]]
    if len(available) < len(requested) and (require_all or not available):
        if not info.has_audio and any(m != Modality.VIDEO for m in requested):
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        raise MissingVideo("the file has no picture (cover art is none); send one that has, or ask for audio")
    return available
