"""A report of scores: Markdown with charts, in which every number comes from the records.

Records are plain dicts, as JSON gives them, by name of the model. The same records make the same bytes, so
that a report under version control changes only with its numbers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .report_charts import draw_curve, draw_groups, draw_tables
from .report_titles import METRIC_TITLES, PERCENT, STREAM_TITLES, UNPAIRED_TITLES

NOTHING = ""


def write_evaluation_report(records: Mapping[str, Mapping[str, Any]], folder: Path, *, title: str) -> Path:
    """Write `report.md`, its charts, and `records.json`, which made them, into a folder.

    Args:
        records: by model, each with any of `scores` (of `score_clips`), `unpaired` (`items`, `failures` and
            `tables` of `evaluate_split` and `score_corrupted_pairs`), `corrupted` (of `score_corrupted`),
            `retrieval` (of `retrieval_tables`), and `probes` (by stream, of `linear_probe`).
        folder: is made if it is not there; files of these names in it are replaced.
        title: heading of the report.

    Raises:
        ValueError: no records, a record with a part that is none of these or with numbers that are none, or
            two models whose names make one file name.
    """
    if not records:
        raise ValueError("got no records; a report is made of at least one model's")
    for model, record in records.items():
        unknown = sorted(record.keys() - SECTIONS.keys())
        if unknown or not record:
            raise ValueError(
                f"the record of {model!r} has the unknown parts {unknown}; give any of {sorted(SECTIONS)}"
            )
    if len({_slug(model) for model in records}) < len(records):
        raise ValueError(
            f"charts are named by model, and some of {list(records)} differ in signs alone; rename one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.json").write_text(
        json.dumps(records, indent=1, sort_keys=True, allow_nan=False) + "\n"
    )
    parts = [f"# {title}\n"]
    for name, make in SECTIONS.items():
        having = {model: record[name] for model, record in records.items() if name in record}
        if having:
            parts.append(make(having, folder))
    path = folder / "report.md"
    path.write_text("\n".join(parts))
    return path


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, num_text_columns: int = 1
) -> str:
    """A table in Markdown; the first `num_text_columns` are aligned left, the others, numbers, right.

    Raises:
        ValueError: a row has not one cell per column.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"got a row of {len(row)} cells for {len(columns)} columns: {list(row)}")
    rule = ["---"] * num_text_columns + ["---:"] * (len(columns) - num_text_columns)
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n"
        for line in (columns, rule, *rows)
    )


