"""Which modalities of those that are asked for a file has what to read for, and what is read for them."""

from collections.abc import Sequence

from .clip import Modality
from .errors import MissingAudio, MissingVideo
from .probe import MediaInfo


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
