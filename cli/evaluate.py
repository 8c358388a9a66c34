"""`zorro evaluate`: score a checkpoint or a bundle, and print the scores as tables."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import AsJson, VariantOption
from .console import explained, make_table, out, stage_bars

if TYPE_CHECKING:
    from verification.scoring import Tables

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
    """Score a checkpoint or a bundle on a split: the same tables for both.

    A probe needs no labels in the checkpoint.
    """
    with explained():
        from datasets.manifests import Spans
        from verification.scoring import EvaluationRequest, probe_split, report_split, score_split

        if checkpoint:
            from verification.checkpoint_source import open_checkpoint_source

            target = open_checkpoint_source(target).checkpoint
        request = EvaluationRequest(
            model=target, data=data, split=split, variant=variant, spans=Spans(spans) if spans else None
        )
        with stage_bars() as on_progress:
            if report is not None:
                path = report_split(request, report, with_probes=probe, on_progress=on_progress)
                tables = None
            else:
                score = probe_split if probe else score_split
                tables = score(request, on_progress=on_progress)
        if tables is None:
            out.print(f"report: {path}")
        elif as_json:
            print(json.dumps(tables, indent=1))
        else:
            _print_scores(tables)


METRICS = {
    "top-1": ("top1", ".1%"),
    "top-5": ("top5", ".1%"),
    "within groups": ("within_groups", ".1%"),
    "mAP": ("map", ".3f"),
    "ECE": ("calibration_error", ".3f"),
    "C": ("c", "g"),
}
"""Titles of what a table of scores may hold, its key, and its format."""
MAIN_TABLES = ("audio", "video", "fused", "sounds", "sights", "pairs_fused")
"""Tables whose scores are printed by label too; JSON has those of all."""


def _print_scores(tables: "Tables") -> None:
    """One row per table; then one row per label, of the main tables."""
    metrics = {
        title: metric
        for title, metric in METRICS.items()
        if any(metric[0] in table for table in tables.values())
    }
    summary = make_table("table", title="scores")
    for title in ("clips", *metrics):
        summary.add_column(title, justify="right")
    for name, scores in tables.items():
        cells = [_score(scores, key, style) for key, style in metrics.values()]
        summary.add_row(name, str(scores["clips"]), *cells)
    out.print(summary)
    out.print("In brackets: 95 % intervals. ECE: expected calibration error.", highlight=False)
    by_label = {name: tables[name]["labels"] for name in MAIN_TABLES if "labels" in tables.get(name, {})}
    labels = make_table("label", title="share right of the clips of each label")
    for name in by_label:
        labels.add_column(name, justify="right")
    for label in sorted({label for column in by_label.values() for label in column}):
        labels.add_row(label, *[_label_score(column.get(label)) for column in by_label.values()])
    out.print(labels)


def _score(scores: dict[str, Any], key: str, style: str) -> str:
    """A score, and its interval if it has one."""
    if key not in scores:
        return ""
    ends = [format(end, style).removesuffix("%") for end in scores.get(f"{key}_interval") or ()]
    return format(scores[key], style) + (f" ({'-'.join(ends)})" if ends else "")


def _label_score(cell: dict[str, float] | None) -> str:
    if cell is None:
        return ""
    return f"{cell.get('accuracy', cell.get('average_precision', 0)):.0%} of {cell['clips']}"
