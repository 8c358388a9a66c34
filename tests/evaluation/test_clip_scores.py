"""Whole protocols on made films, with a predictor whose answer is a function of what it hears and sees."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.manifests import Item, ManifestError
from evaluation.clip_predictions import PredictionPlan, predict_clips
from evaluation.clip_reading import read_babble
from evaluation.clip_scores import score_clips, score_predictions
from evaluation.corrupted_pairs import noisy_windows
from evaluation.corruption_curves import score_corrupted
from evaluation.corruptions import Corruption, CorruptionKind
from evaluation.predictors import ModelPredictor
from evaluation.retrieval import common_embeddings
from evaluation.scorer import Scorer, ScoringPlan
from evaluation.stream_inputs import SERVED_STREAMS, STREAM_INPUTS
from evaluation.views import ViewPlan
from media import Clip, ClipSpec, Modality, TimeRange, read_clips
from tests.made_media import jpeg_bytes, tone, write_clip

HZ = {"low": 300.0, "high": 5000.0}
COLOURS = {"low": (230, 30, 30), "high": (30, 30, 230)}
TARGETS = {"high": 0, "low": 1}
QUICK = ScoringPlan(num_resamples=60)
AUDIO_ALONE = PredictionPlan(streams=("audio",))


class PitchAndColour:
    """Says `high` or `low` by where the sound lies and whether the picture is blue or red.

    Fusion adds up both.
    """

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> np.ndarray:
        return self.outputs(modality, clips)["logits"]

    def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        logits = np.stack([self._one(modality, clip) for clip in clips])
        return {
            "logits": logits,
            "embedding": logits + np.array([0, 0.1]),
            "features": np.concatenate([logits, logits], 1),
        }

    def _one(self, modality: Modality, clip: Clip) -> np.ndarray:
        total = np.zeros(2)
        if modality != Modality.VIDEO and clip.audio is not None:
            power = np.exp(clip.audio).mean(0)
            total += 4 * np.array([power[16:].sum(), power[:16].sum()]) / power.sum()
        if modality != Modality.AUDIO and clip.video is not None:
            red, _, blue = clip.video.mean((0, 1, 2)) / 255
            total += np.array([blue, red])
        return total


def _film(folder: Path, name: str, heard: str | None, seen: str | None, *, seconds: float = 1.2) -> Path:
    picture = None if seen is None else [np.full((48, 64, 3), COLOURS[seen], np.uint8)] * round(25 * seconds)
    sound = None if heard is None else tone(seconds, hz=HZ[heard])
    return write_clip(folder / name, waveform=sound, frames=picture)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Four whole films, one of them with the other's picture.

    Then a mute, a dark, a broken and an absent one.
    """
    folder = tmp_path_factory.mktemp("films")
    broken = folder / "broken.mp4"
    broken.write_bytes(_film(folder, "whole.mp4", "low", "low").read_bytes()[:400])
    paths = [
        (_film(folder, "low1.mp4", "low", "low"), "low"),
        (_film(folder, "low2.mp4", "low", "high"), "low"),
        (_film(folder, "high1.mp4", "high", "high"), "high"),
        (_film(folder, "high2.mp4", "high", "high"), "high"),
        (_film(folder, "mute.mp4", None, "low"), "low"),
        (_film(folder, "dark.wav", "low", None), "low"),
        (broken, "low"),
        (folder / "absent.mp4", "low"),
    ]
    return [Item(path, "both", (label,), "test") for path, label in paths]


def test_tables_by_stream(items: list[Item], spec: ClipSpec) -> None:
    record = score_clips(PitchAndColour(), items, TARGETS, spec, scoring=QUICK)
    tables = record["tables"]
    assert {name: table["clips"] for name, table in tables.items()} == {
        "audio": 5,
        "video": 5,
        "fused": 4,
        "fusion_by_audio": 5,
        "fusion_by_video": 5,
    }
    assert {name: table["top1"] for name, table in tables.items()} == {
        "audio": 1,
        "video": 0.8,
        "fused": 1,
        "fusion_by_audio": 1,
        "fusion_by_video": 0.8,
    }
    assert tables["video"]["labels"] == {
        "high": {"accuracy": 1, "clips": 2},
        "low": {"accuracy": 2 / 3, "clips": 3},
    }
    low, high = tables["video"]["top1_interval"]
    assert low < 0.8 < high <= 1
    assert tables["audio"]["top1_interval"] == [1, 1]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_scorer_gives_the_same_value_with_and_without_an_interval(
    items: list[Item], spec: ClipSpec
) -> None:
    found = predict_clips(PitchAndColour(), items, spec, PredictionPlan(streams=("video",))).clean["video"]
    for changes in ({}, {"groups": {"low": "a", "high": "b"}}, {"multi_label": True}):
        scorer = Scorer(items, TARGETS, replace(QUICK, **changes))
        assert scorer.value(found) == scorer.main_score(found).value


