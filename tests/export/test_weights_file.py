"""Graphs over one file of weights: equal ones are stored once, but never under two counts."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.weights_file import WEIGHTS_FILE, write_graphs
from media import Modality


def _graph(*weights: np.ndarray) -> onnx.ModelProto:
    """Each weight, as float32."""
    stored = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    nodes = [
        helper.make_node("Cast", [f"w{i}"], [f"y{i}"], to=TensorProto.FLOAT) for i in range(len(weights))
    ]
    outputs = [
        helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, x.shape) for i, x in enumerate(weights)
    ]
    graph = helper.make_graph(nodes, "made", [], outputs, initializer=stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _places(path: Path) -> list[tuple[int, int]]:
    graph = onnx.load(path, load_external_data=False).graph
    entries = [{entry.key: entry.value for entry in tensor.external_data} for tensor in graph.initializer]
    return [(int(entry["offset"]), int(entry["length"])) for entry in entries]


def test_equal_weights_of_several_graphs_are_stored_once(tmp_path: Path) -> None:
    weight = np.arange(1024, dtype=np.float32)
    paths = write_graphs(
        [(Modality.AUDIO, _graph(weight)), (Modality.VIDEO, _graph(weight, -weight))], tmp_path
    )
    assert _places(paths[Modality.AUDIO])[0] == _places(paths[Modality.VIDEO])[0]
    assert (tmp_path / WEIGHTS_FILE).stat().st_size == 2 * weight.nbytes
    np.testing.assert_array_equal(
        numpy_helper.to_array(onnx.load(paths[Modality.VIDEO]).graph.initializer[1]), -weight
    )


def test_equal_bytes_of_different_types_are_apart(tmp_path: Path) -> None:
    """As zeros of 1,024 biases in float32 and of 2,048 in float16, which TensorRT refuses in one place."""
    zeros = np.zeros(1024, np.float32), np.zeros(2048, np.float16)
    paths = write_graphs([(Modality.AUDIO, _graph(*zeros))], tmp_path)
    (first, length), (second, same_length) = _places(paths[Modality.AUDIO])
    assert length == same_length == 4096
    assert first != second
