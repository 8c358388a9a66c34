"""Engines: their keys, what is told to others about them, and, where tensorrt-rtx is installed, real
builds."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.tensorrt import engines
from export.tensorrt.builders import Builder, TimingCache, load_builder
from export.tensorrt.engines import BuiltEngine, build_engine, parse_graph
from export.tensorrt.keys import PORTABLE, EngineKey, engine_key, file_digests
from export.tensorrt.options import provider_options, trtexec_arguments, write_profiles
from export.tensorrt.profiles import EngineError, input_shapes
from export.weights_file import WEIGHTS_FILE, write_graphs
from media import Modality
from runtime.engines import Profile
from runtime.gpu import Gpu

ADA = Gpu(name="NVIDIA RTX 4090", capability="8.9", cuda="13.0")


def make_graph(
    *, operator: str = "Sigmoid", domain: str = "", batch: str | int = "batch", width: int = 16
) -> onnx.ModelProto:
    """`sigmoid(audio @ w)` of (batch, 16), with the 1 KiB of weights from which they are stored outside."""
    values = {
        n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 16]) for n in ("audio", "logits")
    }
    weights = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["audio", "w"], ["product"], name="model.head/MatMul"),
        helper.make_node(operator, ["product"], ["logits"], name=f"model.head/{operator}", domain=domain),
    ]
    tensors = [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "zorro_audio", [values["audio"]], [values["logits"]], tensors)
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_graphs([(Modality.AUDIO, make_graph())], tmp_path / "fp32")[Modality.AUDIO]


def save(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


# Shapes


def test_shapes_are_of_the_inputs_without_their_batch(graph: Path) -> None:
    assert input_shapes(graph) == {"audio": (16,)}


def test_a_fixed_batch_fails(tmp_path: Path) -> None:
    path = save(make_graph(batch=4), tmp_path / "audio.onnx")
    with pytest.raises(
        EngineError, match=r"audio.onnx: input audio has shape \[4, 16\]; wanted a free batch"
    ):
        input_shapes(path)


def test_a_second_free_axis_fails(tmp_path: Path) -> None:
    model = make_graph()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "frames"
    with pytest.raises(EngineError, match=r"input audio has shape \['free', 'free'\]"):
        input_shapes(save(model, tmp_path / "audio.onnx"))


@pytest.mark.parametrize("content", [b"", b"no graph at all", make_graph().SerializeToString()[:-40]])
def test_a_damaged_graph_fails(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "audio.onnx").write_bytes(content)
    with pytest.raises(EngineError, match=r"audio.onnx: (not an ONNX graph|holds no nodes)"):
        input_shapes(tmp_path / "audio.onnx")


def test_a_missing_graph_fails(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="video.onnx: no such file"):
        input_shapes(tmp_path / "video.onnx")


# Keys


def key_of(path: Path, profile: Profile | None = None, **changes: Any) -> EngineKey:
    wanted = {"builder": "tensorrt", "version": "11.0.0", "variant": "fp32", "gpu": ADA}
    return engine_key(path, profile or Profile(), **(wanted | changes))


def test_the_key_is_the_same_for_the_same_and_in_another_folder(graph: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(graph.parent, tmp_path / "copy")) / graph.name
    assert key_of(graph) == key_of(graph) == key_of(copied)
    assert len(key_of(graph).hex) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"builder": "tensorrt-rtx"},
        {"version": "11.0.1"},
        {"variant": "fp16"},
        {"profile": Profile(min=2)},
        {"profile": Profile(opt=16)},
        {"profile": Profile(max=64)},
        {"gpu": replace(ADA, name="NVIDIA L4")},
        {"gpu": replace(ADA, capability="8.6")},
        {"gpu": replace(ADA, cuda="12.9")},
        {"gpu": None},
        {"gpu": None, "capabilities": ("8.9",)},
    ],
    ids=str,
)
def test_the_key_changes_with_each_ingredient(graph: Path, changes: dict[str, Any]) -> None:
    assert key_of(graph, **changes).hex != key_of(graph).hex


def test_the_key_of_chosen_capabilities_is_not_that_of_others(graph: Path) -> None:
    keys = {key_of(graph, gpu=None, capabilities=c).hex for c in [(), ("8.9",), ("12.0",), ("8.9", "12.0")]}
    assert len(keys) == 4
    ordered, turned = (
        key_of(graph, gpu=None, capabilities=c).hex for c in [("8.9", "12.0"), ("12.0", "8.9")]
    )
    assert ordered == turned


def test_the_key_changes_with_the_platform(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(graph).hex
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert key_of(graph).hex != before


def test_the_key_changes_with_the_graph(graph: Path) -> None:
    before = key_of(graph).hex
    model = onnx.load(graph, load_external_data=False)
    model.graph.node[1].op_type = "Tanh"
    assert key_of(save(model, graph)).hex != before


def test_the_key_changes_with_a_bit_of_the_weights_that_lie_beside_the_graph(graph: Path) -> None:
    before = key_of(graph).hex
    weights = bytearray((graph.parent / WEIGHTS_FILE).read_bytes())
    weights[-1] ^= 1
    (graph.parent / WEIGHTS_FILE).write_bytes(weights)
    assert key_of(graph).hex != before


def test_the_key_tells_what_went_in(graph: Path) -> None:
    ingredients = key_of(graph, gpu=None).ingredients
    assert set(ingredients["files"]) == {"audio.onnx", "weights.bin"}
    assert ingredients["target"] == PORTABLE
    assert ingredients["settings"] == {"format": 1, "strongly_typed": True, "tf32": False}
    assert json.loads(json.dumps(ingredients)) == ingredients


def test_weights_that_are_not_beside_the_graph_fail(graph: Path) -> None:
    (graph.parent / WEIGHTS_FILE).unlink()
    with pytest.raises(EngineError, match="its weights weights.bin are not beside it"):
        file_digests(graph)


# What others are told


def test_the_options_of_tensorrt_give_the_profile_and_no_precision(graph: Path, tmp_path: Path) -> None:
    options = provider_options(graph, Profile(), tmp_path / "engines", variant="fp32")
    folders = [Path(options["TensorrtExecutionProvider"].pop("trt_engine_cache_path"))]
    folders.append(Path(options["NvTensorRTRTXExecutionProvider"].pop("nv_runtime_cache_path")))
    assert [folder.parent for folder in folders] == [tmp_path / "engines"] * 2
    assert folders[0] != folders[1]
    assert options["TensorrtExecutionProvider"] == {
        "trt_engine_cache_enable": "True",
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tmp_path / "engines"),
        "trt_profile_min_shapes": "audio:1x16",
        "trt_profile_opt_shapes": "audio:8x16",
        "trt_profile_max_shapes": "audio:32x16",
    }
    assert options["NvTensorRTRTXExecutionProvider"] == {
        "nv_profile_min_shapes": "audio:1x16",
        "nv_profile_opt_shapes": "audio:8x16",
        "nv_profile_max_shapes": "audio:32x16",
    }


def test_graphs_that_differ_in_weights_alone_do_not_share_a_folder(graph: Path, tmp_path: Path) -> None:
    def folder(profile: Profile = Profile(), variant: str = "fp32") -> str:  # noqa: B008 - frozen
        options = provider_options(graph, profile, tmp_path, variant=variant)
        return options["TensorrtExecutionProvider"]["trt_engine_cache_path"]

    folders = {folder(), folder(), folder(Profile(max=64)), folder(variant="fp16")}
    weights = graph.parent / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[::-1])
    folders.add(folder())
    assert len(folders) == 4


def test_options_of_a_fixed_batch_fail(tmp_path: Path) -> None:
    path = save(make_graph(batch=1), tmp_path / "audio.onnx")
    with pytest.raises(EngineError, match="wanted a free batch"):
        provider_options(path, Profile(), tmp_path, variant="fp32")


def test_the_command_of_trtexec(graph: Path) -> None:
    assert trtexec_arguments(graph, Profile(min=2, opt=4, max=6), Path("out/audio.engine")) == [
        "trtexec",
        f"--onnx={graph}",
        "--saveEngine=out/audio.engine",
        "--minShapes=audio:2x16",
        "--optShapes=audio:4x16",
        "--maxShapes=audio:6x16",
        "--stronglyTyped",
        "--noTF32",
        "--timingCacheFile=out/timing.cache",
        "--skipInference",
    ]


def test_the_command_of_a_missing_graph_fails(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no such file"):
        trtexec_arguments(tmp_path / "audio.onnx", Profile(), tmp_path / "audio.engine")


def test_profiles_are_written_with_the_folders_that_they_name(graph: Path, tmp_path: Path) -> None:
    path = write_profiles({Modality.AUDIO: graph}, Profile(), tmp_path / "engines", variant="fp32")
    written = json.loads(path.read_text())
    audio = written["graphs"]["audio"]
    folder = Path(audio["provider_options"]["TensorrtExecutionProvider"]["trt_engine_cache_path"])
    assert path == tmp_path / "engines" / "profiles.json"
    assert written["profile"] == {"min": 1, "opt": 8, "max": 32}
    assert folder.is_dir()
    assert audio["trtexec"] == trtexec_arguments(graph, Profile(), folder / "audio.engine")


# Builders


@pytest.mark.parametrize(
    ("name", "hint"), [("tensorrt", "NVIDIA's wheels"), ("tensorrt-rtx", "pip install tensorrt-rtx")]
)
def test_a_builder_that_is_not_installed_says_how_to(
    monkeypatch: pytest.MonkeyPatch, name: Any, hint: str
) -> None:
    module = name.replace("-", "_")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"module {module}, which is not installed: .*{hint}"):
        load_builder(name)


def test_a_module_that_a_builder_misses_is_not_mistaken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("import tensorrt_libs_of_nobody\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(ModuleNotFoundError, match="No module named 'tensorrt_libs_of_nobody'"):
        load_builder("tensorrt")


def test_an_unknown_builder_fails() -> None:
    with pytest.raises(ValueError, match="got builder 'openvino'; wanted one of tensorrt, tensorrt-rtx"):
        load_builder("openvino")  # type: ignore[arg-type]


class FakeConfig:
    def __init__(self) -> None:
        self.flags, self.profiles, self.timings = {"tf32"}, [], b""

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, stored: bytes) -> bytes:
        return stored

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        if cache.startswith(b"other GPU") and not ignore_mismatch:
            return False
        self.timings = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.timings + b"+build")


class FakeProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, Any] = {}

    def set_shape(self, name: str, low: Any, best: Any, high: Any) -> None:
        self.shapes[name] = [low, best, high]


class FakeTensorRT:
    """Only what needs a GPU: a TensorRT whose engine tells its settings and whose timings tell the builds
    before.

    Stands in for module, builder and runtime at once; real parsing and building are tested with tensorrt-rtx
    below.
    """

    BuilderFlag = SimpleNamespace(TF32="tf32")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=0)

    class ILogger:
        Severity = SimpleNamespace(ERROR=1)

    class IProgressMonitor:
        pass

    def __init__(self, *, loads: bool = True) -> None:
        self.loads, self.builds = loads, 0
        self.logger: Any = None

    def Builder(self, logger: Any) -> "FakeTensorRT":
        self.logger = logger
        return self

    Runtime = Builder

    def OnnxParser(self, network: Any, logger: Any) -> Any:
        return SimpleNamespace(parse_from_file=lambda path: True)

    def create_network(self, flags: int) -> Any:
        def tensor(i: int) -> Any:
            return SimpleNamespace(name="audio")

        return SimpleNamespace(
            flags=flags, num_layers=2, num_inputs=1, num_outputs=1, get_input=tensor, get_output=tensor
        )

    create_builder_config = staticmethod(FakeConfig)
    create_optimization_profile = staticmethod(FakeProfile)

    def build_serialized_network(self, network: Any, config: FakeConfig) -> bytes:
        self.builds += 1
        return json.dumps(
            [network.flags, sorted(config.flags), config.profiles, config.timings.decode()]
        ).encode()

    def deserialize_cuda_engine(self, content: bytes) -> bytes | None:
        if not self.loads:
            self.logger.log(1, "engine of another age")
        return content if self.loads else None


def fake_builder(**options: Any) -> Builder:
    return Builder(name="tensorrt", version="11.0.0", module=FakeTensorRT(**options))


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_gpu", lambda: ADA)


@pytest.mark.usefixtures("ada")
def test_tensorrt_builds_strongly_typed_without_tf32_for_the_profile(graph: Path, tmp_path: Path) -> None:
    engine = build_engine(graph, tmp_path / "out", fake_builder(), variant="fp32", profile=Profile(max=16))
    assert json.loads(engine.path.read_bytes()) == [1, [], [{"audio": [[1, 16], [8, 16], [16, 16]]}], ""]
    assert engine.verified_on_hardware
    assert engine.key.ingredients["target"] == {
        "name": "NVIDIA RTX 4090",
        "capability": "8.9",
        "cuda": "13.0",
    }


@pytest.mark.usefixtures("ada")
def test_timings_of_one_build_reach_the_next(graph: Path, tmp_path: Path) -> None:
    out, builder = tmp_path / "out", fake_builder()
    first = build_engine(graph, out, builder, variant="fp32")
    second = build_engine(graph, out, builder, variant="fp16")
    assert (first.timing_cache, second.timing_cache) == (TimingCache.NEW, TimingCache.READ)
    assert json.loads(second.path.read_bytes())[3] == "+build"
    assert (out / "timing.cache").read_bytes() == b"+build+build"


@pytest.mark.usefixtures("ada")
def test_timings_of_another_gpu_are_refused_and_replaced(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "timing.cache").write_bytes(b"other GPU")
    engine = build_engine(graph, tmp_path, fake_builder(), variant="fp32")
    assert engine.timing_cache is TimingCache.REFUSED
    assert (tmp_path / "timing.cache").read_bytes() == b"+build"


@pytest.mark.usefixtures("ada")
def test_an_engine_that_the_gpu_does_not_load_fails_and_is_not_kept(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="built, but the GPU does not load it: engine of another age"):
        build_engine(graph, tmp_path / "out", fake_builder(loads=False), variant="fp32")
    assert list(tmp_path.glob("out/**/*.engine")) == []


@pytest.mark.usefixtures("ada")
def test_capabilities_of_tensorrt_fail(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="builds for the GPU at hand alone"):
        build_engine(graph, tmp_path, fake_builder(), variant="fp32", capabilities=("8.9",))


@pytest.mark.usefixtures("ada")
def test_a_second_build_does_nothing_and_any_other_ingredient_builds_anew(
    graph: Path, tmp_path: Path
) -> None:
    builder = fake_builder()
    first = build_engine(graph, tmp_path / "out", builder, variant="fp32")
    again = build_engine(graph, tmp_path / "out", builder, variant="fp32")
    assert again == replace(first, cached=True)
    assert builder.module.builds == 1
    build_engine(graph, tmp_path / "out", builder, variant="fp32", profile=Profile(max=16))
    build_engine(graph, tmp_path / "out", replace(builder, version="11.0.1"), variant="fp32")
    weights = graph.parent / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[::-1])
    build_engine(graph, tmp_path / "out", builder, variant="fp32")
    assert builder.module.builds == 4
    assert len(list(tmp_path.glob("out/audio-*/audio.engine"))) == 4


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("damage", ["engine", "key", "no engine"])
def test_an_engine_that_is_not_whole_is_built_again(graph: Path, tmp_path: Path, damage: str) -> None:
    builder = fake_builder()
    first = build_engine(graph, tmp_path / "out", builder, variant="fp32")
    match damage:
        case "engine":
            first.path.write_bytes(first.path.read_bytes()[:-1])
        case "key":
            (first.path.parent / "key.json").write_text('{"key": ')
        case "no engine":
            first.path.unlink()
    again = build_engine(graph, tmp_path / "out", builder, variant="fp32")
    assert not again.cached
    assert json.loads(again.path.read_bytes())[0] == 1


@pytest.mark.usefixtures("ada")
def test_the_key_lies_beside_the_engine(graph: Path, tmp_path: Path) -> None:
    engine = build_engine(graph, tmp_path, fake_builder(), variant="fp32")
    stored = json.loads((engine.path.parent / "key.json").read_text())
    assert stored["key"] == engine.key.hex
    assert stored["ingredients"] == engine.key.ingredients
    assert engine.path.parent.name == f"audio-{engine.key.hex[:16]}"
    assert sorted(p.name for p in engine.path.parent.iterdir()) == ["audio.engine", "key.json"]


def test_tensorrt_without_a_gpu_fails(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_gpu", lambda: None)
    with pytest.raises(
        EngineError, match="needs the GPU that it builds for, and there is none; use tensorrt-rtx"
    ):
        build_engine(graph, tmp_path / "out", fake_builder(), variant="fp32")
    with pytest.raises(EngineError, match="use tensorrt-rtx"):
        parse_graph(graph, fake_builder())


# Real builds


@pytest.fixture(scope="module")
def rtx() -> Builder:
    pytest.importorskip("tensorrt_rtx")
    return load_builder("tensorrt-rtx")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_gpu", lambda: None)


@pytest.fixture
def exported(rtx: Builder, request: pytest.FixtureRequest) -> Path:
    """The folder of an exported model's float32 graphs; made only where it is used."""
    found = sorted(request.getfixturevalue("bundle").rglob("fused.onnx"))
    return next((path.parent for path in found if path.parent.name == "fp32"), found[0].parent)


