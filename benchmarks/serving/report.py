"""The report of the serving benchmark, made from its JSON: `results/serving.md` with its charts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.report import markdown_table

from .bench import CLIP_SECONDS, STAGES

WORKLOADS = {"clips": "clips", "fused": "tensors"}

Record = Mapping[str, Any]


def write_serving_report(result: Mapping[str, Any], folder: Path) -> Path:
    """Write the page and its charts into `folder`; returns the page's path."""
    mpl.rcParams.update({"svg.hashsalt": "zorro", "svg.fonttype": "none", "font.size": 9, "axes.grid": True})
    servers = result["parameters"]["servers"]
    closed, opened = (_of_kind(result, kind) for kind in ("closed", "open"))
    for name, draw in (
        ("throughput", lambda axes, workload: _draw_throughput(axes, closed, servers, workload)),
        ("goodput", lambda axes, workload: _draw_goodput(axes, opened, servers, workload)),
    ):
        _draw_workloads(folder / f"serving-{name}.svg", draw)
    _draw_stages(folder / "serving-stages.svg", closed)
    page = folder / "serving.md"
    page.write_text(to_page(result))
    return page


def to_page(result: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    parameters, hardware = result["parameters"], result["hardware"]
    servers = parameters["servers"]
    closed, opened = (_of_kind(result, kind) for kind in ("closed", "open"))
    parts = [
        "# The server under load, beside its peers\n",
        "Made from [serving.json](serving.json) by `python -m benchmarks report`.\n",
        f"- machine: {hardware['cpu']}, {hardware['cores']} cores; {result['date'][:10]}, "
        f"commit {result['commit'][:10]}",
        f"- clip: {parameters['clip']}",
        f"- tensors: {parameters['tensors']}",
        "- ceiling: a process per core that decodes and infers, serves nobody, "
        "and is measured before and after every load",
        f"- servers: alone on the machine, {parameters['rounds']} rounds in turn, "
        "a worker per core with one thread each\n",
        "## Limits\n",
        _text_table(
            ("what", "against", "ratio", "limit"),
            [
                (
                    r["what"],
                    r["against"],
                    f"{r['value']:.3f}",
                    r["limit"] + ("" if r["is_met"] else " (missed)"),
                )
                for r in result["ratios"]
            ],
        ),
        "## Clients that wait for their answers\n",
        "![Throughput by clients](serving-throughput.svg)\n",
    ]
    for workload, name in WORKLOADS.items():
        parts += [f"### {name.capitalize()}, 16 clients\n", _closed_table(closed, servers, workload)]
    parts += ["## Clients that do not wait\n", "![Goodput by load](serving-goodput.svg)\n"]
    for workload, name in WORKLOADS.items():
        allowed = parameters["timeout_seconds"][workload]
        parts += [
            f"### {name.capitalize()}, each to be answered within {allowed:g} s\n",
            _open_table(opened, servers, workload),
        ]
    parts += [
        "## Where the time of a clip goes\n",
        "![Stages of a clip](serving-stages.svg)\n",
        _stage_table(closed),
    ]
    parts += ["## Private memory after all this\n", _memory_table(result, servers)]
    return "\n".join(parts)


def _closed_table(closed: Sequence[Record], servers: Iterable[str], workload: str) -> str:
    rows = []
    for server in servers:
        loads = [r for r in closed if (r["server"], r["workload"], r["clients"]) == (server, workload, 16)]
        if loads:
            rate = median(r["per_second"] for r in loads)
            row = [server, f"{median(r['share'] for r in loads):.2f}", f"{rate:.1f}"]
            row += [f"{1000 * median(r[p] for r in loads):.0f}" for p in ("p50", "p95", "p99")]
            rows.append([*row, f"{CLIP_SECONDS * rate:.0f}"] if workload == "clips" else row)
    columns = ("server", "share of the ceiling", "per second", "p50 ms", "p95 ms", "p99 ms")
    return _text_table((*columns, "media-seconds per second") if workload == "clips" else columns, rows)


def _open_table(opened: Sequence[Record], servers: Iterable[str], workload: str) -> str:
    rows = []
    for server in servers:
        for r in (r for r in opened if (r["server"], r["workload"]) == (server, workload)):
            lost = r["lost"] + r["late"] + r["past_deadline"]
            refusal = f"{1000 * r['refusals']['p99']:.0f}" if r["refused"] else ""
            rows.append(
                [
                    server,
                    f"{r['load']:.0%}",
                    r["arrivals"],
                    f"{r['goodput']:.1f}",
                    f"{r['goodput'] / r['ceiling']:.2f}",
                    f"{1000 * r['p50']:.0f}",
                    f"{1000 * r['p99']:.0f}",
                    r["refused"],
                    refusal,
                    lost,
                ]
            )
    columns = (
        "server",
        "load",
        "arrivals",
        "in time per second",
        "of the ceiling",
        "p50 ms",
        "p99 ms",
        "refused",
        "p99 ms of a refusal",
        "late or lost",
    )
    return _text_table(columns, rows)


def _stage_table(closed: Sequence[Record]) -> str:
    rows = [
        [f"{clients} clients", *(f"{1000 * value:.1f}" for value in stages.values())]
        for clients, stages in _stages(closed).items()
    ]
    return _text_table(("ours", *(f"{stage} ms" for stage in STAGES)), rows)


def _memory_table(result: Mapping[str, Any], servers: Iterable[str]) -> str:
    rows = []
    for server in servers:
        found = [
            r["private_bytes"] for r in result["records"] if (r["kind"], r["server"]) == ("memory", server)
        ]
        rows.append([server, f"{median(found) / 1e6:.0f}"])
    return _text_table(("server and its processes", "MB"), rows)


def _draw_throughput(axes: Axes, closed: Sequence[Record], servers: Iterable[str], workload: str) -> None:
    for server in servers:
        loads = [r for r in closed if (r["server"], r["workload"]) == (server, workload)]
        clients = sorted({r["clients"] for r in loads})
        shares = [median(r["share"] for r in loads if r["clients"] == n) for n in clients]
        axes.plot(clients, shares, marker="o", label=server, linewidth=2.5 if server == "ours" else 1.2)
    axes.set(
        xscale="log", xlabel="clients", ylabel="share of the ceiling", ylim=(0, 1.05), xticks=[1, 2, 4, 8, 16]
    )
    axes.set_xticklabels(["1", "2", "4", "8", "16"])


def _draw_goodput(axes: Axes, opened: Sequence[Record], servers: Iterable[str], workload: str) -> None:
    for server in servers:
        records = [r for r in opened if (r["server"], r["workload"]) == (server, workload)]
        loads = sorted({r["load"] for r in records})
        goodput = [
            median(r["goodput"] / r["ceiling"] for r in records if r["load"] == load) for load in loads
        ]
        axes.plot(loads, goodput, marker="o", label=server, linewidth=2.5 if server == "ours" else 1.2)
    axes.set(xlabel="arrivals, of the ceiling", ylabel="in time, of the ceiling", ylim=(0, 1.05))


def _draw_workloads(path: Path, draw: Callable[[Axes, str], None]) -> None:
    """Draw a chart beside each other for each workload."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (workload, name) in zip(figure.subplots(1, 2), WORKLOADS.items(), strict=True):
        draw(axes, workload)
        axes.set_title(name)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def _draw_stages(path: Path, closed: Sequence[Record]) -> None:
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots()
    stages = _stages(closed)
    left = [0.0] * len(stages)
    for stage in STAGES:
        values = [1000 * x[stage] for x in stages.values()]
        axes.barh([str(clients) for clients in stages], values, left=left, label=stage)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set(xlabel="ms of a clip, median", ylabel="clients")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def _stages(closed: Sequence[Record]) -> dict[int, dict[str, float]]:
    """Median seconds of our server's stages by number of clients."""
    loads = [r for r in closed if (r["server"], r["workload"]) == ("ours", "clips")]
    return {
        clients: {
            stage: median(r["stages"][stage] for r in loads if r["clients"] == clients) for stage in STAGES
        }
        for clients in sorted({r["clients"] for r in loads})
    }


def _of_kind(result: Mapping[str, Any], kind: str) -> list[Record]:
    return [record for record in result["records"] if record["kind"] == kind]


def _text_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return markdown_table(columns, rows, num_text_columns=len(columns))
