"""A model repository for NVIDIA's Triton Inference Server.

It has one model per graph, which Triton's ONNX Runtime backend runs.

    OUT/NAME_audio/config.pbtxt     tensors, batching, queue, instances and warm-up
    OUT/NAME_audio/labels.txt       one label a line, in the order of the logits
    OUT/NAME_audio/1/model.onnx     the graph, byte for byte
    OUT/NAME_audio/1/weights.bin    its weights, where it looks for them; NAME_video and NAME_fused alike

Weights are copied once; the other models have hard links to that copy where the file system allows. They are
never links to the bundle: `onnx` refuses weights of several names, and could not read the bundle any more.
ONNX Runtime reads them.

`config.pbtxt` is written without its schema, which the tests check it against.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from media import Modality
from runtime.engines import shapes_argument

from .atomic_folder import replace_folder
from .pbtxt import Message, Word, map_entries, render_text
from .weights_file import external_files

CONFIG_FILE, LABELS_FILE, GRAPH_FILE = "config.pbtxt", "labels.txt", "model.onnx"
VERSION_FOLDER = "1"
DATA_TYPES: dict[int, str] = {TensorProto.FLOAT: "TYPE_FP32", TensorProto.UINT8: "TYPE_UINT8"}


class TritonDevice(StrEnum):
    """Where instances run."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonOptions:
    """How Triton shall run the models; the queue is that of our own server."""

    device: TritonDevice = TritonDevice.CPU
    instances: int = 1
    """Of each model; on each GPU if on GPUs."""
    threads: int = 0
    """Of an instance on the CPU; 0: one per core."""
    max_batch_size: int = 32
    preferred_batch_sizes: tuple[int, ...] = ()
    """Sizes that are formed if enough requests wait; none: as many as wait, up to the largest."""
    max_queue_delay_microseconds: int = 0
    """How long a request waits for company; 0: a free instance takes what is there."""
    max_queue_size: int = 1024
    """Requests that may wait for a model; more are refused."""
    queue_timeout_microseconds: int = 60_000_000
    """How long a request may wait; clients may allow less."""
    tensorrt: bool = False
    """Run by TensorRT, the types being those of the graph; on GPUs only."""
    engine_cache: str | None = None
    """Folder, as Triton sees it, that keeps TensorRT's engines; None: they are built at each start."""

    def __post_init__(self) -> None:
        for what, least in (
            ("instances", 1),
            ("threads", 0),
            ("max_batch_size", 1),
            ("max_queue_delay_microseconds", 0),
            ("max_queue_size", 1),
            ("queue_timeout_microseconds", 1),
        ):
            if getattr(self, what) < least:
                raise ValueError(f"{what}={getattr(self, what)}; give {least} or more")
        wrong = [size for size in self.preferred_batch_sizes if not 1 <= size <= self.max_batch_size]
        if wrong:
            raise ValueError(
                f"preferred_batch_sizes hold {wrong}; give 1 to max_batch_size={self.max_batch_size}"
            )
        if self.tensorrt and self.device != TritonDevice.GPU:
            raise ValueError(f"tensorrt on device={self.device}; TensorRT runs on the GPU alone")
        if self.engine_cache is not None and not self.tensorrt:
            raise ValueError(f"engine_cache={self.engine_cache!r} without tensorrt; nothing else has engines")


@dataclass(frozen=True, slots=True)
class TritonRepository:
    """What was written."""

    path: Path
    models: tuple[str, ...]
    files: tuple[Path, ...]
    linked: tuple[Path, ...]
    """Weights that are hard links to another model's; the others are copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Which bundle the graphs are from; Triton tells all but the name with a model's configuration."""

    name: str
    """Of the bundle; its models are called NAME_audio, NAME_video and NAME_fused."""
    version: str
    variant: str
    clip_spec_hash: str
    bundle_sha256: str


