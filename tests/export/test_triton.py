"""What Triton reads is checked against its own schema, and against the graphs.

The graphs answer from where they are put.

The schema is that of `tritonclient`; its module is loaded by itself, since the package around it wants gRPC.
"""

import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from export import triton
from export.pbtxt import render_text
from export.triton import Provenance, TritonDevice, TritonOptions, describe_model, write_triton
from export.weights_file import write_graphs
from media import Modality
from service.open_inference import split_body

ROOT = Path(__file__).parents[2]
AUDIO, VIDEO, LABELS = [16, 8], [2, 4, 4, 3], ["zither", "apple", "mower", "bee", "cow"]
PROVENANCE = Provenance(
    name="made",
    version="3",
    variant="fp32",
    clip_spec_hash="5pec",
    bundle_sha256="0123456789abcdef" * 4,
)
TYPES = {"TYPE_FP32": TensorProto.FLOAT, "TYPE_UINT8": TensorProto.UINT8}
NUMPY = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8}
INPUTS = {Modality.AUDIO: ["audio"], Modality.VIDEO: ["video"], Modality.FUSED: ["audio", "video"]}


def _graph(
    modality: Modality, *, batch: int | str = "batch", kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Logits and features of each input by one product, whose weights are shared by the graphs."""
    shapes = {"audio": (AUDIO, kind), "video": (VIDEO, TensorProto.UINT8)}
    rng = np.random.default_rng(0)
    weights = {
        x: rng.standard_normal((np.prod(shape), 5)).astype(np.float32) for x, (shape, _) in shapes.items()
    }
    nodes, outputs = [], []
    for name in INPUTS[modality]:
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", [f"{name}_float"], [f"{name}_flat"]),
            helper.make_node("MatMul", [f"{name}_flat", f"{name}.W"], [f"{name}_logits"]),
            helper.make_node("Tanh", [f"{name}_logits"], [f"{name}_features"]),
        ]
        for answer in ("features", "logits"):
            outputs.append(helper.make_tensor_value_info(f"{name}_{answer}", TensorProto.FLOAT, [batch, 5]))
    inputs = [
        helper.make_tensor_value_info(x, shapes[x][1], [batch, *shapes[x][0]]) for x in INPUTS[modality]
    ]
    stored = [numpy_helper.from_array(weights[x], f"{x}.W") for x in INPUTS[modality]]
    model = helper.make_model(
        helper.make_graph(nodes, "made", inputs, outputs, stored),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    helper.set_model_props(model, {"clip_spec_hash": "5pec"})
    return model


@pytest.fixture
def graphs(tmp_path: Path) -> dict[Modality, Path]:
    return write_graphs([(modality, _graph(modality)) for modality in Modality], tmp_path / "bundle")


@pytest.fixture
def write(graphs: dict[Modality, Path], tmp_path: Path) -> Callable[..., triton.TritonRepository]:
    def write(**changed: Any) -> triton.TritonRepository:
        given = {
            "graphs": graphs,
            "out": tmp_path / "repository",
            "labels": LABELS,
            "provenance": PROVENANCE,
        }
        return write_triton(**(given | changed))

    return write


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's ModelConfig."""
    package = importlib.util.find_spec("tritonclient")
    if package is None:
        pytest.skip("no tritonclient here: pip install '.[dev]'")
    path = Path(package.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture
def read(schema: Any) -> Callable[[str | Path], Any]:
    """Parse a configuration; unknown fields, values of no enum and repeated single fields fail."""

    def read(config: str | Path) -> Any:
        return text_format.Parse(config if isinstance(config, str) else config.read_text(), schema())

    return read


def name_of(kind: str, value: Any) -> str:
    return value.DESCRIPTOR.fields_by_name[kind].enum_type.values_by_number[getattr(value, kind)].name


def differences(config: Any, graph: onnx.ModelProto) -> list[str]:
    """Where the tensors of a configuration are not those of a graph."""
    found = []
    for said, there in ((config.input, graph.graph.input), (config.output, graph.graph.output)):
        said_tensors = {x.name: (TYPES[name_of("data_type", x)], ["batch", *x.dims]) for x in said}
        tensors = {
            x.name: (
                x.type.tensor_type.elem_type,
                [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim],
            )
            for x in there
        }
        found += [
            name
            for name in said_tensors.keys() | tensors.keys()
            if said_tensors.get(name) != tensors.get(name)
        ]
    return sorted(found)


def run(path: Path, batch: int = 3) -> Mapping[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    inputs = {
        x.name: rng.integers(0, 256, (batch, *x.shape[1:])).astype(
            np.uint8 if "uint8" in x.type else np.float32
        )
        for x in session.get_inputs()
    }
    names = [x.name for x in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def test_three_models_and_nothing_else(write: Callable[..., triton.TritonRepository], tmp_path: Path) -> None:
    repository = write()
    each = {"1/model.onnx", "1/weights.bin", "config.pbtxt", "labels.txt"}
    wanted = {f"made_{modality}/{file}" for modality in ("audio", "video", "fused") for file in each}
    assert {path.relative_to(tmp_path / "repository").as_posix() for path in repository.files} == wanted
    assert set(repository.models) == {"made_audio", "made_video", "made_fused"}
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "repository"}
    assert (tmp_path / "repository").stat().st_mode & 0o055 == 0o055 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("modality", list(Modality))
def test_tensors_are_those_of_the_graph(
    modality: Modality, write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    folder = write().path / f"made_{modality}"
    config, graph = (
        read(folder / "config.pbtxt"),
        onnx.load(folder / "1" / "model.onnx", load_external_data=False),
    )
    assert differences(config, graph) == []
    assert [x.name for x in config.input] == INPUTS[modality]
    assert {x.name: x.label_filename for x in config.output} == {
        f"{name}_{answer}": "labels.txt" if answer == "logits" else ""
        for name in INPUTS[modality]
        for answer in ("features", "logits")
    }


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("dims: [16, 8]", "dims: [8, 16]", ["audio"]),
        ("dims: [16, 8]", "dims: [1, 16, 8]", ["audio"]),
        ("data_type: TYPE_UINT8", "data_type: TYPE_FP32", ["video"]),
        ('name: "video_logits"', 'name: "video_scores"', ["video_logits", "video_scores"]),
    ],
)
def test_tensors_are_those_of_the_graph_fails(
    old: str, new: str, where: list[str], write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    folder = write().path / "made_fused"
    text = (folder / "config.pbtxt").read_text()
    assert old in text
    graph = onnx.load(folder / "1" / "model.onnx", load_external_data=False)
    assert differences(read(text.replace(old, new, 1)), graph) == where


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("backend:", "backends:", 'no field named "backends"'),
        ("max_queue_delay_microseconds:", "max_queue_delay_ms:", 'no field named "max_queue_delay_ms"'),
        ("TYPE_FP32", "TYPE_FLOAT32", "no value named TYPE_FLOAT32"),
        ("max_batch_size: 32", 'max_batch_size: "32"', "Couldn't parse integer"),
        ("max_batch_size: 32", "max_batch_size: 32\nmax_batch_size: 16", "should not have multiple"),
        ("default_queue_policy {", "default_queue_policy: [", 'Expected "{"'),
    ],
)
def test_the_schema_refuses(
    old: str, new: str, message: str, write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    text = (write().path / "made_fused" / "config.pbtxt").read_text()
    assert old in text
    with pytest.raises(text_format.ParseError, match=re.escape(message)):
        read(text.replace(old, new, 1))


def test_defaults_wait_for_nobody_and_bound_the_queue(
    write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    config = read(write().path / "made_video" / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("made_video", "onnxruntime", 32)
    assert config.HasField("dynamic_batching")
    batching = config.dynamic_batching
    assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([], 0)
    queue = batching.default_queue_policy
    assert (name_of("timeout_action", queue), queue.max_queue_size) == ("REJECT", 1024)
    assert (queue.default_timeout_microseconds, queue.allow_timeout_override) == (60_000_000, True)
    assert [(name_of("kind", x), x.count, list(x.gpus)) for x in config.instance_group] == [
        ("KIND_CPU", 1, [])
    ]
    assert not config.HasField("optimization")
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "version": "3",
        "variant": "fp32",
        "clip_spec_hash": "5pec",
        "bundle_sha256": "0123456789abcdef" * 4,
    }


def test_options_arrive(write: Callable[..., Any], read: Callable[..., Any]) -> None:
    options = TritonOptions(
        instances=4,
        threads=2,
        max_batch_size=24,
        preferred_batch_sizes=(8, 16),
        max_queue_delay_microseconds=500,
        max_queue_size=7,
        queue_timeout_microseconds=9,
    )
    config = read(write(options=options).path / "made_audio" / "config.pbtxt")
    batching = config.dynamic_batching
    assert (config.max_batch_size, list(batching.preferred_batch_size)) == (24, [8, 16])
    assert batching.max_queue_delay_microseconds == 500
    queue = batching.default_queue_policy
    assert (queue.max_queue_size, queue.default_timeout_microseconds) == (7, 9)
    assert config.instance_group[0].count == 4
    assert config.parameters["intra_op_thread_count"].string_value == "2"


def test_tensorrt_has_one_profile_and_engines_by_bundle(
    write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    options = TritonOptions(
        device=TritonDevice.GPU,
        tensorrt=True,
        engine_cache='/engines "of" c:\\',
        max_batch_size=16,
        preferred_batch_sizes=(4, 8),
    )
    config = read(
        write(options=options, provenance=replace(PROVENANCE, variant="fp16")).path
        / "made_fused"
        / "config.pbtxt"
    )
    assert [(name_of("kind", x), x.count) for x in config.instance_group] == [("KIND_GPU", 1)]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {  # no precision_mode: the graph's types hold
        "trt_profile_min_shapes": "audio:1x16x8,video:1x2x4x4x3",
        "trt_profile_opt_shapes": "audio:8x16x8,video:8x2x4x4x3",
        "trt_profile_max_shapes": "audio:16x16x8,video:16x2x4x4x3",
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": '/engines "of" c:\\',
        "trt_engine_cache_prefix": "made_fused_fp16_0123456789abcdef",
    }
    assert not config.optimization.execution_accelerators.cpu_execution_accelerator


def test_a_gpu_without_tensorrt_has_no_accelerator(
    write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    config = read(
        write(options=TritonOptions(device=TritonDevice.GPU, instances=2)).path
        / "made_audio"
        / "config.pbtxt"
    )
    assert [(name_of("kind", x), x.count) for x in config.instance_group] == [("KIND_GPU", 2)]
    assert not config.HasField("optimization")


@pytest.mark.parametrize("max_batch_size", [1, 32])
def test_a_warm_up_is_a_batch_that_the_graph_answers(
    max_batch_size: int, write: Callable[..., Any], read: Callable[..., Any]
) -> None:
    folder = write(options=TritonOptions(max_batch_size=max_batch_size)).path / "made_fused"
    config = read(folder / "config.pbtxt")
    session = onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [x.batch_size for x in config.model_warmup] == sorted({1, max_batch_size})
    for warm_up in config.model_warmup:
        assert all(
            x.WhichOneof("input_data_type") == "zero_data" and x.zero_data for x in warm_up.inputs.values()
        )
        size = warm_up.batch_size
        zeros = {
            name: np.zeros([size, *x.dims], NUMPY[name_of("data_type", x)])
            for name, x in warm_up.inputs.items()
        }
        assert all(len(value) == size and np.isfinite(value).all() for value in session.run(None, zeros))


def test_labels_are_lines_in_their_order(write: Callable[..., Any]) -> None:
    lines = (write().path / "made_fused" / "labels.txt").read_text()
    assert lines == "zither\napple\nmower\nbee\ncow\n"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:4], r"4 labels for audio_logits of \[5\]"),
        ([*LABELS, "dog"], r"6 labels for audio_logits of \[5\]"),
        ([*LABELS[:4], "c\now"], r"'c\\now'.* are no lines of text"),
        ([*LABELS[:4], " "], r"labels \[' '\] are no lines of text"),
    ],
)
def test_labels_are_lines_in_their_order_fails(
    labels: list[str], message: str, write: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        write(labels=labels)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}


@pytest.mark.parametrize("name", ["a", "every-day", "Grid.words_2"])
def test_names_that_triton_takes(name: str, write: Callable[..., Any], read: Callable[..., Any]) -> None:
    repository = write(provenance=replace(PROVENANCE, name=name))
    assert sorted(repository.models) == [f"{name}_audio", f"{name}_fused", f"{name}_video"]
    assert read(repository.path / f"{name}_fused" / "config.pbtxt").name == f"{name}_fused"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", ".hidden", "two words", 'quo"te', "café", "new\n"])
def test_names_that_triton_takes_fails(name: str, write: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="give letters, digits, single"):
        write(provenance=replace(PROVENANCE, name=name))


@pytest.mark.parametrize("link_weights", [True, False])
@pytest.mark.parametrize("modality", list(Modality))
def test_graphs_answer_alike_where_they_are_put(
    modality: Modality, link_weights: bool, write: Callable[..., Any], graphs: dict[Modality, Path]
) -> None:
    placed = write(link_weights=link_weights).path / f"made_{modality}" / "1" / "model.onnx"
    assert placed.read_bytes() == graphs[modality].read_bytes()
    original, here = run(graphs[modality]), run(placed)
    assert original.keys() == here.keys() != set()
    assert all((original[name] == here[name]).all() and original[name].any() for name in original)


def test_graphs_answer_alike_where_they_are_put_fails(write: Callable[..., Any]) -> None:
    version = write().path / "made_audio" / "1"
    (version / "weights.bin").unlink()
    with pytest.raises(Exception, match=r"weights\.bin"):
        run(version / "model.onnx")


def test_weights_are_linked_among_models_never_to_the_bundle(
    write: Callable[..., Any], graphs: dict[Modality, Path]
) -> None:
    repository = write()
    weights = [repository.path / model / "1" / "weights.bin" for model in repository.models]
    assert len({path.stat().st_ino for path in weights}) == 1
    assert repository.linked == tuple(weights[1:])
    assert graphs[Modality.AUDIO].with_name("weights.bin").stat().st_nlink == 1
    onnx.checker.check_model(str(graphs[Modality.FUSED]))  # which refuses weights of several names


def _no_link(*paths: Path) -> None:
    raise OSError("Operation not permitted")


@pytest.mark.parametrize("by", ["choice", "file system"])
def test_weights_are_copied(by: str, write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "file system":
        monkeypatch.setattr(os, "link", _no_link)
    repository = write(link_weights=by != "choice")
    weights = [repository.path / model / "1" / "weights.bin" for model in repository.models]
    assert len({path.stat().st_ino for path in weights}) == 3
    assert len({path.read_bytes() for path in weights}) == 1
    assert repository.linked == ()
    for path in weights:
        onnx.checker.check_model(str(path.with_name("model.onnx")))


def test_an_existing_folder_is_refused(write: Callable[..., Any]) -> None:
    before = write().path / "made_audio" / "config.pbtxt"
    text = before.read_text()
    with pytest.raises(FileExistsError, match="force its replacement"):
        write(options=TritonOptions(max_batch_size=8))
    assert before.read_text() == text


def test_an_existing_folder_is_replaced_by_force(write: Callable[..., Any], tmp_path: Path) -> None:
    path = write().path / "made_audio" / "config.pbtxt"
    write(options=TritonOptions(max_batch_size=8), force=True)
    assert "max_batch_size: 8\n" in path.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "repository"}


@pytest.mark.parametrize("is_file", [False, True])
def test_what_others_put_there_is_never_replaced(
    is_file: bool, write: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "repository"
    other = out if is_file else out / "resnet" / "config.pbtxt"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.write_text("mine")
    with pytest.raises(FileExistsError, match="beside these models"):
        write(force=True)
    assert other.read_text() == "mine"


@pytest.mark.parametrize("force", [False, True])
def test_a_fault_in_the_last_graph_leaves_all_as_it_was(
    force: bool, write: Callable[..., Any], graphs: dict[Modality, Path], tmp_path: Path
) -> None:
    if force:
        write()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    broken = tmp_path / "bundle" / "broken.onnx"
    onnx.save(_graph(Modality.FUSED, batch=2), broken)
    with pytest.raises(
        ValueError, match=r"made_fused: audio is of \[2, 16, 8\]; the first axis must be free"
    ):
        write(graphs=graphs | {Modality.FUSED: broken}, force=force)
    broken.unlink()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".part-*"))


