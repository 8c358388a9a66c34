"""A TensorRT, imported when it is asked for, and a graph as it has parsed it.

`tensorrt` and `tensorrt-rtx` share their Python interface. The first works only on the GPU that the engine is
for; the second needs none, which makes its parser the check that a graph suits either. A process has one
TensorRT logger: TensorRT keeps the first and ignores all others.
"""

import functools
import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from media.progress import OnProgress
from runtime.engines import Profile
from runtime.gpu import Gpu

from .profiles import EngineError, read_graph

BuilderName = Literal["tensorrt", "tensorrt-rtx"]

INSTALL = {
    "tensorrt": (
        "pip install tensorrt "
        "(NVIDIA's wheels; see its installation guide for the package index of your CUDA)"
    ),
    "tensorrt-rtx": "pip install tensorrt-rtx",
}


class TimingCache(StrEnum):
    """What became of the timings that earlier builds left."""

    READ = "read"
    NEW = "new"
    REFUSED = "refused"
    """Of another GPU or version; begun anew."""
    UNSUPPORTED = "unsupported"
    """By tensorrt-rtx, which times nothing when it builds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """An imported TensorRT."""

    name: BuilderName
    version: str
    module: Any

    @property
    def needs_gpu(self) -> bool:
        """Whether it cannot even parse without one."""
        return self.name == "tensorrt"


def load_builder(name: BuilderName) -> Builder:
    """Import a TensorRT.

    Raises:
        ModuleNotFoundError: it is not installed; says how to.
        ValueError: there is no builder of this name.
    """
    if name not in INSTALL:
        raise ValueError(f"got builder {name!r}; wanted one of {', '.join(INSTALL)}")
    module_name = name.replace("-", "_")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        message = (
            f"engines of {name} are built with the module {module_name}, "
            f"which is not installed: {INSTALL[name]}"
        )
        raise ModuleNotFoundError(message, name=module_name) from error
    return Builder(name=name, version=module.__version__, module=module)


class Network:
    """A graph as a builder has parsed it, and the settings to build it by.

    Every fault is an `EngineError`.
    """

    def __init__(self, path: Path, builder: Builder, gpu: Gpu | None) -> None:
        read_graph(path)  # TensorRT takes an empty file for a network without layers
        if builder.needs_gpu and gpu is None:
            raise EngineError(
                f"{path}: tensorrt needs the GPU that it builds for, and there is none; use tensorrt-rtx"
            )
        self._path, self._name, self._trt = path, builder.name, builder.module
        self._logger = _logger(builder.module)
        self._first_message = len(self._logger.errors)
        self._builder = self._trt.Builder(self._logger)
        self._network = self._builder.create_network(
            1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        )
        self._parser = self._trt.OnnxParser(self._network, self._logger)
        if not self._parser.parse_from_file(str(path)):
            raise EngineError(f"{path}: {self._name} cannot parse it: {'; '.join(self._complaints())}")
        self._config = self._builder.create_builder_config()
        self._config.clear_flag(
            self._trt.BuilderFlag.TF32
        )  # 10 bits of mantissa, which the fp32 variant does not allow
        self.layers: int = self._network.num_layers
        self.inputs = tuple(self._network.get_input(i).name for i in range(self._network.num_inputs))
        self.outputs = tuple(self._network.get_output(i).name for i in range(self._network.num_outputs))

    def _complaints(self) -> list[str]:
        """What the parser says of each node that it cannot take."""
        errors = [self._parser.get_error(i) for i in range(self._parser.num_errors)]
        return [
            f"node {e.node_name() or e.node()} ({e.node_operator()}): {e.desc()}"
            if e.node() >= 0
            else e.desc()
            for e in errors
        ] or self._messages()

    def _messages(self) -> list[str]:
        return self._logger.errors[self._first_message :] or ["no reason given"]

    def add_profile(self, profile: Profile, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Build for these batches of inputs of these shapes."""
        made = self._builder.create_optimization_profile()
        for name in self.inputs:
            made.set_shape(name, *((batch, *shapes[name]) for batch in profile.batches.values()))
        if self._config.add_optimization_profile(made) < 0:
            raise EngineError(f"{self._path}: {self._name} refuses {profile}: {'; '.join(self._messages())}")

    def add_capabilities(self, capabilities: Sequence[str]) -> None:
        """Build for these compute capabilities alone; none for all that the builder knows from 8.0."""
        if not capabilities:
            return
        if self._name == "tensorrt":
            raise EngineError(f"tensorrt builds for the GPU at hand alone; got {capabilities=}, wanted none")
        known = self._trt.ComputeCapability
        self._config.num_compute_capabilities = len(capabilities)
        for i, capability in enumerate(capabilities):
            member = known.__members__.get(f"SM{capability.replace('.', '')}")
            if member is None or not self._config.set_compute_capability(member, i):
                names = ", ".join(name for name in known.__members__ if name.startswith("SM"))
                raise EngineError(
                    f"{self._name} does not build for compute capability {capability!r}; it knows {names}"
                )

    def use_timings(self, stored: bytes) -> TimingCache:
        """Give the builder what earlier builds measured; empty for nothing."""
        if self._name == "tensorrt-rtx":
            return TimingCache.UNSUPPORTED
        if self._config.set_timing_cache(self._config.create_timing_cache(stored), False):
            return TimingCache.READ if stored else TimingCache.NEW
        self._config.set_timing_cache(self._config.create_timing_cache(b""), False)
        return TimingCache.REFUSED

    def timings(self) -> Any:
        """What this and earlier builds have measured, as bytes."""
        return self._config.get_timing_cache().serialize()

    def build(self, on_progress: OnProgress) -> Any:
        """The engine's bytes."""
        monitor = _monitor(self._trt, on_progress)
        self._config.progress_monitor = monitor
        content = self._builder.build_serialized_network(self._network, self._config)
        if monitor.failure is not None:
            raise monitor.failure
        if content is None:
            raise EngineError(f"{self._path}: {self._name} cannot build it: {'; '.join(self._messages())}")
        return content

    def load(self, content: Any) -> None:
        """Make sure that the GPU at hand takes an engine."""
        if self._trt.Runtime(self._logger).deserialize_cuda_engine(content) is None:
            raise EngineError(
                f"{self._path}: built, but the GPU does not load it: {'; '.join(self._messages())}"
            )


@functools.cache
def _logger(trt: Any) -> Any:
    class Errors(trt.ILogger):  # type: ignore[misc]
        """Keeps what is worth telling, of all builds of this process."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Errors()


def _monitor(trt: Any, on_progress: OnProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Passes progress on; phases nest, and their threads interleave.

        An exception must not cross into C++, so it is kept and the build is told to stop.
        """

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self._steps: dict[str, int] = {}
            self._lock = threading.Lock()

        def phase_start(self, phase: str, _parent: str | None, num_steps: int) -> None:
            self._steps[phase] = num_steps
            self._report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(phase, step + 1)
            return self.failure is None

        def phase_finish(self, phase: str) -> None:
            self._report(phase, self._steps.get(phase, 0))

        def _report(self, phase: str, done: int) -> None:
            with self._lock:
                if self.failure is None:
                    try:
                        on_progress(phase, done, self._steps.get(phase, done))
                    except BaseException as error:
                        self.failure = error

    return Monitor()
