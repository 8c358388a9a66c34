"""Small graphs into which faults are planted, and what the audit says of them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.audit import AuditError, audit_graph, examine_graph

FLOAT, HALF, INT64, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.UINT8
Values = Mapping[str, tuple[int, Sequence[int | str | None]]]
X: Values = {"audio": (FLOAT, ["batch", 4, 8])}
Y: Values = {"audio_logits": (FLOAT, ["batch", 4, 8])}


def node(
    kind: str, inputs: str, outputs: str = "x", *, name: str = "planted", **attributes: Any
) -> onnx.NodeProto:
    """Tensors are written with spaces between, and `-` for one left out."""
    read, written = (["" if x == "-" else x for x in side.split()] for side in (inputs, outputs))
    return helper.make_node(kind, read, written, name=name, **attributes)


RELU = node("Relu", "audio", name="first")
LAST = node("Neg", "x", "audio_logits", name="last")


def save(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    inputs: Values = X,
    outputs: Values = Y,
    opset: int = 20,
    infer: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A graph of these nodes; x is what its last node makes negative."""
    read, written = (
        [helper.make_tensor_value_info(name, *value) for name, value in side.items()]
        for side in (inputs, outputs)
    )
    initializers = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()
    ]
    model = helper.make_model(
        helper.make_graph(list(nodes), "made", read, written, initializers),
        opset_imports=[helper.make_opsetid("", opset)],
    )
    helper.set_model_props(model, {"clip_spec_hash": "1"} if metadata is None else dict(metadata))
    path = folder / "made.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True) if infer else model, path)
    return path


def faults(path: Path, **options: Any) -> list[str]:
    return [str(fault) for fault in examine_graph(path, **options).faults]


def sole_fault(path: Path, **options: Any) -> str:
    """Its text, and `audit_graph` tells the same."""
    (found,) = faults(path, **options)
    with pytest.raises(AuditError, match=re.escape(f"made.onnx has 1 faults: (1) {found}")):
        audit_graph(path, **options)
    return found


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def int8_linear(**planted: np.ndarray) -> dict[str, Any]:
    """A linear map as TensorRT reads it in int8: one scale for what it reads, one per channel of its
    weights."""
    nodes = [
        node("QuantizeLinear", "audio scale zero", "q", name="quantise"),
        node("DequantizeLinear", "q scale zero", "dq", name="dequantise"),
        node("DequantizeLinear", "w w_scale w_zero", "w_dq", name="weights", axis=1),
        node("MatMul", "dq w_dq", name="product"),
        LAST,
    ]
    clean = {
        "scale": np.float32(0.1),
        "zero": np.int8(0),
        "w": np.ones((8, 8), np.int8),
        "w_scale": floats(8),
        "w_zero": np.zeros(8, np.int8),
    }
    return {"nodes": nodes, "weights": clean | planted}
