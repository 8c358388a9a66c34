"""Copies of a bundle that are damaged, and sealed as if they were good."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export.bundle_writer import seal_bundle

Damage = Callable[[Path], None]


def copy_bundle(bundle: Path, folder: Path) -> Path:
    """A copy at a place of the same name and version."""
    return Path(shutil.copytree(bundle, folder / "small" / "1"))


def damaged_bundle(bundle: Path, folder: Path, damage: Damage) -> Path:
    """A copy that is damaged, and sealed as if it were good."""
    copy = copy_bundle(bundle, folder)
    damage(copy)
    seal_bundle(copy, json.loads((copy / "bundle.json").read_text()))
    return copy


def edit_graph(copy: Path, graph: str, change: Callable[[onnx.GraphProto], None]) -> None:
    """Change a graph of the variant fp32."""
    path = copy / "fp32" / f"{graph}.onnx"
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)


def set_initialiser(copy: Path, graph: str, end: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the one initialiser whose name ends so."""

    def edit(content: onnx.GraphProto) -> None:
        (tensor,) = [x for x in content.initializer if x.name.endswith(end)]
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), tensor.name))

    edit_graph(copy, graph, edit)


def change_layer(copy: Path) -> None:
    """Other weights in one layer of the video graph."""
    set_initialiser(copy, "video", "blocks.1.mlp.2.weight.T", lambda weight: weight * np.float32(1.5))
