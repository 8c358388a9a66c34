"""TensorRT engines of a bundle's graphs, built ahead so that no request waits for a build, each once."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from media.progress import OnProgress, ignore_progress
from runtime.bundle import sha256_of
from runtime.engines import Profile
from runtime.gpu import find_gpu

from .builders import Builder, Network, TimingCache
from .keys import EngineKey, engine_key
from .options import TIMING_CACHE
from .profiles import input_shapes

DEFAULT_PROFILE = Profile()
KEY_FILE = "key.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedGraph:
    """What a builder makes of a graph."""

    layers: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """A built engine."""

    path: Path
    key: EngineKey
    cached: bool
    """Whether it was there already, and nothing was done."""
    seconds: float
    """Of the build, also where that was earlier."""
    bytes: int
    layers: int
    """Of the network, before the builder fuses them."""
    timing_cache: TimingCache
    """As the build found it, also where that was earlier."""
    verified_on_hardware: bool
    """Whether a GPU loaded it after the build.

    Without a GPU nobody knows that it runs, let alone what it answers.
    """


def parse_graph(path: Path, builder: Builder) -> ParsedGraph:
    """Let a builder read a graph, with the weights beside it, without building.

    Raises:
        EngineError: it cannot; names each node and the reason.
    """
    network = Network(path, builder, find_gpu())
    return ParsedGraph(layers=network.layers, inputs=network.inputs, outputs=network.outputs)


def build_engine(
    path: Path,
    out: Path,
    builder: Builder,
    *,
    variant: str,
    profile: Profile = DEFAULT_PROFILE,
    capabilities: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> BuiltEngine:
    """Build `out/{graph}-{key}/{graph}.engine`, unless it is there, with `key.json` beside it.

    Args:
        path: the graph, with the weights beside it.
        out: the folder of all engines, which also keeps TensorRT's timings.
        builder: from `load_builder`.
        variant: name of the graph's numbers, as `fp16`; a part of the key.
        profile: batches to build for.
        capabilities: of tensorrt-rtx: compute capabilities to build for alone, as `8.9`; none for all from
            8.0.
        on_progress: called from the builder's threads; what it raises, KeyboardInterrupt too, ends the build
            and is raised.

    Raises:
        EngineError: the graph cannot be parsed or built; names the node and the reason.
    """
    gpu = find_gpu()
    key = engine_key(
        path,
        profile,
        builder=builder.name,
        version=builder.version,
        variant=variant,
        capabilities=capabilities,
        gpu=gpu if builder.needs_gpu else None,
    )
    target = out / f"{path.stem}-{key.hex[:16]}" / f"{path.stem}.engine"
    found = _find_engine(target, key)
    if found is not None:
        return found
    start = time.perf_counter()
    network = Network(path, builder, gpu)
    network.add_profile(profile, input_shapes(path))
    network.add_capabilities(capabilities)
    timings = out / TIMING_CACHE
    timing_cache = network.use_timings(timings.read_bytes() if timings.is_file() else b"")
    content = network.build(on_progress)
    seconds = time.perf_counter() - start
    loads_here = gpu is not None and (not capabilities or gpu.capability in capabilities)
    if loads_here:
        network.load(content)
    target.parent.mkdir(parents=True, exist_ok=True)
    _replace(target, content)
    if timing_cache is not TimingCache.UNSUPPORTED:
        _replace(timings, network.timings())
    engine = BuiltEngine(
        path=target,
        key=key,
        cached=False,
        seconds=round(seconds, 3),
        bytes=target.stat().st_size,
        layers=network.layers,
        timing_cache=timing_cache,
        verified_on_hardware=loads_here,
    )
    _write_key(engine)
    return engine


def _find_engine(target: Path, key: EngineKey) -> BuiltEngine | None:
    """The engine at `target`, if it is whole and of this key."""
    try:
        stored = json.loads((target.parent / KEY_FILE).read_text())
        if stored["key"] != key.hex or stored["sha256"] != sha256_of(target):
            return None
    except (FileNotFoundError, ValueError, KeyError):
        return None
    built = stored["engine"] | {"timing_cache": TimingCache(stored["engine"]["timing_cache"])}
    return BuiltEngine(path=target, key=key, cached=True, **built)


def _write_key(engine: BuiltEngine) -> None:
    """Last of all, so that an engine without it is a build that was cut short."""
    built = {name: value for name, value in asdict(engine).items() if name not in ("path", "key", "cached")}
    content = {
        "key": engine.key.hex,
        "ingredients": engine.key.ingredients,
        "engine": built,
        "sha256": sha256_of(engine.path),
    }
    _replace(engine.path.parent / KEY_FILE, (json.dumps(content, indent=2) + "\n").encode())


def _replace(path: Path, content: Any) -> None:
    """Write a file so that it is never seen half."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)
