"""Which streams can answer, by what the media has; all eight cases come from this table."""

from pathlib import Path

import pytest

from media import ClipSpec, Modality, probe
from media.clip import ReadState
from media.errors import MissingAudio, MissingModality, MissingVideo
from media.modality_check import available_modalities, read_modalities
from media.probe import MediaInfo
from tests.made_films import write_film

A, V, F = Modality


def _info(*, audio: bool, video: bool) -> MediaInfo:
    return MediaInfo(1.0, audio, video, None, None, None, None, None, "wav", False)


@pytest.mark.parametrize(
    ("audio", "video", "present"), [(True, True, [A, V, F]), (True, False, [A]), (False, True, [V])]
)
def test_all_that_can_answer_do(audio: bool, video: bool, present: list[Modality]) -> None:
    assert available_modalities(list(Modality), _info(audio=audio, video=video), require_all=False) == present


@pytest.mark.parametrize(
    ("requested", "audio", "video", "error"),
    [
        ([A], False, True, MissingAudio),
        ([V], True, False, MissingVideo),
        ([F], True, False, MissingVideo),
        ([F], False, True, MissingAudio),
        ([A, V], False, False, MissingAudio),
    ],
)
def test_what_nobody_can_answer_fails(
    requested: list[Modality], audio: bool, video: bool, error: type
) -> None:
    for require_all in (True, False):
        with pytest.raises(error):
            available_modalities(requested, _info(audio=audio, video=video), require_all=require_all)


def test_one_of_several_fails_only_where_all_are_wanted() -> None:
    info = _info(audio=True, video=False)
    assert available_modalities([A, V], info, require_all=False) == [A]
    with pytest.raises(MissingModality):
        available_modalities([A, V], info, require_all=True)


@pytest.mark.parametrize("requested", [[A], [V], [A, V, F]])
def test_the_reader_knows_what_probe_says_whatever_is_read(
    requested: list[Modality], spec: ClipSpec, tmp_path: Path
) -> None:
    turned = write_film(tmp_path / "a.mp4", matrix=(0, 1, -1, 0), seconds=1.0)
    available, reader = read_modalities(turned, spec, requested, require_all=True)
    assert len(list(reader)) == 2
    assert available == requested
    assert reader.info == probe(turned)
    assert (reader.info.width, reader.info.height) == (48, 64)
    _, again = read_modalities(
        turned, spec, requested, require_all=True, state=ReadState(info=reader.info, first_window=1)
    )
    assert len(list(again)) == 1
    assert again.info == reader.info