def test_rtx_parses_an_exported_graph(exported: Path, rtx: Builder) -> None:
    parsed = parse_graph(exported / "fused.onnx", rtx)
    assert parsed.inputs == ("audio", "video")
    assert parsed.outputs[:3] == ("audio_features", "audio_embedding", "audio_logits")
    assert len(parsed.outputs) == 9
    assert parsed.layers > 100


@pytest.mark.slow
@pytest.mark.usefixtures("no_gpu")
def test_rtx_builds_an_exported_graph_and_tells_how_far_it_is(
    exported: Path, rtx: Builder, tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    path = exported / "audio.onnx"
    engine = build_engine(path, tmp_path, rtx, variant="fp32", on_progress=lambda *step: told.append(step))
    assert (engine.cached, engine.verified_on_hardware) == (False, False)
    assert engine.bytes == engine.path.stat().st_size > (path.parent / WEIGHTS_FILE).stat().st_size / 10
    assert engine.layers == parse_graph(path, rtx).layers
    assert engine.timing_cache is TimingCache.UNSUPPORTED
    assert not (tmp_path / "timing.cache").exists()
    whole = [(done, total) for phase, done, total in told if phase == "Building engine"]
    assert whole[0] == (0, whole[0][1])
    assert whole[-1] == (whole[0][1], whole[0][1])
    assert all(0 <= done <= total for _, done, total in told)
    told.clear()
    again = build_engine(path, tmp_path, rtx, variant="fp32", on_progress=lambda *step: told.append(step))
    assert (again, told) == (replace(engine, cached=True), [])


@pytest.mark.usefixtures("no_gpu")
def test_rtx_builds_for_chosen_capabilities(graph: Path, rtx: Builder, tmp_path: Path) -> None:
    chosen: BuiltEngine = build_engine(graph, tmp_path, rtx, variant="fp32", capabilities=("8.9", "12.0"))
    portable = build_engine(graph, tmp_path, rtx, variant="fp32")
    assert chosen.path.parent != portable.path.parent
    assert chosen.key.ingredients["target"] == ["12.0", "8.9"]


def test_rtx_refuses_a_capability_that_it_does_not_know(graph: Path, rtx: Builder, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"compute capability '5.0'; it knows SM75, "):
        build_engine(graph, tmp_path, rtx, variant="fp32", capabilities=("5.0",))


def test_rtx_names_the_node_that_it_cannot_build(graph: Path, rtx: Builder, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot build it: .*model.head/MatMul.* for Turing .*FP32 GEMM"):
        build_engine(graph, tmp_path, rtx, variant="fp32", capabilities=("7.5",))
    assert list(tmp_path.rglob("*.engine")) == []


def test_rtx_names_the_node_that_it_cannot_parse(rtx: Builder, tmp_path: Path) -> None:
    path = save(make_graph(operator="Wobble", domain="acme"), tmp_path / "audio.onnx")
    with pytest.raises(
        EngineError, match=r"audio.onnx: .*node model.head/Wobble \(Wobble\): .*Plugin not found"
    ):
        parse_graph(path, rtx)


def test_rtx_fails_on_weights_that_are_cut_short(graph: Path, rtx: Builder) -> None:
    (graph.parent / WEIGHTS_FILE).write_bytes(b"short")
    with pytest.raises(EngineError, match="cannot parse it"):
        parse_graph(graph, rtx)


def test_rtx_fails_on_a_damaged_graph(graph: Path, rtx: Builder) -> None:
    graph.write_bytes(graph.read_bytes()[:-20])
    with pytest.raises(EngineError, match=r"audio.onnx: not an ONNX graph, or cut short"):
        parse_graph(graph, rtx)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_what_the_callback_raises_ends_the_build(
    graph: Path, rtx: Builder, tmp_path: Path, failure: type[BaseException]
) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        raise failure("enough")

    with pytest.raises(failure, match="enough"):
        build_engine(graph, tmp_path / "out", rtx, variant="fp32", on_progress=stop)
    assert not (tmp_path / "out").exists()
