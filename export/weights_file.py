"""Several graphs over one file of weights.

It stores every distinct tensor once, aligned so that a runtime can map it.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from media import Modality

WEIGHTS_FILE = "weights.bin"
MIN_EXTERNAL_BYTES = 1024
ALIGNMENT = 4096


def write_graphs(graphs: Iterable[tuple[Modality, onnx.ModelProto]], folder: Path) -> dict[Modality, Path]:
    """Write `{modality}.onnx` of each graph and `weights.bin` into `folder`; returns the graphs' paths.

    Graphs lose their larger initialisers, one graph after the other, so that only one need be in memory
    whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    with (folder / WEIGHTS_FILE).open("wb") as file:
        weights = _WeightsFile(file)
        for modality, graph in graphs:
            weights.take(graph)
            paths[modality] = folder / f"{modality}.onnx"
            paths[modality].write_bytes(graph.SerializeToString(deterministic=True))
    for path in paths.values():
        onnx.checker.check_model(str(path))
    return paths


def external_files(graph: onnx.GraphProto) -> list[str]:
    """Names of the files, beside the graph, that hold its larger initialisers."""
    entries = (entry for tensor in graph.initializer for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


class _WeightsFile:
    """Initialisers of several graphs, each distinct content once.

    Of one type, that is: TensorRT refuses weights that share a place and have different counts, as zeros may.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, 0
        self.offset_of: dict[tuple[int, bytes], int] = {}

    def take(self, graph: onnx.ModelProto) -> None:
        """Move the graph's larger initialisers here, in order of name."""
        for tensor in sorted(graph.graph.initializer, key=lambda t: t.name):
            content = np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()
            if len(content) >= MIN_EXTERNAL_BYTES:
                _point(tensor, self._place(tensor.data_type, content), len(content))

    def _place(self, data_type: int, content: bytes) -> int:
        key = (data_type, hashlib.sha256(content).digest())
        if key not in self.offset_of:
            padding = -self.size % (ALIGNMENT if len(content) >= ALIGNMENT else 64)
            self.file.write(bytes(padding) + content)
            self.offset_of[key] = self.size + padding
            self.size += padding + len(content)
        return self.offset_of[key]


def _point(tensor: TensorProto, offset: int, length: int) -> None:
    name, dims, data_type = tensor.name, list(tensor.dims), tensor.data_type
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = name, data_type, TensorProto.EXTERNAL
    tensor.dims.extend(dims)
    for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
