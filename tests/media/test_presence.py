"""Which streams can answer, by what the media has; all eight cases come from this table."""

import pytest

from media import Modality
from media.errors import MissingAudio, MissingModality, MissingVideo
from media.presence import present_modalities
from media.probe import MediaInfo

A, V, F = Modality


def _info(*, audio: bool, video: bool) -> MediaInfo:
    return MediaInfo(1.0, audio, video, None, None, None, None, None, "wav", False)


@pytest.mark.parametrize(
    ("audio", "video", "present"), [(True, True, [A, V, F]), (True, False, [A]), (False, True, [V])]
)
def test_all_that_can_answer_do(audio: bool, video: bool, present: list[Modality]) -> None:
    assert present_modalities(list(Modality), _info(audio=audio, video=video), must_have=False) == present


@pytest.mark.parametrize(
    ("asked", "audio", "video", "error"),
    [([A], False, True, MissingAudio), ([V], True, False, MissingVideo), ([F], True, False, MissingVideo),
     ([F], False, True, MissingAudio), ([A, V], False, False, MissingAudio)],
)  # fmt: skip
def test_what_nobody_can_answer_fails(asked: list[Modality], audio: bool, video: bool, error: type) -> None:
    for must_have in (True, False):
        with pytest.raises(error):
            present_modalities(asked, _info(audio=audio, video=video), must_have=must_have)


def test_one_of_several_fails_only_where_all_are_wanted() -> None:
    info = _info(audio=True, video=False)
    assert present_modalities([A, V], info, must_have=False) == [A]
    with pytest.raises(MissingModality):
        present_modalities([A, V], info, must_have=True)
