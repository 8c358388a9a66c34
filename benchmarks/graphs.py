"""Cost of one modality against both, and the fused graph's share of the processor's peak.

The peak is the fastest large square fp32 product that ONNX Runtime, torch or numpy computes in the same run.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.audit import OPSET_VERSION
from export.graphs import build_graph
from export.to_onnx import export_graphs
from media import Modality
from runtime.signature import GRAPH_INPUTS

from .measure import NUM_THREADS, interleave
from .result import Ratio, Result
from .sessions import SPECS, open_session, random_inputs, untrained

BASE, TINY = "vit-base", "vit-tiny"
MIN_SHARE_OF_PEAK = 0.80
GEMM_SIZES = (2048, 4096)
IR_VERSION = 10
TINY_CALLS = 5  # per measurement


def run(rounds: int = 10) -> Result:
    """Measure the graphs of both presets, and with those of the base preset the peak."""
    torch.set_num_threads(NUM_THREADS)
    parameters = {
        "presets": [BASE, TINY],
        "batch": 1,
        "threads": NUM_THREADS,
        "rounds": rounds,
        "gemm_sizes": list(GEMM_SIZES),
        "calls_per_measurement_tiny": TINY_CALLS,
    }
    result = Result(name="graphs", parameters=parameters)
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        products = _product_sides()
        base, tiny = (_graph_sides(result, name, Path(folder) / name) for name in (BASE, TINY))
        result.entries |= interleave(base | products, rounds=rounds)
        result.entries |= interleave(tiny, rounds=rounds, calls=TINY_CALLS)
    for name in (BASE, TINY):
        for modality in (Modality.AUDIO, Modality.VIDEO):
            result.compare(_entry(name, modality), _entry(name, Modality.FUSED))
    _compare_with_peak(result, list(products))
    return result


def _entry(preset: str, modality: Modality) -> str:
    return f"{preset}, {modality} graph"


def _graph_sides(result: Result, preset: str, folder: Path) -> dict[str, Callable[[], object]]:
    """The three graphs as sides of the comparison; their FLOPs are added to the result."""
    model, spec, inputs = untrained(preset), SPECS[preset], random_inputs(preset)
    folder.mkdir()
    sides: dict[str, Callable[[], object]] = {}
    for modality, path in export_graphs(model, spec, folder).items():
        feed = {name: inputs[name] for name in GRAPH_INPUTS[modality]}
        result.counts[f"{_entry(preset, modality)}, GFLOPs"] = (
            count_flops(build_graph(model, modality), feed) / 1e9
        )
        sides[_entry(preset, modality)] = partial(open_session(path).run, None, feed)
    return sides


def count_flops(graph: nn.Module, feed: dict[str, np.ndarray]) -> int:
    """FLOPs of matrix products and convolutions; a multiplication and its addition count as two.

    Counted on the exported program without dead code: like the ONNX graph, it has nothing that leads to no
    output.
    """
    tensors = tuple(torch.from_numpy(x) for x in feed.values())
    program = torch.export.export(graph.eval(), tensors).module()
    assert isinstance(program, torch.fx.GraphModule)
    program.graph.eliminate_dead_code()
    program.recompile()
    with FlopCounterMode(display=False) as counter:
        program(*tensors)
    return int(counter.get_total_flops())


def _product_sides() -> dict[str, Callable[[], Any]]:
    """Square fp32 products in each engine, as sides of the comparison."""
    random = np.random.default_rng(0)
    sides: dict[str, Callable[[], Any]] = {}
    for size in GEMM_SIZES:
        a, b = (random.standard_normal((size, size), dtype=np.float32) for _ in range(2))
        session = open_session(_product_graph(b))
        tensors = torch.from_numpy(a), torch.from_numpy(b)
        expected = a[:4] @ b
        sides |= {
            _product("ONNX Runtime", size): partial(_first_output, session, a),
            _product("torch", size): partial(torch.mm, *tensors),
            _product("numpy", size): partial(np.matmul, a, b),
        }
        for engine in ("ONNX Runtime", "torch"):
            np.testing.assert_allclose(sides[_product(engine, size)]()[:4], expected, atol=1e-2)
    return sides


def _first_output(session: onnxruntime.InferenceSession, a: np.ndarray) -> Any:
    return session.run(None, {"a": a})[0]


def _product(engine: str, size: int) -> str:
    return f"product of {size} x {size}, {engine}"


def _product_graph(b: np.ndarray) -> bytes:
    """a @ b with a constant b, which ONNX Runtime packs beforehand, as it packs weights."""
    size = len(b)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["product"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [size, size])],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET_VERSION)], ir_version=IR_VERSION
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _compare_with_peak(result: Result, products: list[str]) -> None:
    """Add the share of the fastest product's rate that the fused graph reaches."""
    sizes = {
        _product(engine, size): size for engine in ("ONNX Runtime", "torch", "numpy") for size in GEMM_SIZES
    }
    rates = {name: 2 * sizes[name] ** 3 / result.entries[name].min / 1e9 for name in products}
    fastest = max(rates, key=lambda name: rates[name])
    fused = _entry(BASE, Modality.FUSED)
    reached = result.counts[f"{fused}, GFLOPs"] / result.entries[fused].min
    result.counts |= {f"{name}, GFLOP/s": rate for name, rate in rates.items()}
    result.counts[f"{fused}, GFLOP/s"] = reached
    result.ratios.append(
        Ratio(
            what=f"{fused}, GFLOP/s",
            against=f"peak ({fastest})",
            value=reached / rates[fastest],
            at_least=MIN_SHARE_OF_PEAK,
        )
    )
