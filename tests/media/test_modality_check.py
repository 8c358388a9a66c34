"""Which streams can answer, by what the media has; all eight cases come from this table."""

from pathlib import Path

import pytest

from media import ClipSpec, Modality, probe
from media.errors import MissingAudio, MissingModality, MissingVideo
from media.modality_check import present_modalities, read_present
from media.probe import MediaInfo
from tests.made_films import write_film

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
    [
        ([A], False, True, MissingAudio),
        ([V], True, False, MissingVideo),
        ([F], True, False, MissingVideo),
        ([F], False, True, MissingAudio),
        ([A, V], False, False, MissingAudio),
    ],
)
def test_what_nobody_can_answer_fails(asked: list[Modality], audio: bool, video: bool, error: type) -> None:
    for must_have in (True, False):
        with pytest.raises(error):
            present_modalities(asked, _info(audio=audio, video=video), must_have=must_have)


def test_one_of_several_fails_only_where_all_are_wanted() -> None:
    info = _info(audio=True, video=False)
    assert present_modalities([A, V], info, must_have=False) == [A]
    with pytest.raises(MissingModality):
        present_modalities([A, V], info, must_have=True)


@pytest.mark.parametrize("asked", [[A], [V], [A, V, F]])
def test_the_reader_knows_what_probe_says_whatever_is_read(
    asked: list[Modality], spec: ClipSpec, tmp_path: Path
) -> None:
    turned = write_film(tmp_path / "a.mp4", matrix=(0, 1, -1, 0), seconds=1.0)
    present, reader = read_present(turned, spec, asked, must_have=True)
    assert len(list(reader)) == 2
    assert present == asked
    assert reader.info == probe(turned)
    assert (reader.info.width, reader.info.height) == (48, 64)
    _, again = read_present(turned, spec, asked, must_have=True, first_window=1, info=reader.info)
    assert len(list(again)) == 1
    assert again.info == reader.info
