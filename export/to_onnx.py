"""A model to three ONNX graphs over one file of weights.

Initialisers are named by their parameters and nodes by their modules, so that graphs share bytes and a fault
has an address. Only the batch is dynamic. Nothing of the graphs depends on time or place, so two exports of
one checkpoint are equal.
"""

import ast
import gc
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from media import ClipSpec, Modality
from media.progress import OnProgress, ignore_progress
from models.zorro import ZorroModel
from runtime.signature import GRAPH_INPUTS, output_names

from .audit import OPSET_VERSION
from .exporter_warnings import without_known_warnings
from .graphs import build_graph
from .shapes import infer_shapes
from .weights_file import write_graphs

Weights = dict[str, np.ndarray]
"""Initialisers of a graph by name."""


def example_inputs(spec: ClipSpec, modality: Modality, batch: int = 2) -> dict[str, torch.Tensor]:
    """Zeros of the shapes and types that a graph takes."""
    inputs = {
        "audio": torch.zeros(batch, *spec.audio_shape),
        "video": torch.zeros(batch, *spec.video_shape, dtype=torch.uint8),
    }
    return {name: inputs[name] for name in GRAPH_INPUTS[modality]}


def export_graphs(
    model: ZorroModel, spec: ClipSpec, folder: Path, *, on_progress: OnProgress = ignore_progress
) -> dict[Modality, Path]:
    """Write `audio.onnx`, `video.onnx`, `fused.onnx` and `weights.bin`; returns the graphs' paths."""

    def graphs() -> Iterator[tuple[Modality, onnx.ModelProto]]:
        for done, modality in enumerate(Modality):
            on_progress("graphs", done, len(Modality))
            yield modality, _export(model, spec, modality)
        on_progress("graphs", len(Modality), len(Modality))

    return write_graphs(graphs(), folder)


def _export(model: ZorroModel, spec: ClipSpec, modality: Modality) -> onnx.ModelProto:
    module = build_graph(model.eval(), modality).eval()
    graph = _run_exporter(module, spec, modality)
    weights = _take_weights(graph.graph)
    _name_nodes(graph.graph)
    _drop_sources(graph.graph)
    _fold_transposed_weights(graph.graph, weights, module)
    _fold_constants(graph.graph, weights)
    _read_batch_of_floats(graph.graph)
    _annotate(graph, spec, modality)
    used = {name for node in graph.graph.node for name in node.input}
    graph.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items() if name in used
    )
    infer_shapes(graph)
    return graph


def _run_exporter(module: nn.Module, spec: ClipSpec, modality: Modality) -> onnx.ModelProto:
    """The graph as torch exports it."""
    inputs = example_inputs(spec, modality)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with without_known_warnings():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=output_names(modality),
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            opset_version=OPSET_VERSION,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    del program
    gc.collect()  # what it was made of stands in cycles, with copies of the weights
    return graph


def _drop_sources(graph: onnx.GraphProto) -> None:
    """Remove what tells of the exporting machine.

    That is source lines, and the exporter's notes on nodes and tensors.
    """
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.value_info, *graph.input, *graph.output):
        del value.metadata_props[:]
    del graph.metadata_props[:]


def _take_weights(graph: onnx.GraphProto) -> Weights:
    """The graph's initialisers as arrays.

    It has none after that, so that its passes move no more than nodes.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    del graph.initializer[:], graph.value_info[:]
    return weights


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name each node by the module it comes from and its operator, as `model.trunk.blocks.0.qkv/MatMul`."""
    seen: Counter[str] = Counter()
    scope = "model"
    for node in graph.node:
        stored = {entry.key: entry.value for entry in node.metadata_props}
        scopes = ast.literal_eval(stored.get("pkg.torch.onnx.name_scopes", "[]"))
        scope = (
            scopes[-2] if len(scopes) > 1 and scopes[-2].startswith("model") else scope
        )  # else that of the node before
        name = f"{scope}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _fold_transposed_weights(graph: onnx.GraphProto, weights: Weights, module: nn.Module) -> None:
    """Store linear weights as MatMul reads them, in every graph alike, named `{parameter}.T`.

    The exporter does so only for weights that one node reads; for those that several streams share it leaves
    a Transpose.
    """
    new_name = {}
    for node in [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in weights]:
        weight = weights[node.input[0]]
        if weight.ndim == 2:
            new_name[node.output[0]] = f"{node.input[0]}.T"
            weights[f"{node.input[0]}.T"] = weight.T
            graph.node.remove(node)
    matrices = {name: p.detach().numpy().T for name, p in module.named_parameters() if p.dim() == 2}
    for name in [name for name in weights if name.startswith("val_")]:
        same = (own for own, matrix in matrices.items() if np.array_equal(weights[name], matrix))
        if (known := next(same, None)) is not None:
            new_name[name] = f"{known}.T"
            weights[f"{known}.T"] = weights.pop(name)
    _rename_inputs(graph, new_name)


def _fold_constants(graph: onnx.GraphProto, weights: Weights) -> None:
    """Compute once what depends on weights alone, as the pool's queries.

    The exporter leaves it to be computed each time.
    """
    constant, kept = dict(weights), []
    for node in graph.node:
        if all(name in constant or not name for name in node.input):
            evaluator = ReferenceEvaluator(node, opsets={"": OPSET_VERSION})
            values = evaluator.run(None, {name: constant[name] for name in node.input if name})
            constant |= dict(zip(node.output, values, strict=True))
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    computed = {name: constant[name] for name in constant.keys() - weights.keys() if name in read}
    new_name = {
        name: f"model.constant.{hashlib.sha256(x.tobytes()).hexdigest()[:12]}" for name, x in computed.items()
    }
    for name in sorted(computed, key=new_name.__getitem__):
        weights[new_name[name]] = computed[name]
    _rename_inputs(graph, new_name)


def _rename_inputs(graph: onnx.GraphProto, new_name: Mapping[str, str]) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = new_name.get(name, name)


def _read_batch_of_floats(graph: onnx.GraphProto) -> None:
    """Take the number of clips from the sound, not from the picture.

    The picture is bytes, and TensorRT does not read the shape of bytes.
    """
    floats = [
        value.name for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    ]
    bytes_ = {value.name for value in graph.input} - set(floats)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in bytes_ and floats:
            node.input[0] = floats[0]


def _annotate(graph: onnx.ModelProto, spec: ClipSpec, modality: Modality) -> None:
    graph.producer_name, graph.producer_version = "zorro-av", ""
    graph.graph.name = f"zorro_{modality}"
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {"clip_spec_hash": spec.hash, "modality": str(modality)})
