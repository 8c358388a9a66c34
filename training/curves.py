"""Curves of a run: its `metrics.jsonl` as one picture."""

import json
from pathlib import Path


def draw_curves(metrics_path: Path, out_path: Path) -> None:
    """Losses above, validation scores below, over steps; PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = [json.loads(line) for line in metrics_path.read_text().splitlines()]
    figure, axes = pyplot.subplots(2, 1, figsize=(8, 8), sharex=True)
    for axis, kind, title in ((axes[0], "train", "training loss"), (axes[1], "val", "validation accuracy")):
        chosen = [record for record in records if record["kind"] == kind]
        names = sorted({name for r in chosen for name in r} - {"kind", "step", "seconds", "learning_rate"})
        for name in names:
            points = [(r["step"], r[name]) for r in chosen if name in r]
            axis.plot(*zip(*points, strict=True), label=name)
        axis.set_title(title)
        axis.grid(alpha=0.3)
        if names:
            axis.legend(fontsize=8)
    axes[1].set_xlabel("step")
    figure.tight_layout()
    figure.savefig(out_path, dpi=100)
    pyplot.close(figure)
