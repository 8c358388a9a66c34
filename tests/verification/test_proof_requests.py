"""Requests of a proof: which modalities, which span, and what their outputs are called."""

from pathlib import Path
from typing import Any

import pytest

from datasets.manifests import Item
from media import ClipSpec, Modality, probe
from media.errors import MissingAudio
from verification.proof_requests import make_requests


def _requests(path: Path, modality: str, spec: ClipSpec, **span: Any) -> list[tuple[Any, ...]]:
    item = Item(path, modality, ("a",), "test", **span)
    return [
        (tuple(map(str, x.modalities)), x.start_seconds, x.end_seconds)
        for x in make_requests(item, probe(path), spec)
    ]


def test_an_item_is_asked_for_all_that_it_has(collection: Path, spec: ClipSpec) -> None:
    everything, film = ("audio", "video", "fused"), collection / "film.mp4"
    assert _requests(film, "both", spec) == [(x, 0.0, None) for x in (everything, ("audio",), ("video",))]
    assert _requests(film, "audio", spec) == [(("audio",), 0.0, None)], (
        "what its list does not speak of is not asked"
    )
    assert _requests(collection / "mute.mp4", "both", spec) == [(("video",), 0.0, None)]
    assert _requests(film, "video", spec, start_seconds=0.5, end_seconds=1.5) == [(("video",), 0.5, 1.5)]
    ((_, start, end),) = _requests(film, "video", spec, start_seconds=0.5, end_seconds=0.7)
    assert (start, end) == (pytest.approx(0.6 - 0.32), pytest.approx(0.6 + 0.32)), (
        "a window around the middle of the span"
    )
    ((_, start, end),) = _requests(film, "video", spec, start_seconds=0.0, end_seconds=0.2)
    assert (start, end) == (0.0, pytest.approx(0.64))


def test_an_item_without_what_it_names_fails(collection: Path, spec: ClipSpec) -> None:
    with pytest.raises(MissingAudio, match="no sound"):
        _requests(collection / "mute.mp4", "audio", spec)


def test_streams_are_named_by_their_graph(collection: Path, spec: ClipSpec) -> None:
    path = collection / "film.mp4"
    together, sound, _ = make_requests(Item(path, "both", (), "test"), probe(path), spec)
    assert [together.stream_name(modality) for modality in Modality] == [
        "fused.audio",
        "fused.video",
        "fused",
    ]
    assert sound.stream_name(Modality.AUDIO) == "audio"
