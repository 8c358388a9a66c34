"""What no engine should have to run is named and refused: each fault is planted into a clean graph."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from export import graph_checks
from export.audit import AuditError, audit_graph
from export.graph_checks import FORBIDDEN_OPERATORS
from export.tensorrt.ops import PARSER_OPSETS
from media import Modality
from tests.export.made_graphs import (
    FLOAT,
    HALF,
    LAST,
    RELU,
    UINT8,
    X,
    Y,
    faults,
    floats,
    int8_linear,
    node,
    save,
    sole_fault,
)

# Clean graphs


@pytest.mark.parametrize("tensorrt", list(PARSER_OPSETS))
@pytest.mark.parametrize("opset", [17, 18, 20])
def test_a_plain_graph_passes_and_is_counted(tensorrt: str, opset: int, tmp_path: Path) -> None:
    report = audit_graph(save(tmp_path, [RELU, LAST], opset=opset), tensorrt=tensorrt)
    assert (report.file, report.tensorrt, report.opset, report.num_nodes) == ("made.onnx", tensorrt, opset, 2)
    assert report.operators == {"Relu": 1, "Neg": 1}
    assert report.element_types == {"FLOAT": 2}
    assert report.faults == ()


def test_a_symmetric_int8_graph_passes(tmp_path: Path) -> None:
    report = audit_graph(save(tmp_path, **int8_linear()))
    assert report.element_types == {"FLOAT": 4, "INT8": 1}


def test_mixed_precision_passes_where_norms_are_full(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", "audio gain", "n", name="norm"),
        node("Cast", "n", "h", name="halve", to=HALF),
        node("MatMul", "h w", "m", name="product"),
        node("Cast", "m", "x", name="widen", to=FLOAT),
        LAST,
    ]
    weights = {"gain": floats(8), "w": np.ones((8, 8), np.float16)}
    assert audit_graph(save(tmp_path, nodes, weights=weights)).element_types == {"FLOAT": 3, "FLOAT16": 2}


@pytest.mark.parametrize("modality", list(Modality))
@pytest.mark.parametrize("tensorrt", list(PARSER_OPSETS))
def test_exported_graphs_pass(modality: Modality, tensorrt: str, bundle: Path) -> None:
    paths = sorted(
        path for path in bundle.rglob(f"{modality}.onnx") if path.parent.name in ("fp32", bundle.name)
    )
    report = audit_graph(paths[0], tensorrt=tensorrt)
    assert report.operators["Softmax"] >= 2
    assert set(report.element_types) <= {"FLOAT", "INT64"}


def test_learned_tokens_may_be_repeated_once_for_each_clip(tmp_path: Path) -> None:
    batch = node("Shape", "audio", "b", name="batch", start=0, end=1)
    nodes = [batch, node("Concat", "b rest", "s", name="shape", axis=0), node("Expand", "tokens s"), LAST]
    weights = {"rest": np.array([4, 8]), "tokens": floats(4, 8)}
    assert faults(save(tmp_path, nodes, weights=weights)) == []
    batch.attribute[1].i = 2  # end: an axis that is fixed, and should be written as a number
    nodes[1].attribute[0].i = 0
    weights["rest"] = np.array([8])
    assert "'planted' takes a shape computed at run time from Shape 'batch'" in sole_fault(
        save(tmp_path, nodes, weights=weights)
    )


# Hygiene: for every graph


@pytest.mark.parametrize("for_tensorrt", [True, False])
@pytest.mark.parametrize("kind", sorted(FORBIDDEN_OPERATORS))
def test_a_forbidden_operator_fails_and_is_named(kind: str, for_tensorrt: bool, tmp_path: Path) -> None:
    extra = node(kind, "audio", "y", name="extra")
    path = save(tmp_path, [RELU, extra, LAST], infer=False)
    assert any(
        x.startswith(f"{kind} 'extra' {FORBIDDEN_OPERATORS[kind]}; ")
        for x in faults(path, for_tensorrt=for_tensorrt)
    )
    with pytest.raises(AuditError, match=f"{kind} 'extra' {FORBIDDEN_OPERATORS[kind]}"):
        audit_graph(path, for_tensorrt=for_tensorrt)


def test_an_operator_of_another_domain_fails(tmp_path: Path) -> None:
    fused = node("FusedGelu", "audio", name="gelu", domain="com.microsoft")
    with pytest.raises(AuditError, match=r"'gelu' is com\.microsoft\.FusedGelu, of another domain"):
        audit_graph(save(tmp_path, [fused, LAST], infer=False))


@pytest.mark.parametrize(("opset", "max_opset"), [(16, 20), (21, 20), (24, 23)])
def test_another_opset_fails(opset: int, max_opset: int, tmp_path: Path) -> None:
    path = save(tmp_path, [RELU, LAST], opset=opset)
    assert f"is of opset {opset}, wanted 17 to {max_opset}" in sole_fault(path, max_opset=max_opset)
    with pytest.raises(AuditError, match=f"opset {opset}, wanted 17 to {max_opset}; export it"):
        audit_graph(path, max_opset=max_opset, for_tensorrt=False)


def test_a_newer_opset_may_be_asked_for_where_tensorrt_reads_it(tmp_path: Path) -> None:
    path = save(tmp_path, [RELU, LAST], opset=23)
    assert audit_graph(path, max_opset=23).opset == 23
    assert sole_fault(path, max_opset=23, tensorrt="10.1").startswith(
        "graph 'made' is of opset 23, and TensorRT 10.1 reads 9 to 20"
    )


def test_a_domain_that_is_declared_alone_fails(tmp_path: Path) -> None:
    path = save(tmp_path, [RELU, LAST])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    assert "declares the domains ['', 'com.microsoft']" in sole_fault(path)


def test_names_are_there_and_differ(tmp_path: Path) -> None:
    nameless, twins = (
        node("Relu", "audio", "a", name=""),
        [node("Abs", *x, name="twin") for x in ("ab", "bc", "cx")],
    )
    found = faults(save(tmp_path, [nameless, *twins, LAST]))
    assert found == [
        "Relu 'maker of a' has no name; name it when exporting",
        "Abs 'twin' shares its name with 2 more nodes; name nodes apart",
    ]


def test_what_no_answer_needs_fails(tmp_path: Path) -> None:
    dead = [node("Abs", "audio", "a", name="feeds the dead"), node("Abs", "a", "b", name="dead")]
    inputs = X | {"video": (UINT8, ["batch", 2])}
    found = faults(save(tmp_path, [RELU, *dead, LAST], weights={"w": floats(2)}, inputs=inputs))
    assert found == [
        "Abs 'feeds the dead' is dead: no answer depends on it; remove it",
        "Abs 'dead' is dead: no answer depends on it; remove it",
        "weight 'w' is read by no node; remove it",
        "input 'video' is read by no node; remove it",
    ]


@pytest.mark.parametrize("batch", [2, "rows", None])
def test_a_batch_that_is_fixed_or_nameless_fails(batch: int | str | None, tmp_path: Path) -> None:
    inputs, outputs = (
        {name: (type_, [batch, *dims[1:]]) for name, (type_, dims) in x.items()} for x in (X, Y)
    )
    found = faults(save(tmp_path, [RELU, LAST], inputs=inputs, outputs=outputs))
    assert [x.split(" must have a first axis named batch")[0] for x in found] == [
        "input 'audio'",
        "output 'audio_logits'",
    ]


def test_another_dynamic_axis_than_the_batch_fails(tmp_path: Path) -> None:
    path = save(tmp_path, [RELU, LAST], inputs={"audio": (FLOAT, ["batch", "frames", 8])})
    assert faults(path, for_tensorrt=False) == [
        "input 'audio' must have a first axis named batch and fixed ones after it, and has [batch, frames, "
        "8]; "
        "export with the batch alone dynamic",
        "Relu 'first' makes 'x', whose shape [batch, frames, 8] is not inferred; infer shapes before saving",
    ]


def test_an_intermediate_without_a_shape_fails(tmp_path: Path) -> None:
    found = sole_fault(save(tmp_path, [RELU, LAST], infer=False))
    assert found == "Relu 'first' makes 'x', whose shape unknown is not inferred; infer shapes before saving"


def test_a_node_that_cannot_be_inferred_fails(tmp_path: Path) -> None:
    found = faults(save(tmp_path, [node("Where", "audio"), LAST], infer=False), for_tensorrt=False)
    assert any(re.match(r"graph 'made' cannot be inferred: .*Where.*; correct the node", x) for x in found)


def test_weights_that_are_not_whole_beside_the_graph_fail(tmp_path: Path) -> None:
    path = save(tmp_path, [node("Add", "audio w", name="sum"), LAST], weights={"w": floats(4, 8)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert faults(path) == []
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "weight 'w' ends at byte 128 of weights.bin, which has 127" in sole_fault(path)
    weights.unlink()
    assert "weight 'w' is in weights.bin, which is not there" in sole_fault(path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    assert "is in '../weights.bin', which is not beside the graph" in sole_fault(path)


def test_weights_too_large_for_a_graph_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, [node("Add", "audio w", name="sum"), LAST], weights={"w": floats(4, 8)})
    monkeypatch.setattr(graph_checks, "MAX_INLINE_BYTES", 200)
    assert faults(path) == []
    monkeypatch.setattr(graph_checks, "MAX_INLINE_BYTES", 4 * 4 * 8)  # name and axes come on top
    assert re.search(
        r"holds 1[34]\d bytes of weights, at most 128 can be; store them outside", sole_fault(path)
    )


def test_many_faults_are_counted_and_kept(tmp_path: Path) -> None:
    extra = [node("IsNaN", "audio", f"y{i}", name=f"n{i}") for i in range(10)]
    with pytest.raises(
        AuditError, match=r"has 20 faults: \(1\) IsNaN 'n0' is a guard.*\(8\) IsNaN 'n7'"
    ) as caught:
        audit_graph(save(tmp_path, [RELU, *extra, LAST]))
    assert len(caught.value.faults) == 20
    assert "n8" not in str(caught.value)
