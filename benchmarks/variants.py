"""Size, speed and quality of every variant of our bundles, and speed of int8 at the base preset.

Scores are those of the test split: ZORRO_SHARED must name the folder whose data has sights_sounds,
caltech101 and grid_s1. Times are of one window of the fused graph; int8 at the base preset is measured with
untrained weights.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.vocabulary import everyday_vocabulary
from evaluation.report import markdown_table
from experiments.everyday.clips import open_everyday
from experiments.everyday.measure import measure
from experiments.everyday.report import to_scores
from export.quantize import SCHEMES, cosine, measure_ranges, quantise
from export.to_onnx import export_graphs
from export.weights_file import write_graphs
from media import Modality
from runtime import Bundle, Zorro, read_bundle
from runtime.selftest import GOLDEN_INPUTS_FILE
from runtime.signature import GRAPH_INPUTS
from verification.scoring import EvaluationRequest, score_split

from .machine import ROOT
from .measure import NUM_THREADS, interleave
from .result import Ratio, Result
from .sessions import SPECS, open_session, random_inputs, untrained

BUNDLES = ("everyday", "grid-words")
BASE, INT8 = "vit-base", "int8-cpu"
MIN_SPEEDUP, MAX_LOST_POINTS, MIN_COSINE = 1.4, 0.5, 0.999
VARIANT_COLUMNS = (
    "bundle",
    "variant",
    "MB",
    "one window, ms",
    "eight, ms",
    "audio, %",
    "video, %",
    "both, %",
    "golden cosine",
)


def run(rounds: int = 12) -> Result:
    """Measure and score all variants of both bundles in turn, then the base preset in fp32 and int8."""
    result = Result(name="variants", parameters={"threads": NUM_THREADS, "rounds": rounds, "int8": INT8})
    for name in BUNDLES:
        bundle = read_bundle(ROOT / "bundles" / name / "1")
        result.entries |= interleave(_variant_sides(bundle), rounds=rounds)
        for variant in bundle.variants:
            result.records.append(_record(result, bundle, variant))
        _compare_with_fp32(result, name)
    _measure_base(result, rounds)
    return result


def variants_table(result: Mapping[str, Any]) -> str:
    """The records as a Markdown table."""
    rows = [
        (
            f"`{r['bundle']}`",
            f"`{r['variant']}`",
            f"{r['megabytes']:.1f}",
            f"{r['milliseconds']['1']:.1f}",
            f"{r['milliseconds']['8']:.1f}",
            *(f"{score:.1%}".rstrip("%") for score in r["scores"]),
            f"{r['cosine']:.5f}",
        )
        for r in result["records"]
    ]
    return markdown_table(VARIANT_COLUMNS, rows, num_text_columns=2)


def _variant_sides(bundle: Bundle) -> dict[str, Callable[[], object]]:
    """The fused graph of each variant on one golden clip and on eight, as sides of the comparison."""
    golden = _golden(bundle)
    feeds = {size: {name: x[np.arange(size) % len(x)] for name, x in golden.items()} for size in (1, 8)}
    return {
        _entry(bundle.name, name, size): partial(open_session(variant.graphs[Modality.FUSED]).run, None, feed)
        for name, variant in bundle.variants.items()
        for size, feed in feeds.items()
    }


def _entry(bundle: str, variant: str, size: int) -> str:
    return f"{bundle}, {variant}, {size} window{'s' * (size > 1)}"


def _golden(bundle: Bundle) -> dict[str, np.ndarray]:
    with np.load(bundle.path / GOLDEN_INPUTS_FILE) as arrays:
        return dict(arrays)


def _record(result: Result, bundle: Bundle, variant: str) -> dict[str, Any]:
    """Size, times, scores and cosine of one variant: a row of the table."""
    if "ZORRO_SHARED" not in os.environ:
        raise ValueError(
            "ZORRO_SHARED is not set; give the folder whose data has sights_sounds, caltech101 and grid_s1"
        )
    data = Path(os.environ["ZORRO_SHARED"]) / "data"
    scores = _words_scores if bundle.name == "grid-words" else _everyday_scores
    return {
        "bundle": bundle.name,
        "variant": variant,
        "megabytes": sum(path.stat().st_size for path in (bundle.path / variant).iterdir()) / 1e6,
        "milliseconds": {
            size: result.entries[_entry(bundle.name, variant, size)].min * 1e3 for size in (1, 8)
        },
        "scores": scores(bundle, data, variant),
        "cosine": min(Zorro(bundle, variant=variant).self_test().min_cosine.values()),
    }


def _everyday_scores(bundle: Bundle, data: Path, variant: str) -> list[float]:
    """Of ESC-10, of sights, and of pairs by both."""
    model = open_everyday(bundle.path, everyday_vocabulary(), variant)
    tables = to_scores(measure(model, data, "test"))
    return [tables[table]["top1"] for table in ("esc10", "sights", "pairs_fused")]


def _words_scores(bundle: Bundle, data: Path, variant: str) -> list[float]:
    """Within the groups of words, by each stream."""
    request = EvaluationRequest(model=bundle.path, data=data / "grid_s1", split="test", variant=variant)
    tables = score_split(request)
    return [tables[table]["within_groups"] for table in ("audio", "video", "fused")]


def _compare_with_fp32(result: Result, name: str) -> None:
    """Compare int8 of a bundle with its fp32."""
    of = {r["variant"]: r for r in result.records if r["bundle"] == name}
    lost = max(a - b for a, b in zip(of["fp32"]["scores"], of[INT8]["scores"], strict=True)) * 100
    result.ratios += [
        Ratio(
            what=f"{name}, {INT8}: points lost, worst stream",
            against="fp32",
            value=lost,
            at_most=MAX_LOST_POINTS,
        ),
        Ratio(
            what=f"{name}, {INT8}: cosine on golden clips",
            against="fp32",
            value=of[INT8]["cosine"],
            at_least=MIN_COSINE,
        ),
    ]
    result.compare(_entry(name, INT8, 1), _entry(name, "fp32", 1))


def _measure_base(result: Result, rounds: int) -> None:
    """Time fp32 and int8 of the untrained base preset; speed does not depend on the weights."""
    inputs = random_inputs(BASE)
    with tempfile.TemporaryDirectory() as folder:
        full = export_graphs(untrained(BASE), SPECS[BASE], Path(folder) / "fp32")
        fused = full[Modality.FUSED]
        feed = {name: inputs[name] for name in GRAPH_INPUTS[Modality.FUSED]}
        model = quantise(fused, measure_ranges(fused, [feed]), SCHEMES[INT8])
        whole = write_graphs([(Modality.FUSED, model)], Path(folder) / INT8)[Modality.FUSED]
        sides = {
            f"{BASE}, {name}": partial(open_session(path).run, None, feed)
            for name, path in (("fp32", fused), (INT8, whole))
        }
        outputs = [side() for side in sides.values()]
        result.counts[f"{BASE}, {INT8}: least cosine, untrained"] = min(
            float(cosine(x, y).min()) for x, y in zip(*outputs, strict=True)
        )
        result.entries |= interleave(sides, rounds=max(3, rounds // 2))
    result.compare(f"{BASE}, {INT8}", f"{BASE}, fp32", at_most=1 / MIN_SPEEDUP)
