"""Which operators and element types TensorRT's ONNX parser takes, by version: the table `ops.tsv`.

The table comes from the parser's own documentation; its first lines name the commits.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import onnx
from onnx import defs

from export.graph_view import GraphFault, GraphView, fault_of

PARSER_OPSETS = {"11.0": range(9, 25), "10.1": range(9, 21)}
"""Opsets that the parser of a version of TensorRT reads."""

ELEMENT_TYPES = {
    "FP32": "FLOAT", "FP16": "FLOAT16", "BF16": "BFLOAT16", "INT32": "INT32", "INT64": "INT64",
    "BOOL": "BOOL", "UINT8": "UINT8", "INT8": "INT8", "FP8": "FLOAT8E4M3FN", "INT4": "INT4",
}  # fmt: skip
"""The table's words in ONNX's."""

CHECKED_TENSORS = {
    "Cast": ("T1", "T2"), "CastLike": ("T1", "T2"), "ConstantOfShape": ("T2",), "EyeLike": ("T2",),
    "OneHot": ("T3",), "RandomNormalLike": ("T2",), "RandomUniformLike": ("T2",), "Where": ("T",),
    "BlackmanWindow": ("T2",), "HammingWindow": ("T2",), "HannWindow": ("T2",),
}  # fmt: skip
"""Which of an operator's types the table means, where it is not that of the first input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A row of the table."""

    name: str
    versions: frozenset[str]
    """Versions of TensorRT that take it."""
    since: str
    """The first that does; empty where it is not written."""
    types: frozenset[str]
    """Element types in ONNX's words, the same for all versions."""
    restrictions: str
    """In the parser's words."""


@cache
def operators() -> dict[str, Operator]:
    """The table by operator."""
    lines = (files(__package__) / "ops.tsv").read_text().splitlines()
    rows = csv.DictReader((x for x in lines if not x.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE)
    return {
        row["op"]: Operator(
            name=row["op"],
            versions=frozenset(version for version in PARSER_OPSETS if row[version] == "Y"),
            since=row["since_trt"],
            types=frozenset(ELEMENT_TYPES[word.strip()] for word in row["types"].split(",") if word),
            restrictions=row["restrictions"],
        )
        for row in rows
    }


def check_support(view: GraphView, tensorrt: str) -> Iterator[GraphFault]:
    """Opset, operators and element types are those of this version."""
    opset = view.opsets.get("", 0)
    if opset not in (read := PARSER_OPSETS[tensorrt]):
        reason = f"is of opset {opset}, and TensorRT {tensorrt} reads {read[0]} to {read[-1]}"
        yield GraphFault(
            node=view.graph.name, operator="graph", reason=reason, remedy="export it with one of these"
        )
    for node in view.graph.node:
        if node.domain in ("", "ai.onnx"):
            yield from _check_node(view, node, tensorrt)


def _check_node(view: GraphView, node: onnx.NodeProto, tensorrt: str) -> Iterator[GraphFault]:
    row = operators().get(node.op_type)
    if row is None or tensorrt not in row.versions:
        since = row.since or max(row.versions) if row and row.versions else ""
        remedy = "write it in other operators" + (f", or wait for {since}" if since else "")
        yield fault_of(node, f"is not supported by TensorRT {tensorrt}", remedy)
        return
    for name in checked_tensors(node, view.opsets.get("", 0)):
        found = view.type_of(name)
        if found not in row.types | {"UNDEFINED"}:  # where nobody knows, its shape is a fault
            taken = ", ".join(word for word, type_ in ELEMENT_TYPES.items() if type_ in row.types)
            yield fault_of(node, f"has {found} in {name!r}", f"TensorRT takes {taken} there")
            return


def checked_tensors(node: onnx.NodeProto, opset: int) -> list[str]:
    """Inputs and outputs of whose element types the table speaks, not indices, axes and the like."""
    if not defs.has(node.op_type, opset):
        return [name for name in (*node.input[:1], *node.output[:1]) if name]
    schema = defs.get_schema(node.op_type, opset)
    first = (schema.inputs or schema.outputs)[0].type_str
    checked = CHECKED_TENSORS.get(node.op_type, (first,))
    sides = ((node.input, schema.inputs), (node.output, schema.outputs))
    return [
        name
        for names, formal in sides
        for i, name in enumerate(names)
        if name and formal and formal[min(i, len(formal) - 1)].type_str in checked
    ]
