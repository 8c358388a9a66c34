"""Audit of every preset for TensorRT, at full size and untrained, and builds by tensorrt-rtx.

Presets of a backbone differ only in sizes, so the smallest of each is built, in every variant, and the others
are audited in float32 and float16. A graph with a fault, or one that does not build, ends the run. Nothing
runs on a GPU. Ranges for int8 are measured on noise, which suffices for an audit.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.audit import audit_graph
from export.mixed_precision import to_mixed_float16
from export.quantize import SCHEMES, measure_ranges, quantise
from export.tensorrt.builders import Builder, load_builder
from export.tensorrt.engines import build_engine
from export.to_onnx import export_graphs
from export.weights_file import write_graphs
from media import ClipSpec, Modality
from models import PRESETS, ZorroConfig, ZorroModel, preset
from runtime.signature import GRAPH_INPUTS

from .presets import AUDIOSET_CLASSES
from .result import Result

BUILT = ("vit-tiny", "swin-tiny", "hip-mini")


def run(rounds: int = 1) -> Result:
    """Audit all presets; each graph is audited once, whatever `rounds` is."""
    parameters = {"presets": list(PRESETS), "built": list(BUILT), "builder": "tensorrt-rtx", "rounds": rounds}
    result = Result(name="readiness", parameters=parameters)
    builder = load_builder("tensorrt-rtx")
    for name in PRESETS:
        with tempfile.TemporaryDirectory() as folder:
            for record in _records(name, Path(folder), builder):
                result.records.append(record)
                print(record, flush=True)
    result.counts["graphs audited without a fault"] = len(result.records)
    result.counts["of these built"] = sum("layers" in record for record in result.records)
    return result


def _records(name: str, folder: Path, builder: Builder) -> Iterator[dict[str, Any]]:
    """Export a preset; yield the record of each graph of each variant."""
    config = preset(name, num_classes=AUDIOSET_CLASSES)
    torch.manual_seed(0)
    start = time.perf_counter()
    full = export_graphs(ZorroModel(config).eval(), clip_spec_of(config), folder / "fp32")
    exported = time.perf_counter() - start
    variants = {
        "fp32": full,
        "fp16": write_graphs(((m, to_mixed_float16(onnx.load(p))) for m, p in full.items()), folder / "fp16"),
    }
    if name in BUILT:
        int8 = ((m, _quantised(p, m, config)) for m, p in full.items())
        variants["int8-qdq"] = write_graphs(int8, folder / "int8-qdq")
    for variant, graphs in variants.items():
        for modality, path in graphs.items():
            audited = {
                "preset": name,
                "variant": variant,
                "graph": str(modality),
                "nodes": audit_graph(path).num_nodes,
            }
            built = _built(path, folder / "engines", builder, variant) if name in BUILT else {}
            yield audited | built | {"export_seconds": round(exported, 1)}


def _built(path: Path, folder: Path, builder: Builder, variant: str) -> dict[str, Any]:
    engine = build_engine(path, folder, builder, variant=variant)
    engine.path.unlink()
    return {"layers": engine.layers, "engine_bytes": engine.bytes, "build_seconds": engine.seconds}


def clip_spec_of(config: ZorroConfig) -> ClipSpec:
    """The clips that a model of `config` takes."""
    mel_frames, mel_bins = config.audio_shape
    frames, size, _, _ = config.video_shape
    return ClipSpec(
        num_mel_frames=mel_frames, num_mel_bins=mel_bins, num_video_frames=frames, frame_size=size
    )


def _quantised(path: Path, modality: Modality, config: ZorroConfig) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    audio = random.normal(config.audio_mean, config.audio_std, (1, *config.audio_shape)).astype(np.float32)
    noise: dict[str, np.ndarray] = {
        "audio": audio,
        "video": random.integers(0, 256, (1, *config.video_shape), dtype=np.uint8),
    }
    ranges = measure_ranges(path, [{name: noise[name] for name in GRAPH_INPUTS[modality]}])
    return quantise(path, ranges, SCHEMES["int8-qdq"])
