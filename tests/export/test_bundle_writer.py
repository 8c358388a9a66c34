"""A bundle appears whole or not at all, holds each weight once, and says truly what is in it.

Most tests do without the slow exporter: graphs of a bundle that is there are put in its place, some of them
damaged.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from torch import nn

from export.atomic_folder import replace_folder
from export.audit import AuditError
from export.bundle_writer import ExportOptions, export_checkpoint
from export.golden import golden_inputs
from export.parity import ParityError
from export.purity import ImpureGraphError
from export.to_onnx import _fold_transposed_weights
from media import Clip, ClipSpec, Modality
from media.progress import NO_FIGURES
from models.weights import load_checkpoint, save_checkpoint
from runtime import Zorro, read_bundle
from tests.known_graphs import known_graphs
from tests.tiny_bundle import make_tiny_checkpoint

Damage = Callable[[Path], None]


def _nothing(_: Path) -> None:
    pass


@pytest.fixture
def quick(bundle: Path) -> Iterator[Callable[[Damage], None]]:
    """Take the graphs from `bundle`, then damage them."""
    with ExitStack() as stack:
        yield lambda damage: stack.enter_context(known_graphs(bundle, damage))


def _edit(path: Path, *, output: str, nodes: list[onnx.NodeProto]) -> None:
    """Rename what makes `output` to `right`, and add nodes that make it anew."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == output:
                node.output[i] = "right"
    model.graph.node.extend(nodes)
    path.write_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())


def _leak(folder: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["video"], ["as_float"], name="cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["mean"], name="average", keepdims=0),
        helper.make_node("Add", ["right", "mean"], ["audio_logits"], name="leak"),
    ]
    _edit(folder / "fused.onnx", output="audio_logits", nodes=nodes)


def _guard(folder: Path) -> None:
    nodes = [
        helper.make_node("IsNaN", ["right"], ["is_nan"], name="guard"),
        helper.make_node("Where", ["is_nan", "right", "right"], ["audio_logits"]),
    ]
    _edit(folder / "audio.onnx", output="audio_logits", nodes=nodes)


def _nudge(folder: Path) -> None:
    """By more than 1e-4, which is allowed here, and less than 1e-3, which is allowed on another machine."""
    nudge = helper.make_tensor("nudge", onnx.TensorProto.FLOAT, [], [5e-4])
    nodes = [
        helper.make_node("Constant", [], ["step"], name="step", value=nudge),
        helper.make_node("Add", ["right", "step"], ["audio_logits"], name="nudge"),
    ]
    _edit(folder / "audio.onnx", output="audio_logits", nodes=nodes)


def _harm(folder: Path) -> None:
    weights = np.fromfile(folder / "weights.bin", np.float32)
    (weights + 0.01).tofile(folder / "weights.bin")


@pytest.mark.parametrize(
    ("damage", "error", "match"),
    [
        (_leak, ImpureGraphError, "audio_logits reads"),
        (_guard, AuditError, "IsNaN 'guard' is a guard"),
        (_harm, ParityError, "max_abs_error"),
        (_nudge, ParityError, "max_abs_error=0.0005"),
    ],
)
def test_a_bad_graph_is_not_exported_and_leaves_nothing(
    damage: Damage,
    error: type[Exception],
    match: str,
    quick: Callable[[Damage], None],
    checkpoint: Path,
    tmp_path: Path,
) -> None:
    quick(damage)
    with pytest.raises(error, match=match):
        export_checkpoint(checkpoint, tmp_path / "small" / "1", name="small", version="1")
    assert list((tmp_path / "small").iterdir()) == []


@pytest.mark.slow
def test_force_replaces_and_refusal_keeps(
    quick: Callable[[Damage], None], checkpoint: Path, tmp_path: Path
) -> None:
    quick(_nothing)
    out = tmp_path / "small" / "1"
    export_checkpoint(
        checkpoint,
        out,
        name="small",
        version="1",
        options=ExportOptions(model_card="# First\n", about={"licence": "none"}),
    )
    (out / "old.txt").touch()
    with pytest.raises(FileExistsError, match="choose another version, or force"):
        export_checkpoint(checkpoint, out, name="small", version="1")
    assert (out / "old.txt").exists()
    quick(_leak)
    with pytest.raises(ImpureGraphError):
        export_checkpoint(checkpoint, out, name="small", version="1", force=True)
    assert Zorro.open(out).bundle.manifest["about"] == {"licence": "none"}
    quick(_nothing)
    export_checkpoint(
        checkpoint, out, name="small", version="1", options=ExportOptions(model_card="# Second\n"), force=True
    )
    assert (out / "MODEL_CARD.md").read_text() == "# Second\n"
    assert not (out / "old.txt").exists()
    assert [path.name for path in out.parent.iterdir()] == ["1"]


