"""TensorRT inside ONNX Runtime.

For which batches it builds a graph's engine, and where it keeps what it has built.

The surprising fact: ONNX Runtime names an engine by the graph's file name, its tensors' names and the
versions of itself, TensorRT and CUDA, not by its weights. In one folder two bundles of one architecture would
answer with each other's engines, so each graph has a folder of its own.

No precision is asked for. TensorRT 11 and TensorRT-RTX are strongly typed: they compute in the types that the
graph names, so the variant is the precision. With TensorRT 10 the provider is strongly typed only while
`trt_fp16_enable`, `trt_bf16_enable` and `trt_int8_enable` are unset: setting one would let it put into
float16 what the variant keeps in float32. TF32 is no option of either provider; the environment's
`NVIDIA_TF32_OVERRIDE=0` turns it off.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from media import Modality

from .bundle import Bundle, Variant
from .errors import InvalidOption
from .gpu import Gpu, find_gpu
from .providers import ENGINE_PROVIDERS, TENSORRT, ProviderOptions, device_id_of
from .signature import input_tensors

OPTIONS_OF_CONTEXT = {
    "trt_engine_cache_enable", "trt_engine_cache_path", "trt_dump_ep_context_model",
    "trt_ep_context_file_path", "trt_ep_context_embed_mode",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Batches of an engine, in clips.

    A larger one is refused, or answered after a rebuild inside the request.
    """

    min: int = 1
    opt: int = 8
    """What kernels are chosen for."""
    max: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"got {self}; wanted 1 <= min <= opt <= max")

    @property
    def batches(self) -> dict[str, int]:
        """By the names that TensorRT's tools share: `min`, `opt`, `max`."""
        return {"min": self.min, "opt": self.opt, "max": self.max}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """How the engine of one graph is built and kept."""

    provider: str
    """Of `ENGINE_PROVIDERS`."""
    profile: Profile
    shapes: dict[str, tuple[int, ...]]
    """Of the graph's inputs, without the batch."""
    folder: Path | None
    """Of this graph alone, see `graph_folder`; None: the engine is built at each start."""
    as_context: bool
    """Whether it is kept as a context model, see `engine_context`."""

    @property
    def profile_options(self) -> dict[str, str]:
        """Of the provider, so that no batch of the profile has another engine built."""
        return profile_options(self.provider, self.shapes, self.profile)

    @property
    def options(self) -> dict[str, str]:
        """Of the provider, with those by which a later start finds the engine."""
        return self.profile_options | (
            {} if self.folder is None else cache_options(self.provider, self.folder)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The largest batch of all graphs, and how TensorRT's engines for it are kept.

    Raises:
        InvalidOption: the largest batch is of less than one window.
    """

    max_batch_size: int = 8
    """Most windows that run at once, on any provider; engines are built for as many."""
    cache: str | Path | None = None
    """Folder that keeps engines from one start to the next; None: they are built at each start."""
    as_context: bool = False
    """Whether they are kept as context models, with their sha256, which are opened without building."""

    def __post_init__(self) -> None:
        if self.max_batch_size < 1:
            raise InvalidOption(f"max_batch_size={self.max_batch_size}; give at least 1")
        if self.cache is not None:
            object.__setattr__(self, "cache", Path(self.cache).absolute())

    def check(self, providers: Sequence[str], options: ProviderOptions) -> None:
        """Raise InvalidOption unless these providers, with these options, can do all that was asked for."""
        if self.cache is not None and not set(providers) & set(ENGINE_PROVIDERS):
            raise InvalidOption(
                f"engine cache {str(self.cache)!r}; ask for one of {list(ENGINE_PROVIDERS)} or leave it out"
            )
        if not self.as_context:
            return
        if self.cache is None or TENSORRT not in providers:
            raise InvalidOption(
                f"an engine context needs {TENSORRT} and an engine cache; give both, or leave it out"
            )
        if theirs := sorted(options.get(TENSORRT, {}).keys() & OPTIONS_OF_CONTEXT):
            raise InvalidOption(
                f"options of {TENSORRT} have {theirs}; leave them to the engine context, or that out"
            )

    def plan(
        self,
        bundle: Bundle,
        variant: Variant,
        modality: Modality,
        *,
        providers: Sequence[str],
        options: ProviderOptions,
    ) -> EnginePlan | None:
        """The plan of one graph; None if no provider that was asked for builds engines.

        Raises:
            ProviderUnavailable: the GPU is not described; see `gpu`.
        """
        provider = next((name for name in providers if name in ENGINE_PROVIDERS), None)
        if provider is None:
            return None
        profile = Profile(opt=self.max_batch_size, max=self.max_batch_size)
        given, graph = options.get(provider, {}), variant.graphs[modality]
        folder = None
        if self.cache is not None:
            ingredients = EngineIngredients(
                provider=provider,
                digests=stored_digests(bundle, graph),
                variant=variant.name,
                profile=profile,
                gpu=find_gpu(device_id_of(given)),
                options=given,
            )
            folder = graph_folder(Path(self.cache), graph.stem, ingredients)
        shapes = {tensor.name: tensor.shape for tensor in input_tensors(modality, bundle.clip_spec)}
        return EnginePlan(
            provider=provider,
            profile=profile,
            shapes=shapes,
            folder=folder,
            as_context=self.as_context and provider == TENSORRT,
        )


def shapes_argument(shapes: Mapping[str, tuple[int, ...]], batch: int) -> str:
    """Shapes as ONNX Runtime and trtexec write them: `audio:8x512x80,video:8x8x112x112x3`."""
    return ",".join(f"{name}:{'x'.join(map(str, (batch, *shape)))}" for name, shape in shapes.items())


def profile_options(provider: str, shapes: Mapping[str, tuple[int, ...]], profile: Profile) -> dict[str, str]:
    """Options that make a provider of `ENGINE_PROVIDERS` build for a profile.

    Shapes are without the batch.
    """
    prefix = "trt" if provider == TENSORRT else "nv"
    return {
        f"{prefix}_profile_{which}_shapes": shapes_argument(shapes, batch)
        for which, batch in profile.batches.items()
    }


def cache_options(provider: str, folder: Path) -> dict[str, str]:
    """Options that make a provider of `ENGINE_PROVIDERS` keep a graph's engine in `folder`.

    Timings of all engines are kept beside that folder.
    """
    if provider == TENSORRT:
        return {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            **timing_options(folder),
        }
    return {"nv_runtime_cache_path": str(folder)}


def timing_options(folder: Path) -> dict[str, str]:
    """Options that make TensorRT keep what it has measured beside a graph's folder, for all graphs."""
    return {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(folder.parent)}  # "1" is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineIngredients:
    """All that an engine of a graph depends on; with any other, it is another engine."""

    provider: str
    digests: Mapping[str, str]
    """SHA-256 of the graph's files, by name."""
    variant: str
    profile: Profile
    gpu: Gpu | None
    options: Mapping[str, str] = field(default_factory=dict)
    """Those of the provider that an operator gave; `device_id` does not count, equal GPUs share engines."""

    @property
    def digest(self) -> str:
        """SHA-256 of all of them and of ONNX Runtime's version."""
        return digest_of(
            {
                "files": dict(self.digests),
                "variant": self.variant,
                "provider": self.provider,
                "options": {name: value for name, value in self.options.items() if name != "device_id"},
                "profile": self.profile.batches,
                "onnxruntime": onnxruntime.__version__,
                "gpu": asdict(self.gpu) if self.gpu is not None else None,
            }
        )


def graph_folder(cache: Path, graph: str, ingredients: EngineIngredients) -> Path:
    """Where a provider keeps what it builds of the graph with this name."""
    return cache / f"{graph}-{ingredients.digest[:16]}"


def stored_digests(bundle: Bundle, graph: Path) -> dict[str, str]:
    """SHA-256 of a bundle's graph and of the weights beside it, by file name.

    They are as they were verified when the bundle was read.
    """
    files = {bundle.path / name: digest for name, digest in bundle.manifest["files"].items()}
    beside = [
        path
        for path in files
        if path.parent == graph.parent and (path == graph or path.suffix != graph.suffix)
    ]
    return {path.name: files[path] for path in beside}


def digest_of(ingredients: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()
