"""`zorro evaluate`: score a checkpoint or a bundle, and print the scores as tables."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from .arguments import AsJson, VariantOption
from .console import explained, out, stage_bars

DataOption = Annotated[
    Path, typer.Option("--data", help="Clips in label folders, a manifest.csv, or a known collection.")
]


def evaluate(
    target: Annotated[Path, typer.Argument(help="A checkpoint's or a bundle's folder.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="val to choose, test to report once.")] = "val",
    variant: VariantOption = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Of a bundle: its checkpoint, not its graphs.")
    ] = False,
    spans: Annotated[
        str | None,
        typer.Option(
            help="Spans of a file: each by itself, or whole; default as the checkpoint was trained."
        ),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe", help="Fit linear probes of the labels to the frozen features, and score these."
        ),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report with charts: curves in noise, retrieval.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint or a bundle on a split: the same tables for both. A probe needs no labels in the checkpoint."""
    with explained():
        from datasets.manifests import Spans

        if checkpoint:
            from verification.checkpoint_source import open_origin

            target = open_origin(target).checkpoint
        from verification.scoring import probe_target, report_target, score_target

        asked = {"split": split, "variant": variant, "spans": Spans(spans) if spans else None}
        if report is None and not probe:
            _print_scores(score_target(target, data, **asked), as_json=as_json)
            return
        with stage_bars() as on_stage:
            asked["on_progress"] = partial(on_stage, "score")
            if report is None:
                found = probe_target(target, data, **asked)
            else:
                found = report_target(target, data, report, probe=probe, **asked)
        if report is None:
            _print_scores(found, as_json=as_json)
        else:
            out.print(f"report: {found}")


SCORES = {
    "top-1": ("top1", ".1%"),
    "top-5": ("top5", ".1%"),
    "within groups": ("within_groups", ".1%"),
    "mAP": ("map", ".3f"),
    "calibration error": ("calibration_error", ".3f"),
    "C": ("c", "g"),
}
"""Titles of what a table of scores may hold."""


def _print_scores(tables: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tables, indent=1))
        return
    shown = {
        title: score for title, score in SCORES.items() if any(score[0] in table for table in tables.values())
    }
    summary = Table("table", "clips", *shown)
    for name, scores in tables.items():
        cells = [_score(scores, key, style) for key, style in shown.values()]
        summary.add_row(name, str(scores["clips"]), *cells)
    out.print(summary)
    per_label = {name: scores["labels"] for name, scores in tables.items() if "labels" in scores}
    labels = Table("label", *per_label, title="per label")
    for label in sorted({label for column in per_label.values() for label in column}):
        labels.add_row(label, *[_share(column.get(label)) for column in per_label.values()])
    out.print(labels)


def _score(scores: dict[str, Any], key: str, style: str) -> str:
    """A score, and its interval if it has one."""
    if key not in scores:
        return ""
    ends = scores.get(f"{key}_interval")
    return format(scores[key], style) + (
        " ({:{style}} to {:{style}})".format(*ends, style=style) if ends else ""
    )


def _share(cell: dict[str, float] | None) -> str:
    if cell is None:
        return ""
    return f"{cell.get('accuracy', cell.get('average_precision', 0)):.0%} of {cell['clips']}"
