"""A report of scores: Markdown with charts, in which every number comes from the records.

Records are plain dicts, as JSON gives them: what `clip_scores`, `retrieval` and `probe` return, by name of
    the model. The same records make the same bytes, so that a report under version control changes only with
    its numbers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PERCENT = ("top1", "top5", "map", "within_groups")
TITLES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "within_groups": "within groups",
    "calibration_error": "ECE",
}
STREAM_TITLES = {
    "audio": "audio", "video": "video", "fused": "fused", "fusion_by_audio": "fused, no picture",
    "fusion_by_video": "fused, no sound",
}  # fmt: skip
UNPAIRED_TITLES = {
    "sounds": "sounds",
    "sights": "pictures",
    "esc10": "sounds of ESC-10",
    "pairs_fused": "pairs, by both",
    "pairs_audio": "pairs, by sound",
    "pairs_video": "pairs, by picture",
    "noisy_sound_audio": "pairs with noise over the sound, by sound",
    "noisy_sound_fused": "pairs with noise over the sound, by both",
    "noise_for_picture_video": "pairs with noise for the picture, by picture",
    "noise_for_picture_fused": "pairs with noise for the picture, by both",
}
"""Names of the tables of an unpaired collection."""
NOTHING = ""


def write_report(records: Mapping[str, Mapping[str, Any]], folder: Path, *, title: str) -> Path:
    """Write `report.md`, its charts, and `records.json`, which made them, into a folder.

    Args:
        records: by model, each with any of `scores` (of `score_clips`), `unpaired` (`items`, `failures` and
            `tables` of `evaluate_split` and `degraded_pairs`), `degraded` (of `score_degraded`), `retrieval`
            (of `retrieval_tables`), and `probes` (by stream, of `linear_probe`).
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
            f"charts are named by model, and some of {list(records)} are alike but for signs; rename one"
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


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers.

    Raises:
        ValueError: a row has not one cell per column.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"got a row of {len(row)} cells for {len(columns)} columns: {list(row)}")
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n"
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
        for key in TITLES
        if any(key in table for record in unpaired.values() for table in record["tables"].values())
    ]
    rows = [
        [f"{model}, {UNPAIRED_TITLES.get(name, name)}", str(table["clips"])]
        + [_cell(table.get(key), key) for key in metrics]
        for model, record in unpaired.items()
        for name, table in record["tables"].items()
    ]
    parts = [
        "## Scores\n\nSounds and pictures are files of their own. A pair is a sound and a picture of one label, "
        "put together at random.\n\n",
        markdown_table(["model, clips", "clips", *[TITLES[key] for key in metrics]], rows),
        "\n",
    ]
    for model, record in unpaired.items():
        missed = ", ".join(f"{failure['file']} ({failure['reason']})" for failure in record["failures"])
        parts.append(f"- {model}: {record['items']} items. Not decoded: {missed or 'none'}.\n")
        file = folder / f"unpaired-{_slug(model)}.svg"
        draw_tables(record["tables"], file, title=model)
        parts.append(f"\n![top-1 of {model}]({file.name})\n")
    return "".join(parts)