def test_what_does_not_answer_is_counted(items: list[Item], spec: ClipSpec) -> None:
    record = score_clips(PitchAndColour(), items, TARGETS, spec, scoring=QUICK)
    gone = {"broken": 1, "absent": 1}
    tables = record["tables"]
    assert tables["audio"]["unanswered"] == tables["fusion_by_audio"]["unanswered"] == gone | {"mute": 1}
    assert (
        tables["video"]["unanswered"]
        == tables["fusion_by_video"]["unanswered"]
        == gone | {"without_picture": 1}
    )
    assert tables["fused"]["unanswered"] == gone | {"mute": 1, "without_picture": 1}
    assert all(
        table["clips"] + sum(table["unanswered"].values()) == record["items"] == 8
        for table in tables.values()
    )
    assert record["failures"] == [
        {"file": "broken.mp4", "reason": "broken: corrupt_media"},
        {"file": "absent.mp4", "reason": "absent"},
    ]


def test_silent_and_still_are_counted_and_answer(tmp_path: Path, spec: ClipSpec) -> None:
    red = np.full((48, 64, 3), COLOURS["low"], np.uint8)
    (tmp_path / "still.jpg").write_bytes(jpeg_bytes(red))
    silent = write_clip(tmp_path / "silent.mp4", waveform=np.zeros(16_000, np.float32), frames=[red] * 25)
    items = [Item(path, "both", ("low",), "test") for path in (tmp_path / "still.jpg", silent)]
    record = score_clips(PitchAndColour(), items, TARGETS, spec, scoring=QUICK)
    assert (record["silent"], record["still"]) == (1, 1)
    assert (record["tables"]["video"]["clips"], record["tables"]["audio"]["clips"]) == (2, 1)


def test_a_split_without_sound_has_an_empty_table(items: list[Item], spec: ClipSpec) -> None:
    record = score_clips(PitchAndColour(), [items[4]], TARGETS, spec, scoring=QUICK)
    assert record["tables"]["audio"] == {"clips": 0, "unanswered": {"mute": 1}}
    assert record["tables"]["video"]["top1_interval"] is None  # one file: nothing to draw from


def test_an_item_of_one_modality_is_asked_for_that_alone(items: list[Item], spec: ClipSpec) -> None:
    heard, seen = replace(items[0], modality="audio"), replace(items[4], modality="audio")
    record = score_clips(PitchAndColour(), [heard, seen], TARGETS, spec, scoring=QUICK)
    assert record["tables"]["audio"]["unanswered"] == {"mute": 1}
    assert record["tables"]["fused"]["unanswered"] == {"without_picture": 1, "mute": 1}


def test_spans_are_read_where_they_lie(tmp_path: Path, spec: ClipSpec) -> None:
    """Low for 1.5 s, then high: words shorter than a window, centred in it, and drawn as one unit."""
    sound = np.concatenate([tone(1.5, hz=HZ["low"]), tone(1.5, hz=HZ["high"])])
    path = write_clip(tmp_path / "two.wav", waveform=sound)
    spans = [("low", 0.0, 0.2), ("low", 1.0, 1.2), ("high", 1.9, 2.1), ("high", 2.9, 3.0)]
    items = [Item(path, "audio", (x,), "test", start_seconds=a, end_seconds=b) for x, a, b in spans]
    record = score_clips(PitchAndColour(), items, TARGETS, spec, plan=AUDIO_ALONE, scoring=QUICK)
    assert record["tables"]["audio"]["top1"] == 1
    assert record["tables"]["audio"]["top1_interval"] is None
    late = replace(items[0], start_seconds=3.5, end_seconds=3.7)
    found = score_clips(PitchAndColour(), [late, *items], TARGETS, spec, plan=AUDIO_ALONE, scoring=QUICK)
    assert found["failures"] == [{"file": "two.wav", "reason": "broken: invalid_span"}]