def test_a_move_that_fails_brings_back_what_was_there(
    write: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write().path / "made_audio" / "config.pbtxt"
    rename = Path.rename

    def rename_but_the_new(self: Path, target: Path) -> Path:
        if self.name == "repository" and self.parent.name.startswith(".part-"):
            raise OSError("disk full")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_but_the_new)
    with pytest.raises(OSError, match="disk full"):
        write(options=TritonOptions(max_batch_size=8), force=True)
    assert "max_batch_size: 32\n" in path.read_text()


def test_a_tensor_of_another_type_fails() -> None:
    graph = _graph(Modality.AUDIO, kind=TensorProto.INT64)
    with pytest.raises(ValueError, match="made_audio: audio is INT64; give float32 or uint8"):
        describe_model("made_audio", graph, labels=LABELS, provenance=PROVENANCE, options=TritonOptions())


def test_a_graph_of_another_preprocessing_fails(write: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="the graph is of clip_spec_hash 5pec, the bundle of other"):
        write(provenance=replace(PROVENANCE, clip_spec_hash="other"))


def test_no_graphs_fail(write: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="got no graphs"):
        write(graphs={})


@pytest.mark.parametrize("fault", ["lost", "elsewhere"])
def test_weights_that_are_not_beside_their_graph_fail(
    fault: str, write: Callable[..., Any], graphs: dict[Modality, Path]
) -> None:
    path = graphs[Modality.AUDIO]
    if fault == "lost":
        path.with_name("weights.bin").unlink()
    else:
        model = onnx.load(path, load_external_data=False)
        entry = next(x for x in model.graph.initializer[0].external_data if x.key == "location")
        entry.value = f"../{path.parent.name}/weights.bin"
        path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="they must be in a file beside it"):
        write(graphs={Modality.AUDIO: path})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"instances": 0}, "instances=0; give 1 or more"),
        ({"threads": -1}, "threads=-1; give 0 or more"),
        ({"max_batch_size": 0}, "max_batch_size=0; give 1 or more"),
        ({"max_queue_delay_microseconds": -1}, "max_queue_delay_microseconds=-1; give 0 or more"),
        ({"max_queue_size": 0}, "max_queue_size=0; give 1 or more"),
        ({"queue_timeout_microseconds": 0}, "queue_timeout_microseconds=0; give 1 or more"),
        (
            {"preferred_batch_sizes": (8, 64)},
            r"preferred_batch_sizes hold \[64\]; give 1 to max_batch_size=32",
        ),
        ({"preferred_batch_sizes": (0,)}, r"preferred_batch_sizes hold \[0\]"),
        ({"tensorrt": True}, "TensorRT runs on the GPU alone"),
        ({"device": TritonDevice.GPU, "engine_cache": "/engines"}, "without tensorrt"),
    ],
)
def test_options_that_triton_would_refuse_fail(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TritonOptions(**options)


def test_int8_of_the_cpu_fails_on_a_gpu(write: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="take int8-qdq or fp16"):
        write(
            provenance=replace(PROVENANCE, variant="int8-cpu"), options=TritonOptions(device=TritonDevice.GPU)
        )


def test_text_quotes_what_it_must(read: Callable[..., Any]) -> None:
    hard = 'back\\slash, "quotes"\nand a line, é'
    assert read(render_text({"name": hard})).name == hard


def test_text_quotes_what_it_must_fails() -> None:
    with pytest.raises(TypeError, match=r"0\.5 is float; a field is a dict"):
        render_text({"max_batch_size": 0.5})


def test_the_committed_bundle(read: Callable[..., Any], tmp_path: Path) -> None:
    bundle = ROOT / "bundles" / "everyday" / "1"
    folder = min(bundle.rglob("audio.onnx"), key=lambda path: (path.parent.name != "fp32", path)).parent
    manifest = json.loads((bundle / "bundle.json").read_text())
    labels = [x["label"] for x in manifest["labels"]]
    repository = write_triton(
        {modality: folder / f"{modality}.onnx" for modality in Modality},
        tmp_path / "repository",
        labels=labels,
        provenance=replace(PROVENANCE, name="everyday", clip_spec_hash=manifest["clip_spec_hash"]),
    )
    for modality in Modality:
        model = repository.path / f"everyday_{modality}"
        graph = onnx.load(model / "1" / "model.onnx", load_external_data=False)
        assert differences(read(model / "config.pbtxt"), graph) == []
        assert (model / "labels.txt").read_text().splitlines() == labels
    original, here = (
        run(folder / "audio.onnx", 1),
        run(repository.path / "everyday_audio" / "1" / "model.onnx", 1),
    )
    assert all((original[name] == here[name]).all() for name in ("audio_embedding", "audio_logits"))


def test_the_guide_makes_a_request_for_these_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "triton.md").read_text()
    (block,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "triton.md", "exec"), {})
    question, raw = split_body(
        (tmp_path / "request.bin").read_bytes(), (tmp_path / "request.length").read_text()
    )
    (audio,) = question["inputs"]
    manifest = json.loads((ROOT / "bundles" / "everyday" / "1" / "bundle.json").read_text())
    spec = manifest["clip_spec"]
    assert audio["shape"] == [1, spec["num_mel_frames"], spec["num_mel_bins"]]
    assert (audio["name"], audio["datatype"], len(raw)) == ("audio", "FP32", 4 * np.prod(audio["shape"]))
    assert [x["name"] for x in question["outputs"]] == ["audio_logits"]


def test_the_guide_names_every_option() -> None:
    page = (ROOT / "docs" / "triton.md").read_text()
    assert [
        name for name in TritonOptions.__slots__ if f"`--{name.replace(chr(95), chr(45))}`" not in page
    ] == []