def write_triton(
    graphs: Mapping[Modality, Path],
    out: str | Path,
    *,
    labels: Sequence[str],
    provenance: Provenance,
    options: TritonOptions | None = None,
    link_weights: bool = True,
    force: bool = False,
) -> TritonRepository:
    """Write the folder `out`, whole or not at all.

    Args:
        graphs: of one variant of a bundle, by modality.
        out: folder to be made, for `tritonserver --model-repository`.
        labels: in the order of the logits.
        provenance: of the graphs; models are named by it.
        options: how Triton shall run them; as `TritonOptions` has it by default.
        link_weights: whether models share one file of weights, if the file system has links; else each has
            its own.
        force: replace these models if they are there.

    Raises:
        ValueError: a name that Triton does not take, labels that are not those of the logits, a graph that
            cannot be batched or is of another preprocessing, or weights that are not beside it.
        FileExistsError: there is something already, or, even with `force`, something else than these models.
    """
    out, options, name = Path(out), options or TritonOptions(), provenance.name
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or ".." in name:
        raise ValueError(
            f"name={name!r}; give letters, digits, single '.', '_' or '-', beginning with a letter or digit"
        )
    if not graphs:
        raise ValueError("got no graphs; give those of a bundle's variant")
    if options.device == TritonDevice.GPU and provenance.variant == "int8-cpu":
        raise ValueError("variant int8-cpu on device=gpu; take int8-qdq or fp16")
    models = {f"{name}_{modality}": path for modality, path in graphs.items()}
    _check_place(out, models, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".part-") as part:
        folder = Path(part) / "repository"
        weights = _Weights(link=link_weights)
        for model, path in models.items():
            _write_model(folder / model, path, labels, provenance, options, weights)
        replace_folder(folder, out, aside=Path(part) / "replaced")
    files = tuple(sorted(path for path in out.rglob("*") if path.is_file()))
    return TritonRepository(
        out, tuple(models), files, tuple(out / path.relative_to(folder) for path in weights.linked)
    )


def describe_model(
    model: str,
    graph: onnx.ModelProto,
    *,
    labels: Sequence[str],
    provenance: Provenance,
    options: TritonOptions,
) -> Message:
    """Triton's configuration of a graph, as in its model_config.proto.

    Raises:
        ValueError: see `write_triton`.
    """
    stored = {entry.key: entry.value for entry in graph.metadata_props}.get(
        "clip_spec_hash", provenance.clip_spec_hash
    )
    if stored != provenance.clip_spec_hash:
        raise ValueError(
            f"{model}: the graph is of clip_spec_hash {stored}, the bundle of {provenance.clip_spec_hash}"
        )
    inputs, outputs = _tensors(model, graph.graph.input), _tensors(model, graph.graph.output)
    for output in outputs:
        if output["name"].endswith("_logits"):
            if output["dims"] != [len(labels)]:
                got = f"{len(labels)} labels for {output['name']} of {output['dims']}"
                raise ValueError(f"{model}: got {got}; give one for each, in their order")
            output["label_filename"] = LABELS_FILE
    about = {
        key: getattr(provenance, key) for key in ("version", "variant", "clip_spec_hash", "bundle_sha256")
    }
    if options.device == TritonDevice.CPU and options.threads:
        about["intra_op_thread_count"] = str(options.threads)
    return {
        "name": model,
        "backend": "onnxruntime",
        "max_batch_size": options.max_batch_size,
        "input": inputs,
        "output": outputs,
        "instance_group": [{"kind": Word(f"KIND_{options.device.upper()}"), "count": options.instances}],
        "dynamic_batching": _batching(options),
        **(_tensorrt(model, inputs, provenance, options) if options.tensorrt else {}),
        "model_warmup": [_warm_up(inputs, size) for size in sorted({1, options.max_batch_size})],
        "parameters": map_entries({key: {"string_value": value} for key, value in about.items()}),
    }


def _tensors(model: str, values: Iterable[onnx.ValueInfoProto]) -> list[Message]:
    """Names, types and shapes; the batch, which must come first and be free, is left out."""
    tensors: list[Message] = []
    for value in values:
        kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
        if kind not in DATA_TYPES:
            raise ValueError(
                f"{model}: {value.name} is {TensorProto.DataType.Name(kind)}; give float32 or uint8"
            )
        if len(dims) < 2 or not dims[0].dim_param or not all(dim.dim_value > 0 for dim in dims[1:]):
            shape = [dim.dim_param or dim.dim_value for dim in dims]
            raise ValueError(
                f"{model}: {value.name} is of {shape}; the first axis must be free, for batches, and no other"
            )
        shape = [dim.dim_value for dim in dims[1:]]
        tensors.append({"name": value.name, "data_type": Word(DATA_TYPES[kind]), "dims": shape})
    return tensors


