"""What TensorRT would take but our graphs must not hold.

That is late shapes, infinite masks, half-precision norms, and zero points.

Networks are strongly typed: an engine computes in the types that the graph has, so what loses precision is a
fault here.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import onnx
from onnx import TensorProto

from export.graph_view import GraphFault, GraphView, attributes_of, fault_of

INPUT_TYPES = ("FLOAT", "UINT8")
FLOAT_NAMES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")

SIZES = ("Shape", "Size")
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")

SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    **{f"Reduce{kind}": (1,) for kind in REDUCTIONS},
    "ConstantOfShape": (0,), "CumSum": (1,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3),
    "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,),
    "Squeeze": (1,), "STFT": (1, 2, 3), "Tile": (1,), "TopK": (1,), "Trilu": (1,), "Unsqueeze": (1,),
    "Upsample": (1,),
}  # fmt: skip
"""Positions of inputs that say how large an output is or over which axes it goes, by operator.

They must be constant.
"""

NORMS = {
    "LayerNormalization": "LayerNorm", "RMSNormalization": "RMSNorm", "GroupNormalization": "GroupNorm",
    "InstanceNormalization": "InstanceNorm", "MeanVarianceNormalization": "normalisation",
    "LpNormalization": "L2 norm", "ReduceL2": "L2 norm", "ReduceSumSquare": "sum of squares",
    "ReduceLogSumExp": "softmax", "Softmax": "softmax", "LogSoftmax": "softmax",
}  # fmt: skip
"""Operators that sum squares or exponentials, in words."""

MIN_HALF = -(2.0**15)
"""A float16 mask below half of that type's range becomes infinite when it meets a score as low."""


def check_interface(view: GraphView) -> Iterator[GraphFault]:
    """Inputs are float32 or uint8, outputs float32, and the graph says which preprocessing it wants."""
    sides = (("input", view.graph.input, INPUT_TYPES), ("output", view.graph.output, INPUT_TYPES[:1]))
    for kind, values, wanted in sides:
        for value in values:
            found = view.type_of(value.name)
            if found not in wanted:
                remedy = f"make it {' or '.join(wanted)} by a Cast inside"
                yield GraphFault(node=value.name, operator=kind, reason=f"is {found}", remedy=remedy)
    if not any(entry.key == "clip_spec_hash" and entry.value for entry in view.model.metadata_props):
        reason = "has no clip_spec_hash among its metadata"
        yield GraphFault(
            node=view.graph.name, operator="graph", reason=reason, remedy="store ClipSpec.hash there"
        )


def check_late_shapes(view: GraphView) -> Iterator[GraphFault]:
    """Shapes and axes are constant; see `repeats_over_batch` for the one that may not be."""
    told: set[str] = set()
    for node in view.graph.node:
        for name in shape_inputs(node):
            origins = [] if view.is_constant(name) else _shapes_behind(view, name)
            told |= {origin.output[0] for origin in origins}
            if view.is_constant(name) or repeats_over_batch(view, node):
                continue
            if origins:
                reason = f"takes a shape computed at run time from {origins[0].op_type} {origins[0].name!r}"
            else:
                reason = f"takes a shape or axes from {name!r}, which depends on values"
            yield fault_of(node, reason, "make it an initialiser")
    for node in view.graph.node:
        if node.op_type in SIZES and node.output[0] not in told:
            yield fault_of(node, "computes a shape at run time", "write the shape as a number")


def shape_inputs(node: onnx.NodeProto) -> Iterator[str]:
    """Inputs that say how large the output is or over which axes it goes."""
    positions = SHAPE_INPUTS.get(node.op_type, ())
    yield from (node.input[i] for i in positions if i < len(node.input) and node.input[i])


def repeats_over_batch(view: GraphView, node: onnx.NodeProto) -> bool:
    """Does it repeat a weight once for each row of an input, as learned tokens are?

    Its shape is Concat(Shape(input)[0:1], constants): one number, the only one that may be late, read off an
    input.
    """
    if node.op_type != "Expand" or not view.is_constant(node.input[0]):
        return False
    concat = view.maker_of.get(node.input[1])
    if concat is None or concat.op_type != "Concat" or not all(map(view.is_constant, concat.input[1:])):
        return False
    shape = view.maker_of.get(concat.input[0])
    if shape is None or shape.op_type != "Shape" or attributes_of(shape) != {"start": 0, "end": 1}:
        return False
    return shape.input[0] in {value.name for value in view.graph.input}