def scores_section(scores: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """Tables by stream, what has no answer, and a chart per model of its groups, if it has such."""
    parts = ["## Scores\n", _scores_table(scores), "\n", _unanswered(scores)]
    for model, record in scores.items():
        groups = {name: table["groups"] for name, table in record["tables"].items() if "groups" in table}
        if groups:
            file = folder / f"groups-{_slug(model)}.svg"
            draw_groups(groups, file, title=model)
            parts.append(f"\n![accuracy within groups of {model}]({file.name})\n")
    return "".join(parts)


def unpaired_section(unpaired: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """Tables of sounds, pictures and pairs by model, what did not decode, and a chart of top-1."""
    metrics = [
        key
        for key in METRIC_TITLES
        if any(key in table for record in unpaired.values() for table in record["tables"].values())
    ]
    rows = [
        [f"{model}, {UNPAIRED_TITLES.get(name, name)}", str(table["clips"])]
        + [_cell(table.get(key), key) for key in metrics]
        for model, record in unpaired.items()
        for name, table in record["tables"].items()
    ]
    parts = [
        "## Scores\n\nSounds and pictures are files of their own. A pair is a sound and a picture of one "
        "label, "
        "put together at random.\n\n",
        markdown_table(["model, clips", "clips", *[METRIC_TITLES[key] for key in metrics]], rows),
        "\n",
    ]
    for model, record in unpaired.items():
        missed = ", ".join(f"{failure['file']} ({failure['reason']})" for failure in record["failures"])
        parts.append(f"- {model}: {record['items']} items. Not decoded: {missed or 'none'}.\n")
        file = folder / f"unpaired-{_slug(model)}.svg"
        draw_tables(record["tables"], file, title=model)
        parts.append(f"\n![top-1 of {model}]({file.name})\n")
    return "".join(parts)


def corrupted_section(corrupted: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """A chart and a table per kind of corruption and model."""
    parts = ["## Under corruption\n"]
    for model, record in corrupted.items():
        for kind, curve in record["corruptions"].items():
            file = folder / f"{_slug(kind)}-{_slug(model)}.svg"
            draw_curve(curve, file, title=f"{model}: {kind.replace('_', ' ')}", metric=record["metric"])
            levels = ["clean" if level is None else f"{level:g}" for level in curve["levels"]]
            rows = [
                [STREAM_TITLES.get(name, name), *[_cell(v, record["metric"]) for v in line["values"]]]
                for name, line in curve["streams"].items()
            ]
            parts.append(f"\n### {model}: {kind.replace('_', ' ')}\n\n![{kind} of {model}]({file.name})\n\n")
            parts.append(
                f"{METRIC_TITLES[record['metric']]} by {curve['unit']}:\n\n"
                + markdown_table(["stream", *levels], rows)
            )
    return "".join(parts)


def retrieval_section(retrieval: Mapping[str, Mapping[str, Any]], folder: Path) -> str:  # noqa: ARG001
    """One row per model and direction, with what guessing would give."""
    columns = ["model, direction", "clips", "recall@1", "recall@5", "recall@10", "chance@1", "median rank"]
    rows = [
        [
            f"{model}, {direction.replace('_', ' ')}",
            str(t["clips"]),
            _cell(t["recall@1"], "top1", t["recall@1_interval"]),
            *[_cell(t[name], "top1") for name in ("recall@5", "recall@10", "chance@1")],
            f"{t['median_rank']:g}",
        ]
        for model, tables in retrieval.items()
        for direction, t in tables.items()
    ]
    return "## Retrieval\n\n" + markdown_table(columns, rows)


def probes_section(probes: Mapping[str, Mapping[str, Any]], folder: Path) -> str:  # noqa: ARG001
    """One row per model and stream, with the strength that validation chose."""
    tables = {
        f"{model}, {STREAM_TITLES.get(name, name)}": table
        for model, by_stream in probes.items()
        for name, table in by_stream.items()
    }
    metrics = [key for key in PERCENT if any(key in table for table in tables.values())]
    rows = [
        [
            name,
            str(t["clips"]),
            *[_cell(t.get(key), key, t.get(f"{key}_interval")) for key in metrics],
            *_fit_cells(t),
        ]
        for name, t in tables.items()
    ]
    columns = ["model, stream", "clips", *[METRIC_TITLES[key] for key in metrics], "C", "converged"]
    return "## Linear probes\n\n" + markdown_table(columns, rows)


def _fit_cells(table: Mapping[str, Any]) -> tuple[str, str]:
    return (f"{table['c']:g}", "yes" if table["converged"] else "no") if "c" in table else (NOTHING, NOTHING)


SECTIONS = {
    "scores": scores_section,
    "unpaired": unpaired_section,
    "corrupted": corrupted_section,
    "retrieval": retrieval_section,
    "probes": probes_section,
}
"""Parts of a record in order of appearance, and what writes each."""


def _scores_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    present = {key for record in scores.values() for table in record["tables"].values() for key in table}
    metrics = [key for key in METRIC_TITLES if key in present]
    rows = [
        [f"{model}, {STREAM_TITLES.get(name, name)}", str(table["clips"])]
        + [_cell(table.get(key), key, table.get(f"{key}_interval")) for key in metrics]
        for model, record in scores.items()
        for name, table in record["tables"].items()
    ]
    return "\n" + markdown_table(["model, stream", "clips", *[METRIC_TITLES[key] for key in metrics]], rows)


def _unanswered(scores: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for model, record in scores.items():
        views = record["views"]
        line = f"{model}: {record['items']} items, {views['windows']} windows x {views['crops']} crops each, "
        line += f"of which {record['silent']} silent and {record['still']} still. Without answer: "
        parts = [
            f"{STREAM_TITLES.get(name, name)} "
            + ", ".join(f"{count} {reason}" for reason, count in sorted(missed.items()))
            for name, table in record["tables"].items()
            if (missed := table["unanswered"])
        ]
        lines.append(f"- {line}{'; '.join(parts).replace('_', ' ') or 'none'}.\n")
    return "".join(lines)


def _cell(value: float | None, metric: str, interval: Sequence[float] | None = None) -> str:
    if value is None:
        return NOTHING
    if metric not in PERCENT:
        return f"{value:.3f}"
    ends = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval is not None else ""
    return f"{100 * value:.1f} %{ends}"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
