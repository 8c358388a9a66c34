"""A stream answers with the labels it can know, and with none where it is sure of none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media import Modality
from runtime import ClipResult, Decision, LabelScore, Scores, StreamResult, Zorro, read_bundle
from runtime.decision import parse_decision
from runtime.errors import BundleIncompatible, InvalidOption
from runtime.results import NOTHING_SURE
from tests.deciding_bundle import MODALITIES, deciding_bundle

KNOWN = {"audio": {"a", "c", "d"}, "video": {"b", "c"}, "fused": {"a", "b", "c", "d"}}


def _ids(stream: StreamResult) -> set[str]:
    assert stream.labels is not None
    return {label.id for label in stream.labels}


def _scores(model: Zorro, clip: Path) -> dict[str, dict[str, float]]:
    """Of the whole clip, all that each stream says."""
    whole = model.classify(clip, top_k=9, threshold=0).whole
    return {name: {x.id: x.score for x in stream.labels or ()} for name, stream in whole.items()}


@pytest.fixture(scope="module")
def undecided(sigmoid_bundle: Path) -> Zorro:
    return Zorro.open(sigmoid_bundle)


def test_a_table_is_read_whole_or_in_part() -> None:
    table = {"known_labels_only": True, "threshold": {"audio": 0.25, "fused": 1}}
    decision = parse_decision(table, Scores.SIGMOID)
    assert decision == Decision(known_labels_only=True, threshold={Modality.AUDIO: 0.25, Modality.FUSED: 1.0})
    assert decision.to_dict() == table
    assert [decision.threshold_of(modality) for modality in Modality] == [0.25, 0.0, 1.0]
    assert parse_decision({}, Scores.SIGMOID) == Decision()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, "decision is None; give a table with any of known_labels_only, threshold"),
        ([], "decision is "),
        ({"treshold": {}}, "decision has treshold; there are known_labels_only, threshold"),
        ({"known_labels_only": 1}, "known_labels_only=1; give true or false"),
        ({"threshold": 0.5}, "threshold is 0.5; give a table with any of audio, video, fused"),
        ({"threshold": {"fusion": 0.5}}, "threshold has fusion; there are audio, video, fused"),
        ({"threshold": {"audio": 1.5}}, "threshold.audio=1.5; give a probability from 0 to 1"),
        ({"threshold": {"audio": True}}, "threshold.audio=True"),
        ({"threshold": {"audio": float("nan")}}, "threshold.audio=nan"),
        ({"threshold": {"audio": "0.5"}}, "threshold.audio='0.5'"),
    ],
)
def test_a_table_that_is_none_is_refused(
    stored: object, said: str, sigmoid_bundle: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        parse_decision(stored, Scores.SIGMOID)
    with pytest.raises(BundleIncompatible, match=said):
        read_bundle(deciding_bundle(sigmoid_bundle, tmp_path, stored))


def test_labels_that_compete_have_no_decision(bundle: Path, tmp_path: Path) -> None:
    assert read_bundle(bundle).decision is None
    with pytest.raises(BundleIncompatible, match="for scores=sigmoid, got scores=softmax; leave it out"):
        read_bundle(deciding_bundle(bundle, tmp_path, {"threshold": {"audio": 0.5}}))


def test_streams_answer_only_with_labels_that_they_know(
    sigmoid_bundle: Path, undecided: Zorro, film: Path, tmp_path: Path
) -> None:
    model = Zorro.open(deciding_bundle(sigmoid_bundle, tmp_path, {"known_labels_only": True}))
    result = model.classify(film, top_k=9)
    every = _scores(undecided, film)
    for part in (result.whole, *(window.streams for window in result.windows)):
        assert {name: _ids(stream) for name, stream in part.items()} == KNOWN
    for name, stream in result.whole.items():
        assert stream.labels is not None
        assert {x.id: x.score for x in stream.labels} == {x: every[name][x] for x in KNOWN[name]}
        assert [x.score for x in stream.labels] == sorted((x.score for x in stream.labels), reverse=True)
        (best,) = model.classify(film, top_k=1, modalities=name).whole[name].labels or ()
        assert best.id == max(KNOWN[name], key=lambda x: every[name][x]), "the best of those it knows"


def test_without_the_switch_they_answer_with_all(
    sigmoid_bundle: Path, undecided: Zorro, film: Path, tmp_path: Path
) -> None:
    model = Zorro.open(deciding_bundle(sigmoid_bundle, tmp_path, {}))
    assert _scores(model, film) == _scores(undecided, film)


def test_a_stream_that_knows_no_label_says_nothing(sigmoid_bundle: Path, film: Path, tmp_path: Path) -> None:
    heard = {name: {"modalities": ["audio"]} for name in "abcd"}
    model = Zorro.open(deciding_bundle(sigmoid_bundle, tmp_path, {"known_labels_only": True}, **heard))
    video = model.classify(film, threshold=0).whole["video"]
    assert (video.labels, video.is_sure, video.best_guess) == ((), False, None)
    assert str(video) == NOTHING_SURE


@pytest.fixture(scope="module")
def thresholds(undecided: Zorro, film: Path) -> dict[str, float]:
    """Audio is sure of two labels, video of none; fused has no threshold."""
    scores = _scores(undecided, film)
    return {"audio": sorted(scores["audio"].values())[-2], "video": max(scores["video"].values()) + 1e-6}


@pytest.fixture(scope="module")
def sure(
    sigmoid_bundle: Path, thresholds: dict[str, float], tmp_path_factory: pytest.TempPathFactory
) -> Zorro:
    return Zorro.open(
        deciding_bundle(sigmoid_bundle, tmp_path_factory.mktemp("sure"), {"threshold": thresholds})
    )


def test_by_default_the_threshold_is_the_bundles(
    sure: Zorro, thresholds: dict[str, float], film: Path
) -> None:
    whole = sure.classify(film).whole
    assert [len(whole[name].labels or ()) for name in Modality] == [2, 0, 4]
    assert [whole[name].is_sure for name in Modality] == [True, False, True]
    assert [whole[name].threshold for name in Modality] == [thresholds["audio"], thresholds["video"], 0.0]


def test_what_it_is_not_sure_of_is_the_best_guess(sure: Zorro, undecided: Zorro, film: Path) -> None:
    video, scores = sure.classify(film).whole["video"], _scores(undecided, film)["video"]
    assert video.best_guess is not None
    assert (video.best_guess.id, video.best_guess.score) == max(scores.items(), key=lambda x: x[1])
    assert str(video) == f"{NOTHING_SURE} (best guess: {video.best_guess})"


def test_a_threshold_of_zero_shows_the_best_ones_without_being_sure(sure: Zorro, film: Path) -> None:
    whole = sure.classify(film, threshold=0).whole
    assert [len(whole[name].labels or ()) for name in Modality] == [4, 4, 4]
    assert [whole[name].is_sure for name in Modality] == [True, False, True]
    assert [whole[name].threshold for name in Modality] == [0, 0, 0]


def test_a_higher_threshold_leaves_out_what_the_bundle_is_sure_of(sure: Zorro, film: Path) -> None:
    audio = sure.classify(film, threshold=1).whole["audio"]
    assert (audio.labels, audio.is_sure) == ((), False)
    with pytest.raises(InvalidOption, match="threshold=-1"):
        sure.classify(film, threshold=-1)


def test_a_bundle_without_a_decision_answers_with_all(undecided: Zorro, film: Path) -> None:
    result = undecided.classify(film)
    for stream in result.whole.values():
        assert _ids(stream) == set(MODALITIES)
        assert (stream.threshold, stream.is_sure) == (0.0, True)
    assert undecided.classify(film, threshold=1).whole["audio"].is_sure is False


def test_an_embedding_is_neither_sure_nor_unsure(sure: Zorro, film: Path) -> None:
    stream = sure.embed(film).whole["audio"]
    assert (stream.threshold, stream.is_sure, stream.best_guess) == (None, None, None)
    assert str(stream) == "an embedding of 16 numbers"


def test_an_answer_prints_as_sentences(sure: Zorro, film: Path) -> None:
    result: ClipResult = sure.classify(film, top_k=1)
    audio, video, fused = str(result).splitlines()
    (best,) = result.whole["audio"].labels or ()
    assert audio == f"audio: {best.label} {best.score:.0%}"
    assert video.startswith(f"video: {NOTHING_SURE} (best guess: ")
    assert fused.startswith("fused: ")


def test_labels_that_bridges_join_are_both_in_the_answer(
    sigmoid_bundle: Path, film: Path, tmp_path: Path
) -> None:
    """A piano heard and a piano seen have one name; each has its own id and probability."""
    joined: dict[str, dict[str, Any]] = {
        "a": {"label": "Piano", "bridges": ["b"], "mid": "/m/05r5c", "parents": ["instruments"]},
        "b": {"label": "Piano", "bridges": ["a"], "wnid": "n03928116"},
    }
    path = deciding_bundle(sigmoid_bundle, tmp_path, {"known_labels_only": True}, **joined)
    heard, seen = read_bundle(path).labels[:2]
    assert (heard.bridges, heard.mid, heard.wnid, heard.parents) == (
        ("b",),
        "/m/05r5c",
        None,
        ("instruments",),
    )
    assert (seen.bridges, seen.mid, seen.wnid, seen.parents) == (("a",), None, "n03928116", ())
    labels = Zorro.open(path).classify(film, top_k=9).whole["fused"].labels or ()
    pianos = [label for label in labels if label.label == "Piano"]
    assert {label.id for label in pianos} == {"a", "b"}
    assert len({label.score for label in pianos}) == 2


@pytest.mark.parametrize("bridges", [["nowhere"], "b", [1]])
def test_bridges_that_lead_nowhere_are_refused(bridges: object, sigmoid_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleIncompatible, match="bridges"):
        read_bundle(deciding_bundle(sigmoid_bundle, tmp_path, {}, a={"bridges": bridges}))


def test_a_threshold_is_reached_by_a_probability_that_equals_it(sure: Zorro) -> None:
    limit = sure.bundle.decision
    assert limit is not None
    votes = np.array([[limit.threshold_of(Modality.AUDIO), 0.0, 0.0, 0.0]])
    (result,) = sure.label_request().to_results(votes, Modality.AUDIO)
    assert result.labels == (LabelScore("a", "A", limit.threshold_of(Modality.AUDIO)),)