def degraded_section(degraded: Mapping[str, Mapping[str, Any]], folder: Path) -> str:
    """A chart and a table per way of harm and model."""
    parts = ["## Under harm\n"]
    for model, record in degraded.items():
        for way, curve in record["ways"].items():
            file = folder / f"{_slug(way)}-{_slug(model)}.svg"
            draw_curve(curve, file, title=f"{model}: {way.replace('_', ' ')}", metric=record["metric"])
            levels = ["clean" if level is None else f"{level:g}" for level in curve["levels"]]
            rows = [
                [STREAM_TITLES.get(name, name), *[_cell(v, record["metric"]) for v in line["values"]]]
                for name, line in curve["streams"].items()
            ]
            parts.append(f"\n### {model}: {way.replace('_', ' ')}\n\n![{way} of {model}]({file.name})\n\n")
            parts.append(
                f"{TITLES[record['metric']]} by {curve['unit']}:\n\n"
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
    columns = ["model, stream", "clips", *[TITLES[key] for key in metrics], "C", "converged"]
    return "## Linear probes\n\n" + markdown_table(columns, rows)


def _fit_cells(table: Mapping[str, Any]) -> tuple[str, str]:
    return (f"{table['c']:g}", "yes" if table["converged"] else "no") if "c" in table else (NOTHING, NOTHING)


SECTIONS = {
    "scores": scores_section,
    "unpaired": unpaired_section,
    "degraded": degraded_section,
    "retrieval": retrieval_section,
    "probes": probes_section,
}
"""Parts of a record in order of appearance, and what writes each."""


def draw_curve(curve: Mapping[str, Any], path: Path, *, title: str, metric: str) -> None:
    """Lines over levels by stream, with the interval as a band; SVG."""
    figure, axis = _axes(title)
    labels = ["clean" if level is None else f"{level:g}" for level in curve["levels"]]
    places = range(len(labels))
    for name, line in curve["streams"].items():
        axis.plot(places, [100 * v for v in line["values"]], marker="o", label=STREAM_TITLES.get(name, name))
        if None not in line["low"]:
            axis.fill_between(
                places, [100 * v for v in line["low"]], [100 * v for v in line["high"]], alpha=0.15
            )
    axis.set_xticks(list(places), labels)
    axis.set_xlabel(curve["unit"])
    axis.set_ylabel(f"{TITLES[metric]}, %")
    _save(figure, axis, path)


def draw_tables(tables: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """A bar of top-1 for each table; SVG."""
    figure, axis = _axes(title)
    names = [UNPAIRED_TITLES.get(name, name) for name in reversed(tables)]
    axis.barh(names, [100 * table["top1"] for table in reversed(tables.values())], label="top-1")
    axis.set_xlim(0, 103)
    axis.set_xlabel(f"{TITLES['top1']}, %")
    _write_svg(figure, path)


def draw_groups(groups: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Bars of accuracy by group and stream, and a tick where chance lies; SVG."""
    figure, axis = _axes(title)
    names = sorted({group for table in groups.values() for group in table})
    width = 0.8 / len(groups)
    for i, (stream, table) in enumerate(groups.items()):
        shift = (i - (len(groups) - 1) / 2) * width
        places = [x + shift for x, name in enumerate(names) if name in table]
        heights = [100 * table[name]["accuracy"] for name in names if name in table]
        axis.bar(places, heights, width, label=STREAM_TITLES.get(stream, stream))
    chances = {name: 100 * table[name]["chance"] for table in groups.values() for name in table}
    for x, name in enumerate(names):
        label = "chance" if x == 0 else None
        axis.hlines(chances[name], x - 0.45, x + 0.45, colors="black", linestyles="dotted", label=label)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("accuracy within group, %")
    _save(figure, axis, path)


def _scores_table(scores: Mapping[str, Mapping[str, Any]]) -> str:
    present = {key for record in scores.values() for table in record["tables"].values() for key in table}
    metrics = [key for key in TITLES if key in present]
    rows = [
        [f"{model}, {STREAM_TITLES.get(name, name)}", str(table["clips"])]
        + [_cell(table.get(key), key, table.get(f"{key}_interval")) for key in metrics]
        for model, record in scores.items()
        for name, table in record["tables"].items()
    ]
    return "\n" + markdown_table(["model, stream", "clips", *[TITLES[key] for key in metrics]], rows)


def _unanswered(scores: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for model, record in scores.items():
        views = record["views"]
        line = f"{model}: {record['items']} items, {views['windows']} windows x {views['crops']} crops each, of which "
        line += f"{record['silent']} silent and {record['still']} still. Without answer: "
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


def _axes(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title)
    axis.grid(alpha=0.3)
    return figure, axis


def _save(figure: Any, axis: Any, path: Path) -> None:
    axis.set_ylim(0, 103)
    axis.legend(fontsize=8)
    _write_svg(figure, path)


def _write_svg(figure: Any, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "zorro", "svg.fonttype": "none"}):  # no random names, no date
        figure.savefig(path, format="svg", metadata={"Date": None})
