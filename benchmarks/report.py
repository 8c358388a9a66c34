"""Results as tables: on the terminal, and in docs/benchmarks.md from `results/*.json`."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.report import markdown_table

from .machine import ROOT
from .presets import presets_table
from .result import RESULTS_FOLDER, Result
from .variants import variants_table

TABLES_PAGE = ROOT / "docs" / "benchmarks.md"
PLACE = r"(<!-- {0}: begin\b[^>]*-->\n).*?(<!-- {0}: end -->)"
RATIO_COLUMNS = ("what", "against", "ratio", "limit", "machine")
UNITS = {"s": (1e3, "ms"), "B": (1e-6, "MB"), "share": (100.0, "%")}


def print_result(result: Result, console: Console) -> None:
    """Print entries, checks and ratios."""
    entries = Table("entry", "min", "median", "n", title=result.name, title_justify="left")
    for name, measured in result.entries.items():
        scale, unit = UNITS[measured.unit]
        row = (f"{measured.min * scale:,.1f} {unit}", f"{measured.median * scale:,.1f} {unit}")
        entries.add_row(name, *row, str(len(measured.raw)))
    console.print(entries)
    ratios = Table("ratio", "against", "value", "limit", "met")
    for ratio in result.ratios:
        met = ("[green]yes" if ratio.is_met else "[red]NO") if ratio.limit else ""
        ratios.add_row(ratio.what, ratio.against, f"{ratio.value:.3f}", ratio.limit, met)
    console.print(ratios)
    for name, check in result.checks.items():
        console.print(f"{name}: {check['value']:.3g} (at most {check['at_most']:g})", highlight=False)
    for name, count in result.counts.items():
        console.print(f"{name}: {count:,.4g}", highlight=False)


def read_results(folder: Path = RESULTS_FOLDER) -> list[dict[str, Any]]:
    """Results in a folder, in order of name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def to_markdown(results: Iterable[Mapping[str, Any]]) -> str:
    """One row per ratio; empty without results."""
    rows = [
        (
            ratio["what"],
            ratio["against"],
            f"{ratio['value']:.2f}",
            ratio["limit"] + ("" if ratio["is_met"] else " (missed)"),
            f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores",
        )
        for result in results
        for ratio in result["ratios"]
    ]
    return markdown_table(RATIO_COLUMNS, rows, num_text_columns=len(RATIO_COLUMNS)) if rows else ""


def write_tables(results: Iterable[Mapping[str, Any]], path: Path = TABLES_PAGE) -> None:
    """Write the tables of `results` into the page, between the comments that mark their places.

    Raises:
        ValueError: the page lacks one of the comments.
    """
    results = list(results)
    tables = {"benchmarks": to_markdown(results)}
    for name, to_table in (("presets", presets_table), ("variants", variants_table)):
        tables[name] = "".join(to_table(result) for result in results if result["name"] == name)
    text = path.read_text()
    for name, table in tables.items():
        text = _with_table(text, name, table, path)
    path.write_text(text)


def _with_table(text: str, name: str, table: str, path: Path) -> str:
    place = re.compile(PLACE.format(name), flags=re.DOTALL)
    if not place.search(text):
        raise ValueError(
            f"{path.name} has no place for the table; "
            f"put back <!-- {name}: begin --> and <!-- {name}: end -->"
        )
    framed = f"\n{table}\n" if table else ""
    return place.sub(lambda found: found[1] + framed + found[2], text)