def test_many_labels_are_scored_by_average_precision(items: list[Item], spec: ClipSpec) -> None:
    labels = (("low",), ("low", "x"), ("high",), ("high", "x"))
    both = [replace(item, labels=its) for item, its in zip(items[:4], labels, strict=True)]

    class Extra(PitchAndColour):
        def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
            found = super().outputs(modality, clips)
            return found | {"logits": np.concatenate([found["logits"], np.zeros((len(clips), 2))], 1)}

    targets = {**TARGETS, "x": 2, "never": 3}
    scoring = replace(QUICK, multi_label=True)
    record = score_clips(Extra(), both, targets, spec, plan=AUDIO_ALONE, scoring=scoring)
    table = record["tables"]["audio"]
    assert table["labels"]["low"] == {"average_precision": 1, "clips": 2}
    assert table["labels"]["x"] == {
        "average_precision": 0.5,
        "clips": 2,
    }  # all scores equal: the share of positives
    assert "never" not in table["labels"]
    assert table["map"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert table["map_interval"][0] <= table["map"]
    assert "top1" not in table


@pytest.mark.parametrize(("sigmoid", "average_precision"), [(True, 1.0), (False, 0.5)])
def test_scores_mean_what_the_model_learned_whatever_the_items_are(
    sigmoid: bool, average_precision: float, items: list[Item], spec: ClipSpec
) -> None:
    """Of `low` the first clip has the higher logit, but beside its logit of `high` a smaller share."""

    class Certain(PitchAndColour):
        def _one(self, modality: Modality, clip: Clip) -> np.ndarray:
            return np.array(
                [5.0, 2.0] if super()._one(modality, clip).argmax() == TARGETS["low"] else [-5.0, 1.0]
            )

    both = [replace(items[0], labels=("low", "high")), replace(items[2], labels=("high",))]
    plan, scoring = replace(AUDIO_ALONE, sigmoid=sigmoid), replace(QUICK, multi_label=True)
    record = score_clips(Certain(), both, TARGETS, spec, plan=plan, scoring=scoring)
    assert record["tables"]["audio"]["labels"]["low"]["average_precision"] == average_precision


def test_groups(items: list[Item], spec: ClipSpec) -> None:
    groups = {"high": "pitch", "low": "other"}  # each alone in its group: nobody to lose to
    plan, scoring = PredictionPlan(streams=("video",)), replace(QUICK, groups=groups)
    record = score_clips(PitchAndColour(), items, TARGETS, spec, plan=plan, scoring=scoring)
    assert record["metric"] == "within_groups"
    assert record["tables"]["video"]["within_groups"] == 1
    assert record["tables"]["video"]["top1"] == 0.8
    assert record["tables"]["video"]["within_groups_interval"] == [1, 1]
    assert record["tables"]["video"]["groups"]["pitch"] == {"accuracy": 1, "clips": 2, "chance": 1}


def test_views_are_averaged(items: list[Item], spec: ClipSpec) -> None:
    counts: dict[str, int] = {}

    class Counting(PitchAndColour):
        def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
            counts[modality] = len(clips)
            return super().outputs(modality, clips)

    plan = PredictionPlan(views=ViewPlan(num_windows=2, num_crops=3), streams=SERVED_STREAMS)
    found = predict_clips(Counting(), items[:2], spec, plan)
    assert counts == {"audio": 2 * 2, "video": 2 * 6, "fused": 2 * 6}  # crops change no sound
    starts = (0.0, 1.2 - spec.window_seconds)
    readers = [
        read_clips(items[0].path, spec, video=False, time_range=TimeRange(start_seconds=start))
        for start in starts
    ]
    windows = [next(iter(reader)) for reader in readers]
    logits = PitchAndColour().logits(Modality.AUDIO, windows)
    expected = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).mean(0)
    assert found.clean["audio"].scores[0] == pytest.approx(expected, abs=1e-3)
    assert np.linalg.norm(found.clean["audio"].embedding, axis=1) == pytest.approx(1)


