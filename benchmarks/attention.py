"""One attention call per stream against one call under a dense mask, in torch and ONNX Runtime.

The preset is vit-base. Two levels are measured. "Attention" is the part that the mask changes: from projected
queries, keys and values to the result of the attention. "Model" is the whole model at its true depth. Its
linear maps, 85 % of the work and equal on both sides, hide most of the difference, so its ratio has no limit.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from export.audit import OPSET_VERSION, audit_graph
from export.graphs import build_graph
from export.to_onnx import example_inputs, export_graphs
from media import Modality
from models import Stream, ZorroConfig, ZorroModel
from models.attention import attend, join_streams
from models.mask import READS
from runtime.signature import output_names

from .dense import DenseZorro, additive_mask, attend_densely, num_tokens
from .measure import NUM_THREADS, interleave
from .result import Result
from .sessions import SPECS, open_session, random_inputs, untrained

PRESET = "vit-base"
MAX_RATIO = 0.85
MAX_ABS_ERROR = 1e-4
ENGINES = ("torch", "ONNX Runtime")


class StructuredAttention(nn.Module):
    """The attention of a layer as `models.vit.VitBlock` computes it.

    Per stream [batch, tokens, 3 * dim] to [batch, tokens, dim].
    """

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads

    def forward(self, audio: Tensor, video: Tensor, fusion: Tensor) -> tuple[Tensor, ...]:
        projected = {Stream.AUDIO: audio, Stream.VIDEO: video, Stream.FUSION: fusion}
        parts = {stream: x.chunk(3, dim=-1) for stream, x in projected.items()}
        queries, keys, values = ({stream: part[i] for stream, part in parts.items()} for i in range(3))
        read = []
        for stream, query in queries.items():
            key, value = (join_streams(x, READS[stream], None)[0] for x in (keys, values))
            read.append(attend(query, key, value, num_heads=self.num_heads))
        return tuple(read)


class DenseAttention(nn.Module):
    """The same over one sequence: [batch, all tokens, 3 * dim] to [batch, all tokens, dim]."""

    mask: Tensor

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.register_buffer("mask", additive_mask(config), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = tokens.chunk(3, dim=-1)
        return attend_densely(query, key, value, self.mask, self.num_heads)


def run(rounds: int = 12) -> Result:
    """Measure both levels in both engines."""
    torch.set_num_threads(NUM_THREADS)
    model = untrained(PRESET)
    counts = {stream.key: count for stream, count in num_tokens(model.config).items()}
    parameters = {
        "preset": PRESET,
        "depth": model.config.depth,
        "embed_dim": model.config.embed_dim,
        "tokens": counts,
        "batch": 1,
        "threads": NUM_THREADS,
        "rounds": rounds,
    }
    result = Result(name="attention", parameters=parameters)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        _measure_attention(result, model.config, rounds, Path(folder))
        _measure_model(result, model, rounds, Path(folder))
    return result


def _measure_attention(result: Result, config: ZorroConfig, rounds: int, folder: Path) -> None:
    """The attention of one layer, `depth` times per measurement."""
    tokens = torch.randn(1, sum(num_tokens(config).values()), 3 * config.embed_dim)
    parts = [part.contiguous() for part in torch.split(tokens, list(num_tokens(config).values()), dim=1)]
    structured, dense = StructuredAttention(config).eval(), DenseAttention(config).eval()
    names = [stream.key for stream in num_tokens(config)]
    graphs = [
        open_session(_export(structured, tuple(parts), names, folder / "structured_attention.onnx")),
        open_session(_export(dense, (tokens,), ["tokens"], folder / "dense_attention.onnx")),
    ]
    feeds = [
        {name: part.numpy() for name, part in zip(names, parts, strict=True)},
        {"tokens": tokens.numpy()},
    ]
    sides: dict[tuple[str, str], Callable[[], np.ndarray]] = {
        ("structured", "torch"): lambda: torch.cat(structured(*parts), dim=1).numpy(),
        ("dense", "torch"): lambda: dense(tokens).numpy(),
        ("structured", "ONNX Runtime"): lambda: np.concatenate(graphs[0].run(None, feeds[0]), axis=1),
        ("dense", "ONNX Runtime"): lambda: graphs[1].run(None, feeds[1])[0],
    }
    expected = sides["dense", "torch"]()
    for (kind, engine), side in sides.items():
        error = float(np.abs(side() - expected).max())
        result.check(f"max abs error, attention, {kind}, {engine}", error, at_most=MAX_ABS_ERROR)
    named = {f"attention of a layer, {kind}, {engine}": side for (kind, engine), side in sides.items()}
    result.entries |= interleave(named, rounds=rounds, calls=config.depth)
    for engine in ENGINES:
        result.compare(
            f"attention of a layer, structured, {engine}",
            f"attention of a layer, dense, {engine}",
            at_most=MAX_RATIO,
            title=f"structured attention, {engine}, {PRESET}",
            other="dense mask",
        )


def _measure_model(result: Result, model: ZorroModel, rounds: int, folder: Path) -> None:
    """The whole model, at its true depth."""
    inputs = random_inputs(PRESET)
    tensors = [torch.from_numpy(x) for x in inputs.values()]
    modules = {"structured": build_graph(model, Modality.FUSED).eval(), "dense": DenseZorro(model).eval()}
    examples = tuple(example_inputs(SPECS[PRESET], Modality.FUSED).values())
    paths = {
        "structured": export_graphs(model, SPECS[PRESET], folder)[Modality.FUSED],
        "dense": _export(
            modules["dense"], examples, list(inputs), folder / "dense.onnx", output_names(Modality.FUSED)
        ),
    }
    sessions = {kind: open_session(path) for kind, path in paths.items()}
    expected = [output.numpy() for output in modules["dense"](*tensors)]
    sides: dict[str, Callable[[], list[np.ndarray]]] = {}
    for kind in modules:
        sides[f"model, {kind}, torch"] = partial(_run_module, modules[kind], tensors)
        sides[f"model, {kind}, ONNX Runtime"] = partial(sessions[kind].run, None, inputs)
    for name, side in sides.items():
        errors = [np.abs(got - wanted).max() for got, wanted in zip(side(), expected, strict=True)]
        result.check(f"max abs error, {name}", float(max(errors)), at_most=MAX_ABS_ERROR)
    result.entries |= interleave(sides, rounds=rounds)
    for engine in ENGINES:
        result.compare(
            f"model, structured, {engine}",
            f"model, dense, {engine}",
            title=f"whole model with structured attention, {engine}, {PRESET}",
            other="whole model with a dense mask",
        )


def _run_module(module: nn.Module, tensors: list[Tensor]) -> list[np.ndarray]:
    return [output.numpy() for output in module(*tensors)]


def _export(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    inputs: list[str],
    path: Path,
    outputs: list[str] | None = None,
) -> Path:
    """Export with the exporter and options that bundles are exported with, and a dynamic batch."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    examples = tuple(x.expand(2, *x.shape[1:]).contiguous() for x in (x[:1] for x in examples))
    program = torch.onnx.export(
        module,
        examples,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        opset_version=OPSET_VERSION,
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=True)
    audit_graph(path, for_tensorrt=False)  # refuses guard and mask operators, which would slow one side
    return path
