"""What an engine could not run, or what would hide a mask, is named and refused."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from export.audit import FORBIDDEN, AuditError, audit_graph
from media import Modality


def _graph(
    path: Path, nodes: list[onnx.NodeProto], *, batch: int | str = "batch", opset: int = 20, infer: bool = True
) -> Path:
    inputs = [helper.make_tensor_value_info("audio", TensorProto.FLOAT, [batch, 3])]
    outputs = [helper.make_tensor_value_info("audio_logits", TensorProto.FLOAT, [batch, 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "made", inputs, outputs), opset_imports=[helper.make_opsetid("", opset)]
    )
    onnx.save(onnx.shape_inference.infer_shapes(model) if infer else model, path)
    return path


RELU = helper.make_node("Relu", ["audio"], ["x"], name="first")
LAST = helper.make_node("Neg", ["x"], ["audio_logits"], name="last")


@pytest.mark.parametrize("modality", list(Modality))
def test_exported_graphs_pass(modality: Modality, bundle: Path) -> None:
    audit_graph(bundle / f"{modality}.onnx")


def test_a_plain_graph_passes(tmp_path: Path) -> None:
    audit_graph(_graph(tmp_path / "a.onnx", [RELU, LAST]))


@pytest.mark.parametrize("kind", sorted(FORBIDDEN))
def test_a_forbidden_operator_fails_and_is_named(kind: str, tmp_path: Path) -> None:
    extra = helper.make_node(kind, ["audio"], ["y"], name="extra")
    path = _graph(tmp_path / "a.onnx", [RELU, extra, LAST], infer=False)
    with pytest.raises(AuditError, match=f"node 'extra' is {kind}: "):
        audit_graph(path)


def test_an_operator_of_another_domain_fails(tmp_path: Path) -> None:
    fused = helper.make_node("FusedGelu", ["audio"], ["x"], name="gelu", domain="com.microsoft")
    with pytest.raises(AuditError, match=r"'gelu' is com\.microsoft\.FusedGelu"):
        audit_graph(_graph(tmp_path / "a.onnx", [fused, LAST], infer=False))


def test_another_opset_fails(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="wanted 20"):
        audit_graph(_graph(tmp_path / "a.onnx", [RELU, LAST], opset=18))


@pytest.mark.parametrize("batch", [2, "rows"])
def test_a_batch_that_is_fixed_or_nameless_fails(batch: int | str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="audio must have a first axis named batch"):
        audit_graph(_graph(tmp_path / "a.onnx", [RELU, LAST], batch=batch))


def test_an_intermediate_without_a_shape_fails(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="shape of 'x', made by node 'first', is not inferred"):
        audit_graph(_graph(tmp_path / "a.onnx", [RELU, LAST], infer=False))


def test_many_faults_are_counted(tmp_path: Path) -> None:
    extra = [helper.make_node("IsNaN", ["audio"], [f"y{i}"], name=f"n{i}") for i in range(10)]
    with pytest.raises(AuditError, match=r"has 2[01] faults; .*n3"):
        audit_graph(_graph(tmp_path / "a.onnx", [RELU, *extra, LAST], infer=False))