def test_what_was_there_comes_back_if_the_move_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "kept").touch()
    with pytest.raises(OSError, match="not_made"):
        replace_folder(tmp_path / "not_made", out, aside=tmp_path / "aside")
    assert (out / "kept").exists()
    with pytest.raises(OSError, match="not_made"):
        replace_folder(tmp_path / "not_made", tmp_path / "new", aside=tmp_path / "aside")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_parity_on_given_clips_is_reported_beside_the_golden(
    quick: Callable[[Damage], None], checkpoint: Path, spec: ClipSpec, tmp_path: Path
) -> None:
    quick(_nothing)
    audio = golden_inputs(spec)["audio"]
    clips = {Modality.AUDIO: [Clip(0, 1, sound + 0.5, None, 1, 0, False, False) for sound in audio]}
    told: list[tuple[str, int, int]] = []
    out = export_checkpoint(
        checkpoint,
        tmp_path / "small" / "1",
        name="small",
        version="1",
        options=ExportOptions(clips=clips),
        on_progress=lambda stage, done, total, figures=NO_FIGURES: told.append((stage, done, total)),
    )
    parity = Zorro.open(out).bundle.manifest["variants"]["fp32"]["parity"]
    assert len(parity["golden"]) == 5
    assert [(report["graph"], report["clips"]) for report in parity["real"]] == [("audio", 4)]
    steps = [
        ("fp32", done, 5) for done in range(1, 6)
    ]  # written, audited, pure, and equal on two sources of clips
    assert told == [("graphs", 3, 3), *steps, ("self-test", 0, 1), ("self-test", 1, 1)]


