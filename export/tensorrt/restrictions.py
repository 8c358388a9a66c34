"""Checks of what TensorRT's table says beside its types.

They look at ranks, attributes, outputs and constants of an operator.

Axes and sizes that must be constant are `trt_rules.SHAPE_INPUTS`, zero points `trt_rules.check_quantisation`;
operators that are forbidden anyway are not here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import onnx

from export.graph_view import GraphFault, GraphView, attributes_of, fault_of

ATTRIBUTES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Attention": {"softcap": (0.0,), "qk_matmul_output_mode": (0,)},
    "Constant": dict.fromkeys(("sparse_value", "value_string", "value_strings"), ()),
    "LSTM": {"input_forget": (0,), "layout": (0,)},
    "Resize": {
        "coordinate_transformation_mode": (
            "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
        ),
        "mode": ("nearest", "linear"),
        "nearest_mode": ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"),
        "keep_aspect_ratio_policy": ("stretch",),
        "antialias": (0,),
    },
    "ScatterND": {"reduction": ("none",)},
    "TensorScatter": {"axis": (-2,)},
    "TopK": {"sorted": (1,)},
}  # fmt: skip
"""What an attribute may be, where it is given; every default is allowed."""

RANKS: dict[str, dict[int, tuple[int, ...]]] = {
    "Attention": dict.fromkeys(range(4), (4,)),
    "AveragePool": {0: (4, 5)},
    "DeformConv": {0: (3, 4)},
    "GridSample": {0: (4,)},
    "MaxPool": {0: (4, 5)},
    "TensorScatter": {0: (4,), 1: (4,)},
}
"""How many axes an input may have, by its position."""

MAX_INPUTS = {"Attention": 4}
FIRST_OUTPUT_ONLY = ("Attention", "LayerNormalization", "MaxPool")
MAX_K = 3840


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """A node in its graph, with the attributes that it is given."""

    view: GraphView
    node: onnx.NodeProto
    given: dict[str, Any]


def check_restrictions(view: GraphView, tensorrt: str) -> Iterator[GraphFault]:
    """Every node is of the form that the parser takes."""
    for node in view.graph.node:
        if node.domain in ("", "ai.onnx"):
            for reason in (*_tabled(view, node), *_special(view, node, tensorrt)):
                yield fault_of(
                    node, reason, "write the layer so that TensorRT takes it, see export/tensorrt/ops.tsv"
                )


def checked_operators() -> set[str]:
    """Operators of which some restriction is checked here."""
    return {*ATTRIBUTES, *RANKS, *MAX_INPUTS, *FIRST_OUTPUT_ONLY, *CHECKS, "Einsum"}


def _tabled(view: GraphView, node: onnx.NodeProto) -> Iterator[str]:
    given = attributes_of(node)
    for name, allowed in ATTRIBUTES.get(node.op_type, {}).items():
        if name in given and given[name] not in allowed:
            yield f"has {name}={given[name]!r}, wanted {' or '.join(map(str, allowed)) or 'none'}"
    for i, ranks in RANKS.get(node.op_type, {}).items():
        dims = view.dims_of(node.input[i]) if i < len(node.input) else None
        if dims is not None and len(dims) not in ranks:
            yield f"has {len(dims)} axes in {node.input[i]!r}, wanted {' or '.join(map(str, ranks))}"
    if any(node.input[MAX_INPUTS.get(node.op_type, len(node.input)) :]):
        yield f"has more than {MAX_INPUTS[node.op_type]} inputs"
    if node.op_type in FIRST_OUTPUT_ONLY and any(node.output[1:]):
        yield "has more than its first output"


def _special(view: GraphView, node: onnx.NodeProto, tensorrt: str) -> Iterator[str]:
    given = attributes_of(node)
    check = CHECKS.get(node.op_type)
    if check is not None and (reason := check(_Site(view=view, node=node, given=given))):
        yield reason
    if node.op_type == "Einsum" and tensorrt == "10.1" and _is_new_einsum(str(given["equation"])):
        yield f"has equation {given['equation']!r}, with an ellipsis or a diagonal, which is read since 10.12"


def _is_new_einsum(equation: str) -> bool:
    terms = equation.replace(" ", "").split("->")[0].split(",")
    return "..." in equation or any(len(set(term)) < len(term) for term in terms)


def _dilations(site: _Site) -> str | None:
    return (
        f"has dilations={site.given['dilations']}, wanted ones"
        if set(site.given.get("dilations", ())) - {1}
        else None
    )


def _pads(site: _Site) -> str | None:
    pads = site.given.get("pads", [])
    half = len(pads) // 2
    return f"has pads={pads}, wanted the same before and after" if pads[:half] != pads[half:] else None


def _activations(site: _Site) -> str | None:
    names = [x.decode() for x in site.given.get("activations", ())]
    half = len(names) // 2
    differ = site.given.get("direction") == "bidirectional" and names[:half] != names[half:]
    return f"has activations={names}, wanted the same both ways" if differ else None


def _k(site: _Site) -> str | None:
    k = site.view.array(site.node.input[1])
    return f"has K={k.max()}, wanted less than {MAX_K}" if k is not None and k.max() >= MAX_K else None


def _hardmax_axis(site: _Site) -> str | None:
    dims = site.view.dims_of(site.node.input[0])
    is_known = dims is None or isinstance(dims[site.given.get("axis", -1)], int)
    return None if is_known else "goes over an axis whose length is not constant"


def _static_input(site: _Site) -> str | None:
    dims = site.view.dims_of(site.node.input[0]) or ()
    return None if all(isinstance(d, int) for d in dims) else "has an input of a shape that is not constant"


def _resize_axes(site: _Site) -> str | None:
    dims = site.view.dims_of(site.node.input[0])
    by_scales = len(site.node.input) > 2 and site.node.input[2]
    if (
        not by_scales
        or dims is None
        or "axes" not in site.given
        or list(site.given["axes"]) == list(range(len(dims)))
    ):
        return None
    return f"has scales and axes={list(site.given['axes'])}, wanted all axes in order"


def _position_ids(site: _Site) -> str | None:
    found = (
        site.view.type_of(site.node.input[3]) if len(site.node.input) > 3 and site.node.input[3] else "INT64"
    )
    return None if found == "INT64" else f"has position_ids of {found}, wanted INT64"


def _real_signal(site: _Site) -> str | None:
    dims = site.view.dims_of(site.node.input[0])
    return (
        f"has a signal of shape {list(dims)}, wanted real values"
        if dims and len(dims) == 3 and dims[2] != 1
        else None
    )


CHECKS: dict[str, Callable[[_Site], str | None]] = {
    "AveragePool": _dilations, "DeformConv": _pads, "EyeLike": _static_input, "GRU": _activations,
    "Hardmax": _hardmax_axis, "LpPool": _dilations, "LSTM": _activations, "MaxPool": _dilations,
    "Resize": _resize_axes, "RNN": _activations, "RotaryEmbedding": _position_ids, "STFT": _real_signal,
    "TopK": _k,
}  # fmt: skip
"""Restrictions that are more than a choice of values."""