def _curves(items: list[Item], spec: ClipSpec, levels: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    corruptions = [Corruption(kind, level) for kind, chosen in levels.items() for level in chosen]
    plan = PredictionPlan(streams=SERVED_STREAMS, corruptions=corruptions)
    return score_corrupted(PitchAndColour(), items, TARGETS, spec, plan=plan, scoring=QUICK)


def test_curves_fall_with_noise_and_leave_the_picture_alone(items: list[Item], spec: ClipSpec) -> None:
    record = _curves(items, spec, {"noise": (20, -10), "babble": (20, -20), "blur": (2,)})
    noise = record["corruptions"]["noise"]
    assert noise["levels"] == [None, 20, -10]
    assert noise["streams"]["audio"]["values"][0] == 1
    assert noise["streams"]["audio"]["values"][1] == 1
    assert noise["streams"]["video"]["values"] == [0.8, 0.8, 0.8]
    babble = record["corruptions"]["babble"]["streams"]["audio"]
    assert babble["values"][1] == 1 > babble["values"][2]
    assert babble["low"][2] <= babble["values"][2] <= babble["high"][2]
    blur = record["corruptions"]["blur"]["streams"]
    assert blur["video"]["values"] == [0.8, 0.8]  # the pictures are of one colour
    assert blur["audio"]["values"] == [1, 1]
    again = _curves(items, spec, {"babble": (20, -20)})
    assert again["corruptions"]["babble"] == record["corruptions"]["babble"]


def test_noise_goes_through_the_waveform(items: list[Item], spec: ClipSpec) -> None:
    heard: list[np.ndarray] = []

    class Listening(PitchAndColour):
        def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
            heard.extend(clip.audio for clip in clips)
            return super().outputs(modality, clips)

    noise = Corruption(CorruptionKind.NOISE, 0)
    found = predict_clips(Listening(), items[:1], spec, replace(AUDIO_ALONE, corruptions=[noise]))
    clean, noisy = heard
    added = np.exp(noisy).sum() - np.exp(clean).sum()
    assert added == pytest.approx(
        np.exp(clean).sum(), rel=0.5
    )  # as much power again, up to how filters weigh
    assert found.streams[noise]["audio"].embedding is None


def test_common_embeddings_are_of_clips_with_everything(items: list[Item], spec: ClipSpec) -> None:
    embeddings, numbers = common_embeddings(predict_clips(PitchAndColour(), items, spec))
    assert numbers.tolist() == [0, 1, 2, 3]
    assert {name: rows.shape for name, rows in embeddings.items()} == dict.fromkeys(SERVED_STREAMS, (4, 2))
    alone = predict_clips(PitchAndColour(), items[5:6], spec)
    with pytest.raises(ValueError, match=r"no clip answers for \['video', 'fused'\]"):
        common_embeddings(alone)


def test_a_checkpoint_and_a_bundle_score_alike(
    items: list[Item], checkpoint: Path, bundle: Path, spec: ClipSpec
) -> None:
    from models.weights import load_checkpoint
    from runtime import Zorro

    targets = {name: i for i, name in enumerate("abcd")}
    known = [replace(item, labels=(label,)) for item, label in zip(items, "abcdabcd", strict=True)]
    first = predict_clips(ModelPredictor(load_checkpoint(checkpoint).model), known, spec)
    second = predict_clips(Zorro.open(bundle), known, spec, PredictionPlan(streams=SERVED_STREAMS))
    for name in SERVED_STREAMS:
        ours, theirs = first.clean[name], second.clean[name]
        assert ours.items.tolist() == theirs.items.tolist()
        for kind in ("scores", "embedding", "features"):
            np.testing.assert_allclose(getattr(ours, kind), getattr(theirs, kind), atol=2e-4)
    assert set(first.clean) == set(STREAM_INPUTS)
    tables = score_predictions(first, Scorer(known, targets, QUICK))["tables"]
    assert tables["fusion_by_video"]["clips"] == 5


def test_a_bundle_has_no_answer_with_a_modality_missing(
    items: list[Item], bundle: Path, spec: ClipSpec
) -> None:
    from runtime import Zorro
    from runtime.errors import InvalidOption

    with pytest.raises(InvalidOption, match="fused reads video"):
        predict_clips(Zorro.open(bundle), items[:1], spec, PredictionPlan(streams=("fusion_by_audio",)))


def test_robustness_hears_the_noise_it_always_did(items: list[Item], spec: ClipSpec) -> None:
    """The formula as it stood before it moved to `corruptions`."""
    from media import read_waveform
    from media.log_mel import log_mel

    windows = list(read_clips(items[0].path, spec, video=False))
    (first, *_) = noisy_windows(items[0], windows, spec, np.random.default_rng(3), -5.0)
    waveform, random = read_waveform(items[0].path, spec), np.random.default_rng(3)
    scale = np.sqrt(np.mean(waveform.astype(np.float64) ** 2) / 10 ** (-5.0 / 10))
    noisy = waveform + (random.standard_normal(len(waveform)) * scale).astype(np.float32)
    assert np.array_equal(first.audio, log_mel(noisy[: spec.num_samples], spec))


def test_scores_fail(items: list[Item], spec: ClipSpec) -> None:
    with pytest.raises(ValueError, match=r"does not know: \['low'\], 1 in all"):
        score_clips(PitchAndColour(), items, {"high": 0}, spec)
    with pytest.raises(ValueError, match=r"no group for the labels \['low'\]"):
        score_clips(PitchAndColour(), items, TARGETS, spec, scoring=ScoringPlan(groups={"high": "pitch"}))
    with pytest.raises(ValueError, match="leave out groups"):
        ScoringPlan(multi_label=True, groups=dict.fromkeys(TARGETS, "g"))
    with pytest.raises(ManifestError, match="exactly one"):
        Scorer([replace(items[0], labels=("low", "high"))], TARGETS)
    with pytest.raises(ValueError, match=r"unknown streams \['smell'\]"):
        PredictionPlan(streams=("smell",))
    with pytest.raises(ValueError, match="got 0 items"):
        predict_clips(PitchAndColour(), [], spec)
    with pytest.raises(ValueError, match="1 of 2 files have sound"):
        read_babble([items[0], items[4]], spec, seed=0)
    with pytest.raises(ValueError, match="levels go with"):
        _curves(items, spec, {"no_audio": (1,)})