@pytest.mark.parametrize(
    ("name", "version"), [("", "1"), ("a/b", "1"), ("..", "1"), ("a", ""), ("a", "1 2"), ("a", ".p")]
)
def test_a_name_that_is_no_folder_fails(name: str, version: str, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give letters, digits"):
        export_checkpoint(checkpoint, tmp_path / "out", name=name, version=version)


def test_labels_that_are_not_those_of_the_logits_fail(tmp_path: Path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "checkpoint", num_classes=4, num_labels=3)
    with pytest.raises(ValueError, match="3 labels for 4 logits"):
        export_checkpoint(checkpoint, tmp_path / "out", name="tiny", version="1")


def test_the_manifest_says_what_is_there(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    there = {p.relative_to(bundle).as_posix(): p for p in bundle.rglob("*") if p.is_file()}
    assert manifest["files"].keys() == there.keys() - {"bundle.json", "bundle.sha256"}
    for name, sha256 in manifest["files"].items():
        assert hashlib.sha256(there[name].read_bytes()).hexdigest() == sha256
    for modality in Modality:
        graph = onnx.load(bundle / "fp32" / f"{modality}.onnx", load_external_data=False)
        described = manifest["variants"]["fp32"]["graphs"][modality]
        for side, values in (("inputs", graph.graph.input), ("outputs", graph.graph.output)):
            shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values]
            assert [(x["name"], x["shape"]) for x in described[side]] == [
                (v.name, s) for v, s in zip(values, shapes, strict=True)
            ]
        props = {prop.key: prop.value for prop in graph.metadata_props}
        assert props == {"clip_spec_hash": manifest["clip_spec_hash"], "modality": str(modality)}
    assert {report["graph"] for report in manifest["variants"]["fp32"]["parity"]["golden"]} == {
        "audio",
        "video",
        "fused",
    }
    assert manifest["variants"]["fp32"]["purity"]["fused"]["audio_logits"] == ["audio"]


def test_each_weight_is_stored_once_under_one_name(bundle: Path) -> None:
    spans: dict[tuple[int, int], set[str]] = {}
    for modality in Modality:
        for tensor in onnx.load(
            bundle / "fp32" / f"{modality}.onnx", load_external_data=False
        ).graph.initializer:
            stored = {entry.key: entry.value for entry in tensor.external_data}
            if stored:
                assert stored["location"] == "weights.bin"
                spans.setdefault((int(stored["offset"]), int(stored["length"])), set()).add(tensor.name)
    assert all(len(names) == 1 and next(iter(names)).startswith("model.") for names in spans.values())
    assert len({name for names in spans.values() for name in names}) == len(spans)
    assert all(start + length <= next_start for (start, length), (next_start, _) in pairwise(sorted(spans)))
    assert sum(length for _, length in spans) > 0.75 * (bundle / "fp32" / "weights.bin").stat().st_size


def test_a_transposed_weight_is_stored_as_it_is_read() -> None:
    """As the exporter leaves it where two nodes share a matrix; a transpose of anything else stays."""
    weight, cube = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3, 1), np.float32)
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("audio", "x", "y", "z")
    ]
    nodes = [
        helper.make_node("Transpose", ["model.w"], ["w_t"], perm=[1, 0]),
        helper.make_node("Transpose", ["cube"], ["z"], perm=[2, 0, 1]),
        helper.make_node("MatMul", ["audio", "w_t"], ["x"]),
        helper.make_node("MatMul", ["x", "w_t"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "shared", values[:1], values[1:])
    weights = {"model.w": weight, "cube": cube}
    _fold_transposed_weights(graph, weights, nn.Module())
    assert [node.op_type for node in graph.node] == ["Transpose", "MatMul", "MatMul"]
    np.testing.assert_array_equal(weights["model.w.T"], weight.T)
    assert [list(node.input) for node in graph.node[1:]] == [["audio", "model.w.T"], ["x", "model.w.T"]]


def test_nothing_of_the_exporting_machine_is_in_a_graph(bundle: Path) -> None:
    for path in (*bundle.glob("*/*.onnx"), bundle / "bundle.json"):
        content = path.read_bytes()
        for trace in (
            str(Path(__file__).parents[2]).encode(),
            b"site-packages",
            b".py",
            str(Path.home()).encode() + b"/",
        ):
            assert trace not in content


def test_golden_clips_are_rich_and_the_same_each_time(spec: ClipSpec) -> None:
    first, second = golden_inputs(spec), golden_inputs(spec)
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
        assert all(clip.std() > 1 for clip in array)
        assert len({clip.tobytes() for clip in array}) == len(array)


DECISION = {"known_labels_only": True, "threshold": {"audio": 0.5, "fused": 0.25}}


def _with_decision(checkpoint: Path, folder: Path, decision: object) -> Path:
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(
        folder,
        loaded.model,
        clip_spec=loaded.clip_spec,
        labels=loaded.labels,
        recipe={"multi_label": True},
        decision=decision,
    )
    return folder


def test_a_decision_comes_from_the_checkpoint_or_from_the_options(
    bundle: Path, checkpoint: Path, tmp_path: Path
) -> None:
    source, other = _with_decision(checkpoint, tmp_path / "run", DECISION), {"threshold": {"video": 1}}
    wanted = [
        (None, DECISION),
        (other, {"known_labels_only": False, "threshold": {"video": 1.0}}),
        ({}, None),
    ]
    with known_graphs(bundle):
        for version, (given, written) in enumerate(wanted):
            options = ExportOptions(decision=given)
            made = export_checkpoint(
                source, tmp_path / str(version), name="a", version=str(version), options=options
            )
            manifest = read_bundle(made).manifest
            assert manifest.get("decision") == written
            assert "decision" not in manifest["training"], "it is said once"


@pytest.mark.parametrize(
    ("decision", "said"), [({"threshold": {"audio": 2}}, "threshold.audio=2"), ([], "decision is")]
)
def test_a_decision_that_is_none_is_refused(
    decision: object, said: str, checkpoint: Path, tmp_path: Path
) -> None:
    source = _with_decision(checkpoint, tmp_path / "run", decision)
    with pytest.raises(ValueError, match=said):
        export_checkpoint(source, tmp_path / "out", name="a", version="1")
    assert not (tmp_path / "out").exists()


def test_a_decision_for_labels_that_compete_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for scores=sigmoid, got scores=softmax"):
        export_checkpoint(
            checkpoint, tmp_path / "out", name="a", version="1", options=ExportOptions(decision=DECISION)
        )
