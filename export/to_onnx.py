"""A model to three ONNX graphs over one file of weights.

Each initialiser is named by its parameter, so the three graphs share bytes: a tensor is stored once. Only the batch is
dynamic. Nothing of the graphs depends on time or place, so two exports of one checkpoint are equal.
"""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from media import ClipSpec, Modality
from models.zorro import Zorro
from runtime.signature import INPUTS, output_names

from .audit import OPSET_VERSION
from .graphs import build_graph

WEIGHTS_FILE = "weights.bin"
MIN_EXTERNAL_BYTES = 1024
ALIGNMENT = 4096  # so that a runtime can map the file


def example_inputs(spec: ClipSpec, modality: Modality, batch: int = 2) -> dict[str, torch.Tensor]:
    """Zeros of the shapes and types that a graph takes."""
    inputs = {
        "audio": torch.zeros(batch, *spec.audio_shape),
        "video": torch.zeros(batch, *spec.video_shape, dtype=torch.uint8),
    }
    return {name: inputs[name] for name in INPUTS[modality]}


def export_graphs(model: Zorro, spec: ClipSpec, folder: Path) -> dict[Modality, Path]:
    """Write `audio.onnx`, `video.onnx`, `fused.onnx` and `weights.bin`; returns the graphs' paths."""
    weights = _WeightsFile()
    paths = {}
    for modality in Modality:
        graph = _export(build_graph(model.eval(), modality).eval(), spec, modality)
        _annotate(graph, spec, modality)
        weights.take(graph)
        paths[modality] = folder / f"{modality}.onnx"
        paths[modality].write_bytes(graph.SerializeToString(deterministic=True))
    weights.write(folder / WEIGHTS_FILE)
    for path in paths.values():
        onnx.checker.check_model(str(path))
    return paths


def _export(module: nn.Module, spec: ClipSpec, modality: Modality) -> onnx.ModelProto:
    inputs = example_inputs(spec, modality)
    batch = torch.export.Dim("batch", min=1, max=4096)
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
    for node in graph.graph.node:
        del node.metadata_props[:]  # source lines of the exporting machine
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    _fold_transposed_weights(graph.graph, module)
    return onnx.shape_inference.infer_shapes(graph, data_prop=True)


def _fold_transposed_weights(graph: onnx.GraphProto, module: nn.Module) -> None:
    """Store linear weights as MatMul reads them, in every graph alike, named `{parameter}.T`.

    The exporter does so only for weights that one node reads; for those that several streams share it leaves a Transpose.
    """
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    matrices = {name for name, tensor in initializers.items() if len(tensor.dims) == 2}
    transposes = [n for n in graph.node if n.op_type == "Transpose" and n.input[0] in matrices]
    new_name = {node.output[0]: f"{node.input[0]}.T" for node in transposes}
    for node in transposes:
        name = f"{node.input[0]}.T"
        if name not in initializers:
            array = numpy_helper.to_array(initializers[node.input[0]])
            initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array.T), name)
        graph.node.remove(node)
    of_content = {
        np.ascontiguousarray(p.detach().numpy().T).tobytes(): f"{name}.T"
        for name, p in module.named_parameters()
        if p.dim() == 2
    }
    for tensor in list(initializers.values()):
        known = of_content.get(numpy_helper.to_array(tensor).tobytes()) if tensor.name.startswith("val_") else None
        if known is not None:
            new_name[tensor.name] = tensor.name = known
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = new_name.get(name, name)
    used = {name for node in graph.node for name in node.input}
    kept = {tensor.name: tensor for tensor in initializers.values() if tensor.name in used}
    del graph.initializer[:]
    graph.initializer.extend(kept.values())


def _annotate(graph: onnx.ModelProto, spec: ClipSpec, modality: Modality) -> None:
    graph.producer_name, graph.producer_version = "zorro-av", ""
    graph.graph.name = f"zorro_{modality}"
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, {"clip_spec_hash": spec.hash, "modality": str(modality)})


class _WeightsFile:
    """Initialisers of several graphs, each distinct content once."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.size = 0
        self.offset_of: dict[str, int] = {}

    def take(self, graph: onnx.ModelProto) -> None:
        """Move the graph's larger initialisers here, in order of name."""
        for tensor in sorted(graph.graph.initializer, key=lambda t: t.name):
            content = np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()
            if len(content) >= MIN_EXTERNAL_BYTES:
                _point(tensor, self._place(content), len(content))

    def _place(self, content: bytes) -> int:
        key = hashlib.sha256(content).hexdigest()
        if key not in self.offset_of:
            padding = -self.size % (ALIGNMENT if len(content) >= ALIGNMENT else 64)
            self.blocks.append(bytes(padding) + content)
            self.offset_of[key] = self.size + padding
            self.size += padding + len(content)
        return self.offset_of[key]

    def write(self, path: Path) -> None:
        path.write_bytes(b"".join(self.blocks))


def _point(tensor: TensorProto, offset: int, length: int) -> None:
    name, dims, data_type = tensor.name, list(tensor.dims), tensor.data_type
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = name, data_type, TensorProto.EXTERNAL
    tensor.dims.extend(dims)
    for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
