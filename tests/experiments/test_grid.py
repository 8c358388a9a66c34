"""The experiments' plan, and a report whose every figure is arithmetic on the records."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.layouts.grid import SLOTS
from experiments.grid.plan import SEEDS, experiments
from experiments.grid.report import (
    DIRECTIONS,
    EARLIER_STREAMS,
    RESULTS,
    accuracy,
    collect,
    right_answers,
    with_earlier,
    write_results,
)
from experiments.grid.run import run_all, run_one
from experiments.grid.score import right_digits
from models.mask import Masking
from tests.made_media import moving_frames, tone, write_clip

NUM_SENTENCES = 4


def _streams(value: object) -> dict[str, object]:
    return dict.fromkeys(("audio", "video", "fusion", "fusion_by_audio", "fusion_by_video"), value)


def _record(right: str, **changes: object) -> dict[str, object]:
    streams = _streams(right)
    table = {"recall@1": 0.25, "clips": 4}
    return {
        "right": {"clean": streams, "-5 dB": streams | {"audio": "0" * len(right)}},
        "retrieval": dict.fromkeys(("sequences", "means"), dict.fromkeys(DIRECTIONS, table)),
        "parameters": 1_300_000,
        "gflops": 0.13,
        "training_seconds": 90.4,
    } | changes


@pytest.fixture
def records() -> dict[str, dict[str, object]]:
    half = "111000" * NUM_SENTENCES
    return {
        "supervised-zorro-0": _record("1" * 6 * NUM_SENTENCES),
        "supervised-zorro-1": _record(half),
        "supervised-none-0": _record(half),
        "contrastive-zorro-0": {
            "retrieval": _record(half)["retrieval"],
            "probe": {"right": {"clean": _streams(half)}},
        },
        "untrained-0": {"retrieval": {}, "probe": {"right": {"clean": _streams("0" * 6 * NUM_SENTENCES)}}},
        "sentences-0": _record(half, map={"clean": _streams(0.5), "-5 dB": _streams(0.25)}),
        "only-audio-0": _record(half),
        "finetuned-0": _record(half),
        "swin-0": _record(half),
    }


def test_names_are_unique_and_starts_come_first() -> None:
    seen: list[str] = []
    for experiment in experiments():
        assert experiment.start_from is None or experiment.start_from in seen
        seen.append(experiment.name)
    assert len(seen) == len(set(seen))
    assert {f"supervised-{masking}-{seed}" for masking in Masking for seed in SEEDS} <= set(seen)


def test_runs_of_a_comparison_differ_in_what_is_compared() -> None:
    recipes = {e.name: e.recipe for e in experiments()}
    zorro, other = recipes["supervised-zorro-1"], recipes["supervised-bottleneck-1"]
    assert replace(other, model=zorro.model) == zorro
    assert {k for k in zorro.model if zorro.model[k] != other.model[k]} == {"masking"}
    trained, floor = recipes["contrastive-zorro-1"], recipes["untrained-1"]
    assert replace(floor, model=trained.model, num_steps=trained.num_steps) == trained
    assert floor.num_steps == 1


def test_figures_are_means_over_seeds_and_words(records: dict[str, dict[str, object]]) -> None:
    right = right_answers(records, "supervised-zorro", "clean", "audio")
    assert right.shape == (2, NUM_SENTENCES, 6)
    assert accuracy(right) == pytest.approx((0.75, 0.75, 0.75))
    assert right_answers(records, "nobody", "clean", "audio") is None
    random = np.random.default_rng(0).integers(0, 2, (1, 400, 6))
    value, low, high = accuracy(random)
    expected = 1.96 * random.mean((0, 2)).std() / 20  # a normal approximation
    assert (value - low, high - value) == pytest.approx((expected, expected), rel=0.15)


@pytest.mark.slow
def test_the_report_says_what_the_records_say(records: dict[str, dict[str, object]], tmp_path: Path) -> None:
    text = write_results(records, tmp_path).read_text()
    assert "| Zorro (1 seeds), clean | 100.0 (100.0 to 100.0) |" in text, "the seed that all rows have"
    assert "| no mask (1 seeds), -5 dB | 0.0 (0.0 to 0.0) | 50.0 (50.0 to 50.0) |" in text
    assert "At -5 dB both are +75.0 (+75.0 to +75.0) points above sound alone, and +0.0" in text
    assert "| Zorro, window by window (1 seeds) | 25.0 (25 to 25) |" in text
    assert (
        "| sound, clean (1 seeds) | 100.0 (100.0 to 100.0) | 50.0 (50.0 to 50.0) | +50.0 (+50.0 to +50.0) |"
        in text
    )
    assert "| Swin (1 seeds) |" in text
    assert (
        "| Zorro (1 seeds), clean | 50.0 (50.0 to 50.0) | 50.0 (50.0 to 50.0) | 50.0 (50.0 to 50.0) |\n"
        in text
    )
    assert "| never trained (1 seeds), clean | 0.0 (0.0 to 0.0) |" in text
    assert "| Zorro (1 seeds), -5 dB | 25.0 (25.0 to 25.0) |" in text, "mAP of whole sentences"
    assert json.loads((tmp_path / "grid.json").read_text()).keys() == records.keys()
    assert (tmp_path / "grid-supervised-zorro-noise.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_results_of_earlier_names_of_streams_make_the_same_report(
    records: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    text = json.dumps(records)
    for name, earlier in EARLIER_STREAMS.items():
        text = text.replace(f'"{name}"', f'"{earlier}"')
    ours, theirs = (
        write_results(found, tmp_path / name) for name, found in (("a", records), ("b", json.loads(text)))
    )
    assert ours.read_text() == theirs.read_text()
    assert right_answers(json.loads(text), "sentences", "clean", "fusion_by_audio").any()


@pytest.mark.slow
def test_earlier_results_stay_until_a_run_of_their_name_replaces_them(
    records: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    write_results(records, tmp_path)
    (tmp_path / "runs" / "swin-0").mkdir(parents=True)
    (tmp_path / "runs" / "swin-0" / "test.json").write_text(
        json.dumps(records["only-audio-0"] | {"parameters": 7})
    )
    found = with_earlier(collect(tmp_path / "runs"), tmp_path)
    assert found.keys() == records.keys()
    assert found["swin-0"]["parameters"] == 7
    assert found["supervised-zorro-0"] == records["supervised-zorro-0"]
    assert with_earlier({}, tmp_path / "nowhere") == {}


def test_a_word_is_right_where_it_beats_its_slot() -> None:
    """Two sentences; digits come in the order in which slots are spoken, whatever the order of labels."""
    names = sorted(word for words in SLOTS.values() for word in words)
    spoken = [["bin", "blue", "at", "f", "two", "now"], ["lay", "red", "by", "a", "nine", "soon"]]
    truth = np.array([[word in sentence for word in names] for sentence in spoken], float)
    scores = truth.copy()
    scores[0, names.index("white")] = 2.0  # beats blue, and no word of another slot
    scores[1, names.index("again")] = 1.0  # a tie with soon is no answer
    assert right_digits(scores, truth, names) == "101111111110"
    words = np.eye(len(names))[[names.index("two"), names.index("bin")]]
    assert right_digits(scores, words, names) == "10", "of single words one each"


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five made films of three seconds as GRID lists its own: two to train on, one to validate by, two to
    test."""
    folder = tmp_path_factory.mktemp("grid")
    spoken = {"a": "bin blue at f two now", "b": "lay red by a nine soon", "c": "set green in x one again"}
    heads, words = ["path,split," + ",".join(SLOTS)], ["path,start_seconds,end_seconds,word"]
    for split, names in (("train", "ab"), ("val", "a"), ("test", "bc")):
        for i, name in enumerate(names):
            path = write_clip(
                folder / f"{split}{name}.mp4", waveform=tone(3.0, hz=300 + 100 * i), frames=moving_frames(3.0)
            )
            heads.append(f"{path.name},{split},{spoken[name].replace(' ', ',')}")
            words += [
                f"{path.name},{n / 2},{n / 2 + 0.4},{word}" for n, word in enumerate(spoken[name].split())
            ]
    for file, lines in (("sentences.csv", heads), ("words.csv", words)):
        (folder / file).write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["untrained-0", "sentences-0"])
