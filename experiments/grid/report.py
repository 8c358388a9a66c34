"""The report of the runs: what stands in `results/grid.json` as tables and charts.

No number is typed by hand.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.layouts.grid import SLOTS
from evaluation.metrics import bootstrap_interval
from evaluation.report import markdown_table
from evaluation.report_charts import draw_curve

INTRODUCTION = """\
Rows of a table of words right have the seeds that all of them have. A figure is the mean over seeds;
its interval draws the test sentences anew, the same for all seeds (percentile bootstrap), so it says
how far other sentences of this talker might change it, not how far other talkers would.

"""
RESULTS = Path(__file__).parents[1] / "results"
MASKINGS = {"zorro": "Zorro", "none": "no mask", "bottleneck": "bottleneck", "independent": "independent"}
STREAMS = {
    "audio": "sound", "video": "sight", "fusion": "both", "fusion_by_audio": "fusion, no picture",
    "fusion_by_video": "fusion, no sound",
}  # fmt: skip
EARLIER_STREAMS = {"fusion_by_audio": "fusion_by_sound", "fusion_by_video": "fusion_by_sight"}
"""What results of earlier runs call a stream."""
DIRECTIONS = {
    "audio_to_video": "sound to sight", "video_to_audio": "sight to sound",
    "fusion_to_audio": "both to sound", "fusion_to_video": "both to sight",
}  # fmt: skip
CLEAN, NOISY = "clean", "-5 dB"

Records = Mapping[str, Mapping[str, Any]]
"""Results of `score`, by name of the run."""


def collect(runs_dir: Path) -> dict[str, dict[str, Any]]:
    """Results of all runs that have one.

    Raises:
        ValueError: there are none.
    """
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(runs_dir.glob("*/test.json"))}
    if not found:
        raise ValueError(f"{runs_dir} holds no results; run the experiments first")
    return found


def with_earlier(records: Records, folder: Path = RESULTS) -> Records:
    """The records, and those of earlier runs in `grid.json` that no run of the same name replaces."""
    path = folder / "grid.json"
    return (json.loads(path.read_text()) if path.is_file() else {}) | dict(records)


def write_results(records: Records, folder: Path = RESULTS) -> Path:
    """Write `grid.json`, the report `grid.md` and its charts; returns the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.json").write_text(json.dumps(records, indent=1, sort_keys=True) + "\n")
    sections = (_supervised, _words, _in_noise, _contrastive, _probed, _tuned, _alone, _backbones)
    parts = [
        part for section in (*sections, _sentences, _sentences_map) if (part := section(records, folder))
    ]
    path = folder / "grid.md"
    path.write_text("\n".join(["# GRID, one talker: what was found\n", INTRODUCTION, *parts]))
    return path


def common(records: Records, prefixes: Sequence[str]) -> Records:
    """Runs of these prefixes, with the seeds that all prefixes have which have any."""
    by_prefix = [
        {n.rpartition("-")[2] for n in records if n.rpartition("-")[0] == prefix} for prefix in prefixes
    ]
    seeds = set.intersection(*(found for found in by_prefix if found)) if any(by_prefix) else set()
    return {
        n: r for n, r in records.items() if n.rpartition("-")[0] in prefixes and n.rpartition("-")[2] in seeds
    }


def right_answers(records: Records, prefix: str, condition: str, stream: str) -> np.ndarray | None:
    """[seeds, sentences, slots], 1 where a word scores above the others of its slot.

    None without such runs.
    """
    found = [
        of_stream(record.get("right", {}).get(condition, {}), stream)
        for name, record in records.items()
        if name.rpartition("-")[0] == prefix
    ]
    rows = [[int(digit) for digit in digits] for digits in found if digits is not None]
    return np.array(rows).reshape(len(rows), -1, len(SLOTS)) if rows else None


def of_stream(by_stream: Mapping[str, Any], stream: str) -> Any:
    """The value of a stream, by its name or by that of earlier results; None if there is none."""
    return by_stream.get(stream, by_stream.get(EARLIER_STREAMS.get(stream, stream)))


