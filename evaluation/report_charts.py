"""Charts of a report, as SVG; equal numbers make equal bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .report_titles import METRIC_TITLES, STREAM_TITLES, UNPAIRED_TITLES


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
    axis.set_ylabel(f"{METRIC_TITLES[metric]}, %")
    _save_accuracy(figure, axis, path)


def draw_tables(tables: Mapping[str, Mapping[str, Any]], path: Path, *, title: str) -> None:
    """A bar of top-1 for each table; SVG."""
    figure, axis = _axes(title)
    rows = [(UNPAIRED_TITLES.get(name, name), 100 * table["top1"]) for name, table in tables.items()]
    names, values = zip(*reversed(rows), strict=True)
    axis.barh(names, values, label="top-1")
    axis.set_xlim(0, 103)
    axis.set_xlabel(f"{METRIC_TITLES['top1']}, %")
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
    _save_accuracy(figure, axis, path)


def _axes(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title)
    axis.grid(alpha=0.3)
    return figure, axis


def _save_accuracy(figure: Any, axis: Any, path: Path) -> None:
    axis.set_ylim(0, 103)
    axis.legend(fontsize=8)
    _write_svg(figure, path)


def _write_svg(figure: Any, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "zorro", "svg.fonttype": "none"}):  # no random names, no date
        figure.savefig(path, format="svg", metadata={"Date": None})