def _shapes_behind(view: GraphView, name: str) -> list[onnx.NodeProto]:
    """Nodes from which a tensor has lengths of axes, nearest first."""
    found: dict[str, onnx.NodeProto] = {}
    ahead = [name]
    for name in ahead:  # grows meanwhile
        maker = view.maker_of.get(name)
        if maker is not None and maker.output[0] not in found:
            found[maker.output[0]] = maker
            ahead += [] if maker.op_type in SIZES else [x for x in maker.input if x]
    return [maker for maker in found.values() if maker.op_type in SIZES]


def check_constants(view: GraphView) -> Iterator[GraphFault]:
    """No constant is infinite, is NaN, or becomes infinite in half precision."""
    halved = {
        n.input[0]
        for n in view.graph.node
        if n.op_type == "Cast" and attributes_of(n)["to"] == TensorProto.FLOAT16
    }
    for name in view.constants:
        type_ = view.type_of(name)
        array = view.array(name) if type_ in FLOAT_NAMES else None
        if array is not None and (reason := _what_is_infinite(array, type_ == "FLOAT16", name in halved)):
            remedy = "leave the mask out, or mask by a number such as -100"
            yield GraphFault(node=name, operator="weight", reason=reason, remedy=remedy)


def _what_is_infinite(array: np.ndarray, is_half: bool, becomes_half: bool) -> str:
    if not np.isfinite(array).all():
        return "holds NaN or infinite values, as of a mask"
    if is_half and array.min(initial=0) < MIN_HALF:
        return f"holds {array.min():g} in fp16, which is infinite once added to a low score"
    if becomes_half and np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        return "is cast to fp16, where its greatest value is infinite"
    return ""


def check_precision(view: GraphView) -> Iterator[GraphFault]:
    """Sums of squares and of exponentials are not made in fp16."""
    for node in view.graph.node:
        kind = NORMS.get(node.op_type) or ("mean of squares" if _sums_squares(view, node) else "")
        if kind and "FLOAT16" in map(view.type_of, (*node.input[:1], *node.output[:1])):
            reason = f"is an fp16 {kind}: its sums overflow or lose what is small"
            yield fault_of(node, reason, "keep it in fp32 by a Cast before")


def _sums_squares(view: GraphView, node: onnx.NodeProto) -> bool:
    maker = view.maker_of.get(node.input[0]) if node.op_type in ("ReduceMean", "ReduceSum") else None
    return maker is not None and (
        maker.op_type == "Pow" or (maker.op_type == "Mul" and len(set(maker.input)) == 1)
    )


def check_quantisation(view: GraphView) -> Iterator[GraphFault]:
    """Q/DQ are int8 around zero with constant scales, one for each channel of weights only."""
    for node in view.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            faults = chain(_scale_faults(view, node), _zero_point_faults(view, node))
            yield from (fault_of(node, reason, remedy) for reason, remedy in faults)


def _scale_faults(view: GraphView, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    if node.input[1] not in view.constants:
        yield (
            "takes a scale that is not constant",
            "measure ranges beforehand and store scales as initialisers",
        )
        return
    if (scale := view.array(node.input[1])) is None:
        return  # the rule of weights names it
    if not (np.isfinite(scale) & (scale > 0)).all():
        yield "has a scale that is not above 0", "calibrate on clips where the tensor is not all zero"
    if scale.size > 1 and not _is_weight(view, node.input[0]):
        yield f"has {scale.size} scales, and is not of weights", "give activations one scale"


def _is_weight(view: GraphView, name: str) -> bool:
    maker = view.maker_of.get(name)
    source = maker.input[0] if maker is not None and maker.op_type == "QuantizeLinear" else name
    return source in view.constants


def _zero_point_faults(view: GraphView, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    remedy = "quantise symmetrically to int8"
    is_given = len(node.input) > 2 and node.input[2]
    integers = node.input[2] if is_given else (*node.output, *node.input)[node.op_type == "DequantizeLinear"]
    if (found := view.type_of(integers)) not in ("INT8", "UNDEFINED"):
        yield f"is of {found.lower()}", remedy
    if not is_given:
        return
    if node.input[2] not in view.constants:
        yield "takes a zero point that is not constant", remedy
    elif (zero := view.array(node.input[2])) is not None and zero.any():
        yield f"has the zero point {int(zero.flat[np.flatnonzero(zero)[0]])}", remedy