def _batching(options: TritonOptions) -> Message:
    return {
        "preferred_batch_size": list(options.preferred_batch_sizes),
        "max_queue_delay_microseconds": options.max_queue_delay_microseconds,
        "default_queue_policy": {
            "timeout_action": Word("REJECT"),
            "default_timeout_microseconds": options.queue_timeout_microseconds,
            "allow_timeout_override": True,
            "max_queue_size": options.max_queue_size,
        },
    }


def _warm_up(inputs: Sequence[Message], batch_size: int) -> Message:
    """A batch of zeros before the model is ready; random bytes would be NaN in places."""
    tensors = {x["name"]: {"data_type": x["data_type"], "dims": x["dims"], "zero_data": True} for x in inputs}
    return {"name": f"batch of {batch_size}", "batch_size": batch_size, "inputs": map_entries(tensors)}


def _tensorrt(
    model: str, inputs: Sequence[Message], provenance: Provenance, options: TritonOptions
) -> Message:
    """TensorRT by ONNX Runtime: one profile for all batches, and engines that no other model takes.

    `precision_mode` is left alone: without it the network is strongly typed, so the variant says what is
    float16 or int8. ONNX Runtime names engines by a graph's structure, not its weights, hence the bundle's
    hash in front.
    """
    largest = options.max_batch_size
    best = max(options.preferred_batch_sizes, default=largest)
    shapes = {x["name"]: tuple(x["dims"]) for x in inputs}
    parameters = {
        f"trt_profile_{which}_shapes": shapes_argument(shapes, batch)
        for which, batch in (("min", 1), ("opt", best), ("max", largest))
    }
    if options.engine_cache is not None:
        parameters["trt_engine_cache_enable"] = "true"
        parameters["trt_engine_cache_path"] = options.engine_cache
        parameters["trt_engine_cache_prefix"] = (
            f"{model}_{provenance.variant}_{provenance.bundle_sha256[:16]}"
        )
    accelerator = {"name": "tensorrt", "parameters": map_entries(parameters)}
    return {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}}


class _Weights:
    """Files of weights, each copied once and linked from then on where that is possible."""

    def __init__(self, *, link: bool) -> None:
        self._link = link
        self._first: dict[Path, Path] = {}
        self.linked: list[Path] = []

    def place(self, source: Path, target: Path) -> None:
        first = self._first.setdefault(source.resolve(), target)
        if self._link and first != target:
            try:
                os.link(first, target)
            except OSError:  # the file system has none: it is copied as the first one was
                self._link = False
            else:
                self.linked.append(target)
                return
        shutil.copyfile(source, target)


def _write_model(
    folder: Path,
    path: Path,
    labels: Sequence[str],
    provenance: Provenance,
    options: TritonOptions,
    weights: _Weights,
) -> None:
    graph = onnx.load(path, load_external_data=False)
    config = describe_model(folder.name, graph, labels=labels, provenance=provenance, options=options)
    version = folder / VERSION_FOLDER
    version.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(render_text(config))
    (folder / LABELS_FILE).write_text(_label_lines(labels))
    shutil.copyfile(path, version / GRAPH_FILE)
    for location in external_files(graph.graph):
        source = path.parent / location
        if Path(location).name != location or not source.is_file():
            raise ValueError(f"{path} has its weights in {location!r}; they must be in a file beside it")
        weights.place(source, version / location)


def _label_lines(labels: Sequence[str]) -> str:
    wrong = [label for label in labels if not label.strip() or len(label.splitlines()) != 1]
    if wrong:
        raise ValueError(f"labels {wrong[:4]} are no lines of text; Triton reads one label a line")
    return "".join(f"{label}\n" for label in labels)


def _check_place(out: Path, models: Mapping[str, Any], *, force: bool) -> None:
    if not out.exists():
        return
    if not force:
        raise FileExistsError(f"{out} exists; choose another folder, or force its replacement")
    others = sorted({path.name for path in out.iterdir()} - models.keys()) if out.is_dir() else [out.name]
    if others:
        raise FileExistsError(
            f"{out} holds {others[:4]} beside these models, and is not replaced; choose another folder"
        )
