"""The experiments' plan, and a report whose every figure is arithmetic on the records."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.grid.plan import SEEDS, experiments
from experiments.grid.report import DIRECTIONS, RESULTS, accuracy, collect, right_answers, write_results
from experiments.grid.run import run_all
from models.mask import Masking

NUM_SENTENCES = 4


def _record(right: str, **changes: object) -> dict[str, object]:
    streams = dict.fromkeys(("audio", "video", "fusion", "fusion_by_sound", "fusion_by_sight"), right)
    table = {"recall@1": 0.25, "clips": 4}
    return {
        "right": {"clean": streams, "-5 dB": streams | {"audio": "0" * len(right)}},
        "retrieval": dict.fromkeys(("sequences", "means"), dict.fromkeys(DIRECTIONS, table)),
        "parameters": 1_300_000, "gflops": 0.13, "training_seconds": 90.4,
    } | changes  # fmt: skip


@pytest.fixture
def records() -> dict[str, dict[str, object]]:
    half = "111000" * NUM_SENTENCES
    return {
        "supervised-zorro-0": _record("1" * 6 * NUM_SENTENCES),
        "supervised-zorro-1": _record(half),
        "supervised-none-0": _record(half),
        "contrastive-zorro-0": {"retrieval": _record(half)["retrieval"]},
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


def test_figures_are_means_over_seeds_and_words(records: dict[str, dict[str, object]]) -> None:
    right = right_answers(records, "supervised-zorro", "clean", "audio")
    assert right.shape == (2, NUM_SENTENCES, 6)
    assert accuracy(right) == pytest.approx((0.75, 0.75, 0.75))
    assert right_answers(records, "nobody", "clean", "audio") is None
    random = np.random.default_rng(0).integers(0, 2, (1, 400, 6))
    value, low, high = accuracy(random)
    expected = 1.96 * random.mean((0, 2)).std() / 20  # a normal approximation
    assert (value - low, high - value) == pytest.approx((expected, expected), rel=0.15)


def test_the_report_says_what_the_records_say(records: dict[str, dict[str, object]], tmp_path: Path) -> None:
    text = write_results(records, tmp_path).read_text()
    assert "| Zorro (1 seeds), clean | 100.0 (100.0 to 100.0) |" in text, "the seed that all rows have"
    assert "| no mask (1 seeds), -5 dB | 0.0 (0.0 to 0.0) | 50.0 (50.0 to 50.0) |" in text
    assert "At -5 dB both are +75.0 (+75.0 to +75.0) points above sound alone, and +0.0" in text
    assert "| Zorro, window by window (1 seeds) | 25.0 (25 to 25) |" in text
    assert "| sound, clean (1 seeds) | 100.0 (100.0 to 100.0) | 50.0 (50.0 to 50.0) | +50.0 (+50.0 to +50.0) |" in text
    assert "| Swin (1 seeds) |" in text
    assert json.loads((tmp_path / "grid.json").read_text()).keys() == records.keys()
    assert (tmp_path / "grid-supervised-zorro-noise.svg").read_text().startswith("<?xml")


def test_no_results_fail(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results"):
        collect(tmp_path)


def test_a_run_without_its_start_fails(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to start \\['finetuned-0'\\] from"):
        run_all(tmp_path, tmp_path, only="finetuned-0", parallel=1)


def test_the_committed_report_is_made_from_the_committed_records(tmp_path: Path) -> None:
    records = json.loads((RESULTS / "grid.json").read_text())
    made = write_results(records, tmp_path)
    assert made.read_text() == (RESULTS / "grid.md").read_text(), "python -m experiments report puts it right"


