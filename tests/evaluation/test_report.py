"""Reports: every number is the records', and equal records make equal bytes."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.report import markdown_table, write_evaluation_report

TABLE = {
    "clips": 12, "top1": 0.83125, "top5": 0.91, "calibration_error": 0.0625, "top1_interval": [0.71, 0.94],
    "unanswered": {"broken": 2, "mute": 1}, "labels": {},
    "groups": {
        "colour": {"accuracy": 0.5, "clips": 4, "chance": 0.25},
        "digit": {"accuracy": 0.75, "clips": 8, "chance": 0.1},
    },
    "within_groups": 0.625, "within_groups_interval": [0.4, 0.8],
}  # fmt: skip
SCORES = {
    "items": 15, "silent": 3, "still": 1, "failures": [], "views": {"windows": 4, "crops": 3},
    "metric": "within_groups",
    "tables": {"audio": TABLE, "video": {"clips": 0, "unanswered": {"without_picture": 15}}},
}  # fmt: skip
CURVE = {"values": [0.9, 0.8, 0.4567], "low": [0.85, 0.7, 0.3], "high": [0.95, 0.9, 0.6]}
CORRUPTED = {
    "metric": "top1", "items": 15,
    "corruptions": {"noise": {"unit": "signal-to-noise ratio, dB", "levels": [None, 20, -5], "streams": {
        "audio": CURVE, "fused": CURVE | {"low": [None] * 3, "high": [None] * 3},
    }}},
}  # fmt: skip
RETRIEVAL = {"audio_to_video": {
    "clips": 40, "recall@1": 0.333, "recall@5": 0.444, "recall@10": 0.555, "recall@1_interval": [0.2, 0.45],
    "median_rank": 7.5, "chance@1": 0.025, "chance@5": 0.125, "chance@10": 0.25,
}}  # fmt: skip
PROBES = {
    "fused": {
        "clips": 9,
        "top1": 0.777,
        "top1_interval": [0.6, 0.9],
        "c": 0.01,
        "val_top1": {},
        "converged": False,
    }
}


@pytest.fixture
def records() -> dict[str, Any]:
    full = {"scores": SCORES, "corrupted": CORRUPTED, "retrieval": RETRIEVAL, "probes": PROBES}
    return {"zorro-vit": copy.deepcopy(full), "late fusion": {"scores": copy.deepcopy(SCORES)}}


def _row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_numbers_are_the_records(records: dict[str, Any], tmp_path: Path) -> None:
    text = write_evaluation_report(records, tmp_path / "new", title="Six words").read_text()
    assert text.startswith("# Six words\n")
    assert _row(text, "zorro-vit, audio")[1:] == [
        "12",
        "83.1 % (71.0 to 94.0)",
        "91.0 %",
        "62.5 % (40.0 to 80.0)",
        "0.062",
    ]
    assert _row(text, "zorro-vit, video")[1:] == ["0", "", "", "", ""]
    assert _row(text, "audio")[1:] == ["90.0 %", "80.0 %", "45.7 %"]
    assert _row(text, "zorro-vit, audio to video")[1:] == [
        "40",
        "33.3 % (20.0 to 45.0)",
        "44.4 %",
        "55.5 %",
        "2.5 %",
        "7.5",
    ]
    assert _row(text, "zorro-vit, fused")[1:] == ["9", "77.7 % (60.0 to 90.0)", "0.01", "no"]
    assert "15 items, 4 windows x 3 crops each, of which 3 silent and 1 still" in text
    assert "Without answer: audio 2 broken, 1 mute; video 15 without picture." in text
    assert json.loads((tmp_path / "new" / "records.json").read_text()) == records


@pytest.mark.slow
def test_a_changed_number_changes_the_report(records: dict[str, Any], tmp_path: Path) -> None:
    before = write_evaluation_report(records, tmp_path / "a", title="x").read_text()
    records["zorro-vit"]["scores"]["tables"]["audio"]["top1"] = 0.123
    after = write_evaluation_report(records, tmp_path / "b", title="x").read_text()
    changed = [(a, b) for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert len(changed) == 1
    assert "12.3 %" in changed[0][1]


def test_every_chart_is_there_and_drawn_from_the_record(records: dict[str, Any], tmp_path: Path) -> None:
    text = write_evaluation_report(records, tmp_path, title="x").read_text()
    charts = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert charts == ["groups-zorro-vit.svg", "groups-late-fusion.svg", "noise-zorro-vit.svg"]
    drawn = (tmp_path / "noise-zorro-vit.svg").read_text()
    for word in ("clean", "signal-to-noise ratio, dB", "top-1, %", "audio", "fused", "zorro-vit: noise"):
        assert f">{word}</text>" in drawn
    groups = (tmp_path / "groups-zorro-vit.svg").read_text()
    for word in ("colour", "digit", "chance", "accuracy within group, %"):
        assert f">{word}</text>" in groups


@pytest.mark.slow
def test_a_curve_moves_with_its_numbers(records: dict[str, Any], tmp_path: Path) -> None:
    write_evaluation_report(records, tmp_path, title="x")
    before = (tmp_path / "noise-zorro-vit.svg").read_bytes()
    records["zorro-vit"]["corrupted"]["corruptions"]["noise"]["streams"]["audio"]["values"][1] = 0.1
    write_evaluation_report(records, tmp_path, title="x")
    assert (tmp_path / "noise-zorro-vit.svg").read_bytes() != before


@pytest.mark.slow
def test_equal_records_make_equal_bytes(records: dict[str, Any], tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_evaluation_report(records, tmp_path / name, title="x")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 5
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_table_of_many_labels(records: dict[str, Any], tmp_path: Path) -> None:
    scores = records["late fusion"]["scores"]
    scores["tables"] = {
        "fused": {"clips": 7, "map": 0.512, "map_interval": [0.4, 0.6], "labels": {}, "unanswered": {}}
    }
    text = write_evaluation_report({"m": {"scores": scores}}, tmp_path, title="x").read_text()
    assert _row(text, "model, stream")[1:] == ["clips", "mAP"]
    assert _row(text, "m, fused")[1:] == ["7", "51.2 % (40.0 to 60.0)"]
    assert "Without answer: none." in text


def test_markdown_cells() -> None:
    assert markdown_table(["a", "b"], [["x|y", "1"]]) == "| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n"


def test_a_report_fails(records: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="got no records"):
        write_evaluation_report({}, tmp_path, title="x")
    with pytest.raises(ValueError, match=r"unknown parts \['score'\]"):
        write_evaluation_report({"m": {"score": SCORES}}, tmp_path, title="x")
    with pytest.raises(ValueError, match="rename one"):
        write_evaluation_report(
            {"a b": records["zorro-vit"], "a-b": records["zorro-vit"]}, tmp_path, title="x"
        )
    records["zorro-vit"]["scores"]["tables"]["audio"]["top1"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluation_report(records, tmp_path, title="x")
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        markdown_table(["a", "b"], [["x"]])
