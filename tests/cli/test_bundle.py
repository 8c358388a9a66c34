"""`zorro bundle ...`: what it prints, its exit status, and that a fault is told with its node."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from cli.inspection import NEEDS_ONNX
from cli.main import app
from export.bundle_writer import seal_bundle

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()


def _run(*arguments: object) -> tuple[int, str]:
    result = RUNNER.invoke(app, ["bundle", *map(str, arguments)], env={"COLUMNS": "200"})
    return result.exit_code, result.output


@pytest.fixture
def faulty(bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose audio graph asks whether its logits are NaN, sealed as if it had been exported so."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    path = copy / "fp32" / "audio.onnx"
    graph = onnx.load(path, load_external_data=False)
    for node in graph.graph.node:
        for i, name in enumerate(node.output):
            if name == "audio_logits":
                node.output[i] = "right"
    graph.graph.node.append(helper.make_node("IsNaN", ["right"], ["is_nan"], name="guard"))
    graph.graph.node.append(
        helper.make_node("Where", ["is_nan", "right", "right"], ["audio_logits"], name="choice")
    )
    path.write_bytes(onnx.shape_inference.infer_shapes(graph).SerializeToString())
    seal_bundle(copy, json.loads((copy / "bundle.json").read_text()))
    return copy


def test_verify_answers_for_every_variant(bundle: Path) -> None:
    status, output = _run("verify", bundle, "--json")
    assert status == 0
    report = json.loads(output)
    assert report["sha256"] == (bundle / "bundle.sha256").read_text().strip()
    assert report["variants"]["fp32"]["providers"] == {
        x: ["CPUExecutionProvider"] for x in ("audio", "fused", "video")
    }


def test_inspect_shows_facts_shapes_and_purity(bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "streams.svg"
    status, output = _run("inspect", bundle, "--picture", picture)
    assert status == 0
    assert "audio float32[batch, 64, 32]" in output
    assert "pure: nothing of another stream enters audio or video" in output
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    facts = json.loads(_run("inspect", bundle, "--json")[1])
    assert facts["fused"]["flow"]["leaks"] == {}
    assert facts["fused"]["gflops"] > facts["audio"]["gflops"] > 0


def test_inspect_without_onnx_gives_what_it_can_and_says_what_to_install(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = json.loads(_run("inspect", bundle, "--json")[1])
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = RUNNER.invoke(app, ["bundle", "inspect", str(bundle)], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [NEEDS_ONNX]
    assert "cpu,export" in NEEDS_ONNX
    assert all(len(line) <= 80 for line in result.stdout.splitlines())
    for told in (
        "4, scored by softmax",
        "0.64 s",
        "audio float32[batch, 64, 32]",
        "fusion_logits float32[batch, 4]",
    ):
        assert told in result.stdout
    assert "GFLOPs" not in result.stdout
    result = RUNNER.invoke(app, ["bundle", "inspect", str(bundle), "--json"])
    for graph, tensors in json.loads(result.stdout).items():
        assert tensors == {side: facts[graph][side] for side in ("inputs", "outputs")}


def test_a_picture_of_the_graphs_needs_onnx(bundle: Path, tmp_path: Path) -> None:
    code = "import sys; sys.modules['onnx'] = None; from cli.main import app; app(sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        code,
        "bundle",
        "inspect",
        str(bundle),
        "--picture",
        str(tmp_path / "a.svg"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    install = "pip install -c constraints.txt --editable '.[cpu,export]'"
    assert f"needs onnx, which is not installed: {install}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_inspect_of_a_variant_that_is_not_there_fails(bundle: Path) -> None:
    status, output = _run("inspect", bundle, "--variant", "fp16")
    assert status == 1
    assert "variant='fp16'; small/1 has fp32" in output


def test_audit_is_clean_and_names_what_it_did_not_do(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    status, output = _run("audit", bundle, "--json")
    assert status == 0
    assert "not parsed and not built" in output
    rows = json.loads(output.splitlines()[-1])
    assert [(row["variant"], row["graph"], row["faults"], row["engine"]) for row in rows] == [
        ("fp32", graph, [], {}) for graph in ("audio", "video", "fused")
    ]


def test_audit_tells_the_node_and_builds_nothing(faulty: Path) -> None:
    status, output = _run("audit", faulty)
    assert status == 1
    assert "IsNaN 'guard'" in output
    assert "1 of 3 graphs have faults" in output


def test_audit_of_a_version_that_nobody_knows_fails(bundle: Path) -> None:
    status, output = _run("audit", bundle, "--tensorrt", "3.0")
    assert status == 1
    assert "tensorrt='3.0' is not known" in output


@pytest.mark.slow
def test_engines_are_built_once_with_their_profiles(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    command = ("build", bundle, tmp_path, "--variant", "fp32", "--builder", "tensorrt-rtx", "--max-batch", 8)
    status, output = _run(*command)
    assert status == 0, output
    assert output.count(": built, ") == 3
    assert "not verified on hardware" in output or "loaded by the GPU" in output
    profiles = json.loads((tmp_path / "profiles.json").read_text())
    assert "video:8x2x32x32x3" in json.dumps(profiles)
    assert _run(*command)[1].count(": cached, ") == 3


def test_a_builder_that_is_not_installed_says_how_to_get_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    status, output = _run("build", bundle, tmp_path, "--variant", "fp32")
    assert status == 1
    assert "pip install tensorrt" in output


def test_triton_gets_three_models(bundle: Path, tmp_path: Path) -> None:
    status, output = _run("triton", bundle, tmp_path / "triton", "--max-batch-size", 4)
    assert status == 0
    assert "model: small_audio" in output
    for graph in ("audio", "video", "fused"):
        assert "max_batch_size: 4" in (tmp_path / "triton" / f"small_{graph}" / "config.pbtxt").read_text()
    assert _run("triton", bundle, tmp_path / "triton")[0] == 1


def test_triton_on_no_device_fails(bundle: Path, tmp_path: Path) -> None:
    status, output = _run("triton", bundle, tmp_path / "triton", "--device", "tpu")
    assert status == 1
    assert "tpu" in output