def test_a_run_is_trained_and_scored(name: str, sentences: Path, tmp_path: Path) -> None:
    experiment = next(e for e in experiments() if e.name == name)
    quick = replace(experiment, recipe=replace(experiment.recipe, num_steps=1, num_clips=2))
    run_one(quick, sentences, tmp_path)
    record = json.loads((tmp_path / name / "test.json").read_text())
    right = record["probe"]["right"] if name == "untrained-0" else record["right"]
    assert {len(digits) for digits in right["clean"].values()} == {12}, "two sentences of six words"
    if name == "untrained-0":
        assert right["clean"].keys() == {"audio", "video", "fusion"}
        assert record["retrieval"]["sequences"]["audio_to_video"]["clips"] == 2
    else:
        assert {len(record["map"]), len(right)} == {7}, "clean and six levels of noise"
        assert all(0 < score <= 1 for streams in record["map"].values() for score in streams.values())
        assert "retrieval" not in record
    write_results({name: record}, tmp_path / "results")


def test_no_results_fail(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        collect(tmp_path)


def test_a_run_without_its_start_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to start \\['finetuned-0'\\] from"):
        run_all(tmp_path, tmp_path, only="finetuned-0", parallel=1)


@pytest.mark.slow
def test_the_committed_report_is_made_from_the_committed_records(tmp_path: Path) -> None:
    records = json.loads((RESULTS / "grid.json").read_text())
    made = write_results(records, tmp_path)
    assert made.read_text() == (RESULTS / "grid.md").read_text(), "python -m experiments report puts it right"