def accuracy(right: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds, sentences and slots, and its interval."""
    found = bootstrap_interval(lambda rows: float(rows.mean()), right.mean((0, 2)))
    return found.value, found.low, found.high


def _accuracy_of(records: Records, prefix: str, condition: str, stream: str) -> tuple[float, float, float]:
    right = right_answers(records, prefix, condition, stream)
    assert right is not None, f"{prefix} has no results for {stream}, {condition}"
    return accuracy(right)


def _decibels(condition: str) -> int:
    return int(condition.removesuffix(" dB"))


def _cell(right: np.ndarray | None) -> str:
    if right is None:
        return "-"
    value, low, high = (100 * x for x in accuracy(right))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def _difference(a: np.ndarray | None, b: np.ndarray | None) -> str:
    """Points by which a is above b, on the same sentences."""
    if a is None or b is None:
        return "-"
    found = bootstrap_interval(lambda rows: float(rows.mean()), a.mean((0, 2)) - b.mean((0, 2)))
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _table_of(
    records: Records,
    title: str,
    prefixes: Mapping[str, str],
    conditions: Sequence[str],
    streams: Sequence[str],
) -> str:
    records = common(records, list(prefixes))
    counts = {prefix: sum(name.rpartition("-")[0] == prefix for name in records) for prefix in prefixes}
    rows = [
        [
            f"{said} ({counts[prefix]} seeds), {condition}",
            *(_cell(right_answers(records, prefix, condition, stream)) for stream in streams),
        ]
        for prefix, said in prefixes.items()
        for condition in conditions
        if any(right_answers(records, prefix, condition, s) is not None for s in streams)
    ]
    return (
        f"## {title}\n\n" + markdown_table(["run, sound", *(STREAMS[s] for s in streams)], rows)
        if rows
        else ""
    )


def _supervised(records: Records, _: Path) -> str:
    prefixes = {f"supervised-{masking}": said for masking, said in MASKINGS.items()}
    title = "Masking, trained with labels: words right within their slots, %"
    return _table_of(records, title, prefixes, (CLEAN, NOISY), list(STREAMS))


def _words(records: Records, _: Path) -> str:
    rows = []
    for prefix, said in {"supervised-zorro": "Zorro", "best": "longest run"}.items():
        for stream in ("audio", "video", "fusion"):
            right = right_answers(records, prefix, CLEAN, stream)
            if right is not None:
                shares = 100 * right.mean((0, 1))
                rows.append([f"{said}, {STREAMS[stream]}", *(f"{share:.1f}" for share in shares)])
    return "## Words right by slot, clean, %\n\n" + markdown_table(["run", *SLOTS], rows) if rows else ""


def _in_noise(records: Records, folder: Path) -> str:
    parts = []
    for prefix in ("supervised-zorro", "best"):
        first = next((r for name, r in records.items() if name.rpartition("-")[0] == prefix), None)
        if first is None:
            continue
        conditions = [CLEAN, *sorted(first["right"].keys() - {CLEAN}, key=_decibels, reverse=True)]
        lines = {s: [_accuracy_of(records, prefix, c, s) for c in conditions] for s in ("audio", "fusion")}
        lines["video"] = [_accuracy_of(records, prefix, CLEAN, "video")] * len(conditions)
        curve = {
            "levels": [None, *map(_decibels, conditions[1:])],
            "unit": "white noise, signal-to-noise ratio in dB",
            "streams": {
                STREAMS[s]: {
                    key: [point[i] for point in line] for i, key in enumerate(("values", "low", "high"))
                }
                for s, line in lines.items()
            },
        }
        chart = folder / f"grid-{prefix}-noise.svg"
        draw_curve(curve, chart, title="Words right within their slots", metric="within_groups")
        rows = [
            [
                condition,
                *(_cell(right_answers(records, prefix, condition, s)) for s in ("audio", "video", "fusion")),
            ]
            for condition in conditions
        ]
        fused, alone = (right_answers(records, prefix, NOISY, s) for s in ("fusion", "audio"))
        gain = f"At {NOISY} both are {_difference(fused, alone)} points above sound alone, and "
        gain += f"{_difference(fused, right_answers(records, prefix, CLEAN, 'video'))} above sight alone.\n"
        parts.append(
            f"## In noise: {'the longest run' if prefix == 'best' else 'Zorro of the comparison'}\n\n"
            + markdown_table(["white noise", "sound", "sight", "both"], rows)
            + f"\n{gain}\n![curves](grid-{prefix}-noise.svg)\n"
        )
    return "\n".join(parts)


def _contrastive(records: Records, _: Path) -> str:
    rows = []
    prefixes = {f"contrastive-{masking}": said for masking, said in MASKINGS.items()}
    for prefix, said in (prefixes | {"best": "Zorro, longest run, with labels too"}).items():
        runs = [r["retrieval"] for name, r in records.items() if name.rpartition("-")[0] == prefix]
        for kind, how in (("sequences", "window by window"), ("means", "by their mean")):
            found = [[100 * run[kind][direction]["recall@1"] for run in runs] for direction in DIRECTIONS]
            cells = [
                f"{np.mean(seeds):.1f} ({min(seeds):.0f} to {max(seeds):.0f})" for seeds in found if seeds
            ]
            rows += [[f"{said}, {how} ({len(runs)} seeds)", *cells]] if runs else []
    if not rows:
        return ""
    note = "A test sentence is looked for among all 100 by the embeddings of eight windows all over it, "
    note += "compared window by\nwindow, or by their mean; chance is 1 %. Each modality is asked alone. "
    note += "In brackets: the seeds' range.\n\n"
    table = markdown_table(["masking", *DIRECTIONS.values()], rows)
    return "## Masking, pre-trained by contrast: recall@1, %\n\n" + note + table


def _probed(records: Records, _: Path) -> str:
    probes = {name: record["probe"] for name, record in records.items() if "probe" in record}
    prefixes = {f"contrastive-{masking}": said for masking, said in MASKINGS.items()} | {
        "untrained": "never trained"
    }
    title = "Pre-trained without labels: linear probe of words within their slots, %"
    guessed = 100 * np.mean([1 / len(words) for words in SLOTS.values()])
    note = "\nA logistic regression on frozen features of each stream, asked alone, fitted on the "
    note += (
        f"training words; its\nstrength is chosen on the validation words. Guessing gives {guessed:.0f} %.\n"
    )
    table = _table_of(probes, title, prefixes, (CLEAN,), ("audio", "video", "fusion"))
    return table + note if table else ""


def _tuned(records: Records, _: Path) -> str:
    prefixes = {"supervised-zorro": "from scratch", "finetuned": "pre-trained by contrast, then the same"}
    if not any(name.startswith("finetuned") for name in records):
        return ""
    return _table_of(
        records, "From scratch against pre-trained: words right, %", prefixes, (CLEAN, NOISY), list(STREAMS)
    )


def _alone(records: Records, _: Path) -> str:
    rows = []
    everything = records
    for modality in ("audio", "video"):
        records = common(everything, ["supervised-zorro", f"only-{modality}"])
        for condition in (CLEAN, NOISY) if modality == "audio" else (CLEAN,):
            joint, alone = (
                right_answers(records, prefix, condition, modality)
                for prefix in ("supervised-zorro", f"only-{modality}")
            )
            if alone is not None:
                name = f"{STREAMS[modality]}, {condition} ({len(alone)} seeds)"
                rows.append([name, _cell(joint), _cell(alone), _difference(joint, alone)])
    head = ["stream", "Zorro", "a model of that modality alone", "difference, points"]
    title = "## Against models of one modality, same size and budget: words right, %\n\n"
    return title + markdown_table(head, rows) if rows else ""


def _backbones(records: Records, _: Path) -> str:
    rows, backbones = [], {"supervised-zorro": "ViT", "swin": "Swin", "hip": "HiP"}
    records = common(records, list(backbones))
    for prefix, said in backbones.items():
        runs = [r for name, r in records.items() if name.rpartition("-")[0] == prefix]
        if not runs:
            continue
        cells = [_cell(right_answers(records, prefix, CLEAN, s)) for s in ("audio", "video", "fusion")]
        noisy = _cell(right_answers(records, prefix, NOISY, "fusion"))
        seconds = min(run["training_seconds"] for run in runs)
        size = f"{runs[0]['parameters'] / 1e6:.1f}", f"{runs[0]['gflops']:.2f}", f"{seconds:.0f}"
        rows.append([f"{said} ({len(runs)} seeds)", *cells, noisy, *size])
    head = [
        "backbone",
        "sound",
        "sight",
        "both",
        "both, -5 dB",
        "parameters, M",
        "GFLOPs",
        "seconds to train",
    ]
    if len(rows) < 2:
        return ""
    return "## Backbones, same steps: words right, %\n\n" + markdown_table(head, rows)


def _sentences(records: Records, _: Path) -> str:
    title = "Whole sentences of six labels: words right within their slots, %"
    return _table_of(records, title, {"sentences": "Zorro"}, (CLEAN, NOISY), list(STREAMS))


def _sentences_map(records: Records, _: Path) -> str:
    """Mean over seeds, and their range."""
    runs = [record["map"] for name, record in records.items() if name.rpartition("-")[0] == "sentences"]
    if not runs:
        return ""
    rows = []
    for condition in (CLEAN, NOISY):
        found = [[100 * of_stream(run[condition], stream) for run in runs] for stream in STREAMS]
        cells = [f"{np.mean(seeds):.1f} ({min(seeds):.1f} to {max(seeds):.1f})" for seeds in found]
        rows.append([f"Zorro ({len(runs)} seeds), {condition}", *cells])
    note = "Of 51 labels. In brackets: the seeds' range.\n\n"
    return "## Whole sentences: mAP, %\n\n" + note + markdown_table(["run, sound", *STREAMS.values()], rows)
