"""Order of measuring, ratios and limits, and tables of the benchmarks; nothing is measured here."""

import io
import json
import re
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.measure import Measured, interleave
from benchmarks.report import (
    RATIO_COLUMNS,
    TABLES_PAGE,
    print_result,
    read_results,
    to_markdown,
    write_tables,
)
from benchmarks.result import CheckError, Ratio, Result
from benchmarks.run import BENCHMARKS

ABOUT = {"hardware": {"cpu": "Abacus", "cores": 2}}
BEGIN, END = "<!-- benchmarks: begin. Made from JSON. -->\n", "<!-- benchmarks: end -->"
PRESETS = "<!-- variants: begin -->\n<!-- variants: end -->\n<!-- presets: begin -->\n<!-- presets: end -->"


@pytest.fixture
def result() -> Result:
    entries = {
        "ours": Measured((0.3, 0.1, 0.2)),
        "slow": Measured((0.5, 0.4)),
        "quick": Measured((0.125, 9.0)),
    }
    return Result(name="racing", parameters={"rounds": 3}, entries=entries)


class Clock:
    """Time that passes only while a side runs."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, ""

    def side(self, name: str, seconds: list[float]) -> Callable[[], None]:
        lengths = iter(seconds)

        def run() -> None:
            self.log += name
            self.now += next(lengths)

        return run

    def interleave(self, sides: dict[str, Callable[[], None]], **options: int) -> dict[str, Measured]:
        return interleave(sides, clock=lambda: self.now, rest=lambda: None, **options)


def test_sides_take_turns() -> None:
    clock = Clock()
    sides = {"A": clock.side("A", [100, 3, 1, 2]), "B": clock.side("B", [100, 6, 4, 5])}
    measured = clock.interleave(sides, rounds=3)
    assert clock.log == "ABABABAB"
    assert measured["A"].raw == (3, 1, 2)  # without the warm-up
    assert (measured["B"].min, measured["B"].median) == (4, 5)


def test_several_calls_are_shared_out() -> None:
    clock = Clock()
    measured = clock.interleave({"A": clock.side("A", [1, 2, 3, 4])}, rounds=2, calls=2, warm_ups=0)
    assert measured["A"].raw == (1.5, 3.5)


def test_a_rest_is_not_counted() -> None:
    ticks = count()
    measured = interleave({"A": lambda: None}, rounds=2, clock=lambda: next(ticks), rest=lambda: next(ticks))
    assert measured["A"].raw == (1, 1)


@pytest.mark.parametrize("options", [{"rounds": 0}, {"rounds": 1, "calls": 0}])
def test_no_measurement_fails(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        interleave({"A": lambda: None}, **options)


def test_minima_are_compared_with_the_best_of_the_others(result: Result) -> None:
    result.compare("ours", ["slow", "quick"], at_most=1.0, other="the others")
    (ratio,) = result.ratios
    assert ratio.value == pytest.approx(0.8)
    assert (ratio.what, ratio.against, ratio.limit) == ("ours", "the others (quick)", "≤ 1.00")
    assert ratio.is_met
    assert result.is_met


def test_a_missed_limit_fails(result: Result) -> None:
    result.compare("ours", "slow", at_most=1.0)
    assert result.is_met
    result.compare("slow", "ours", at_most=1.0)
    assert not result.is_met
    assert [ratio.is_met for ratio in result.ratios] == [True, False]


@pytest.mark.parametrize(
    ("value", "limits", "is_met"),
    [
        (0.85, {"at_most": 0.85}, True),
        (0.86, {"at_most": 0.85}, False),
        (0.80, {"at_least": 0.8}, True),
        (0.79, {"at_least": 0.8}, False),
        (99.0, {}, True),
        (float("nan"), {"at_most": 1.0}, False),
        (float("nan"), {"at_least": 1.0}, False),
    ],
)
def test_limits(value: float, limits: dict[str, float], is_met: bool) -> None:
    assert Ratio(what="a", against="b", value=value, **limits).is_met == is_met


def test_a_check_is_noted(result: Result) -> None:
    result.check("difference", 0.5, at_most=1.0)
    assert result.checks == {"difference": {"value": 0.5, "at_most": 1.0}}


@pytest.mark.parametrize("value", [1.1, float("nan")])
def test_a_check_that_does_not_hold_fails(value: float, result: Result) -> None:
    with pytest.raises(CheckError, match="racing: difference is .*more than 1"):
        result.check("difference", value, at_most=1.0)


def test_a_result_is_stored_and_read(result: Result, tmp_path: Path) -> None:
    result.compare("ours", "quick", at_most=0.5)
    path = result.write(ABOUT, tmp_path / "results")
    (stored,) = read_results(tmp_path / "results")
    assert [x.name for x in path.parent.iterdir()] == ["racing.json"]
    assert stored == json.loads(path.read_text())
    assert stored["hardware"] == ABOUT["hardware"]
    assert stored["entries"]["ours"] == {"unit": "s", "min": 0.1, "median": 0.2, "raw": [0.3, 0.1, 0.2]}
    assert stored["ratios"][0] == {
        "what": "ours",
        "against": "quick",
        "value": pytest.approx(0.8),
        "limit": "≤ 0.50",
        "is_met": False,
    }


def test_one_row_per_ratio(result: Result) -> None:
    result.compare("ours", "quick", at_most=0.5)
    result.compare("ours", "slow")
    assert to_markdown([result.to_dict() | ABOUT]).splitlines() == [
        "| " + " | ".join(RATIO_COLUMNS) + " |",
        "| --- | --- | --- | --- | --- |",
        "| ours | quick | 0.80 | ≤ 0.50 (missed) | Abacus, 2 cores |",
        "| ours | slow | 0.25 |  | Abacus, 2 cores |",
    ]


def test_the_table_is_replaced_and_nothing_else(result: Result, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}{END}\n\nAfter.\n{PRESETS}")
    result.compare("ours", "quick")
    for _ in range(2):
        write_tables([result.to_dict() | ABOUT], page)
        before, _, after = page.read_text().partition("\n| what")
        assert before == f"# Title\n\n{BEGIN}"
        assert after.endswith(f" cores |\n\n{END}\n\nAfter.\n{PRESETS}")
    write_tables([], page)
    assert page.read_text() == f"# Title\n\n{BEGIN}{END}\n\nAfter.\n{PRESETS}"
    record = {"preset": "tiny", "parameters": 5e6, "tokens": [4, 8, 2], "gflops": 1.25}
    record |= {"audio_ms": 1, "video_ms": 2, "both_ms": 3}
    write_tables([{"name": "presets", "ratios": [], "records": [record]}], page)
    assert "| `tiny` | 5.0 | 4 + 8 + 2 | 1.2 | 1 | 2 | 3 |" in page.read_text()


def test_a_page_without_a_place_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{END}\n")
    with pytest.raises(ValueError, match="no place for the table"):
        write_tables([], page)


def test_our_page_has_the_tables_of_our_results(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TABLES_PAGE.read_text())
    write_tables(read_results(), page)
    assert page.read_text() == TABLES_PAGE.read_text(), "python -m benchmarks report puts the table right"


def test_tables_name_what_was_missed(result: Result) -> None:
    result.compare("slow", "ours", at_most=1.0)
    console = Console(width=120, file=io.StringIO())
    print_result(result, console)
    printed = console.file.getvalue()
    assert "4.000" in printed
    assert "NO" in printed
    assert "100.0 ms" in printed


def test_the_page_describes_every_benchmark() -> None:
    described = re.findall(
        r"^\| `(\w+)` \|", TABLES_PAGE.read_text().partition("<!--")[0], flags=re.MULTILINE
    )
    assert sorted(described) == sorted(BENCHMARKS)
