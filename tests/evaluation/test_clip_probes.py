"""Probes of a predictor's streams: of the clips that answer, by whichever stream, and said where they cannot
be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.manifests import Item
from evaluation.clip_probes import probe_clips
from evaluation.scorer import ScoringPlan
from media import ClipSpec
from tests.evaluation.test_clip_scores import COLOURS, HZ, PitchAndColour
from tests.made_media import tone, write_clip

STREAMS = ("audio", "video")


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """A film of each label in each split; sound and picture agree. The last has no picture."""
    folder, found = tmp_path_factory.mktemp("films"), []
    for split in ("train", "val", "test"):
        for label in ("low", "high"):
            picture = (
                None
                if (split, label) == ("test", "high")
                else [np.full((48, 64, 3), COLOURS[label], np.uint8)] * 25
            )
            path = write_clip(
                folder / f"{split}-{label}.mp4", waveform=tone(1.0, hz=HZ[label]), frames=picture
            )
            found.append(Item(path, "both", (label,), split))
    return found


def test_each_stream_has_its_probe_and_counts_what_does_not_answer(items: list[Item], spec: ClipSpec) -> None:
    told: list[tuple[int, int]] = []
    tables = probe_clips(
        PitchAndColour(),
        items,
        spec,
        split="test",
        streams=STREAMS,
        on_progress=lambda _, done, total, *_figures: told.append((done, total)),
    )
    assert [(table["clips"], table["top1"]) for table in tables.values()] == [(2, 1.0), (1, 1.0)]
    assert tables["video"]["unanswered"] == {"without_picture": 1}
    assert told == [(2, 6), (4, 6), (6, 6)]


def test_the_split_that_chose_may_be_reported_and_is_read_once(items: list[Item], spec: ClipSpec) -> None:
    told: list[int] = []
    table = probe_clips(
        PitchAndColour(),
        items,
        spec,
        split="val",
        streams=STREAMS,
        on_progress=lambda _stage, _done, total, *_: told.append(total),
    )
    assert table["audio"]["clips"] == 2
    assert set(told) == {4}


def test_many_labels_have_average_precision(items: list[Item], spec: ClipSpec) -> None:
    several = [replace(item, labels=("film", item.label)) for item in items]
    tables = probe_clips(
        PitchAndColour(),
        several,
        spec,
        split="test",
        streams=("audio",),
        scoring=ScoringPlan(multi_label=True, num_resamples=20),
    )
    table = tables["audio"]
    assert table["map"] == 1.0
    assert table["labels"].keys() == {"film", "low", "high"}


def test_a_stream_that_no_clip_answers_for_has_no_scores(items: list[Item], spec: ClipSpec) -> None:
    heard = [replace(item, modality="audio") for item in items]
    assert probe_clips(PitchAndColour(), heard, spec, split="test", streams=STREAMS)["video"] == {
        "clips": 0,
        "unanswered": {"without_picture": 2},
    }


def test_probes_fail(items: list[Item], spec: ClipSpec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no clip is of the splits \['val'\]"):
        probe_clips(PitchAndColour(), [item for item in items if item.split != "val"], spec, split="test")
    with pytest.raises(ValueError, match="none of 6 clips has a label"):
        probe_clips(PitchAndColour(), [replace(item, labels=()) for item in items], spec, split="test")
    deaf = [replace(item, modality="video") if item.split == "train" else item for item in items]
    with pytest.raises(ValueError, match="no clip of 'train' answers for the stream 'audio'"):
        probe_clips(PitchAndColour(), deaf, spec, split="test", streams=("audio",))
