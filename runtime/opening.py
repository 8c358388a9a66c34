"""How a graph becomes a session on the providers that were chosen.

TensorRT's engine is kept, or the session opens from the graph's context model.

Options that are derived for TensorRT give way to those of an operator. A fallback is taken when a graph is
opened or not at
all: in a run that fails, ONNX Runtime would take the CPU and tell nobody.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnxruntime

from .engine_context import EngineContext
from .engines import EnginePlan
from .errors import BundleIncompatible, InvalidOption, ProviderUnavailable
from .options import WeightMemory
from .providers import CPU

logger = logging.getLogger("zorro.runtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A graph, and what it is to be opened with."""

    path: Path
    configured: Mapping[str, dict[str, str]]
    """Providers in order of preference, with an operator's options."""
    num_threads: int | None
    memory: WeightMemory
    allow_fallback: bool
    check: Callable[..., None]
    """Takes a session and whether it `has_metadata`.

    Raises BundleIncompatible unless it is of the graph that was meant.
    """


def open_graph(opening: Opening) -> onnxruntime.InferenceSession:
    """A session of the graph itself.

    Raises:
        ProviderUnavailable, BundleIncompatible: see `errors`.
    """
    session = _open(opening, opening.path)
    opening.check(session, has_metadata=True)
    return session


def open_with_engine(opening: Opening, engine: EnginePlan) -> onnxruntime.InferenceSession:
    """A session of a graph whose provider builds an engine of it, if that provider was chosen.

    Raises:
        ProviderUnavailable, BundleIncompatible, EngineCacheCorrupt: see `errors`.
        InvalidOption: the folder of engines cannot be made.
    """
    if engine.provider not in opening.configured:
        return open_graph(opening)
    if engine.folder is None:
        return open_graph(_with_options(opening, engine, engine.options))
    try:
        engine.folder.mkdir(parents=True, exist_ok=True)  # the providers make no parents
        if engine.as_context:
            return _open_context(opening, engine, EngineContext(engine.folder, opening.path.stem))
    except OSError as error:
        raise InvalidOption(
            f"engine cache: {engine.folder} cannot be written: {error}; give another folder"
        ) from error
    return open_graph(_with_options(opening, engine, engine.options))


def _open_context(
    opening: Opening, engine: EnginePlan, context: EngineContext
) -> onnxruntime.InferenceSession:
    """The context model, written if there is none.

    The graph on other providers if that fails and a fallback is allowed.
    """
    required = replace(opening, allow_fallback=False)
    try:
        if not context.is_written:
            context.write(lambda options: _build(required, engine, options))
        context.verify()
        return _load(required, engine, context)
    except ProviderUnavailable as error:
        if not opening.allow_fallback:
            raise
        logger.warning("%s: not on %s: %s", opening.path.name, engine.provider, error)
    others = {name: options for name, options in opening.configured.items() if name != engine.provider}
    return open_graph(replace(opening, configured=others or {CPU: {}}))


def _build(opening: Opening, engine: EnginePlan, options: dict[str, str]) -> None:
    session = open_graph(_with_options(opening, engine, engine.profile_options | options))
    _must_run(session, engine.provider, opening.path)


def _load(opening: Opening, engine: EnginePlan, context: EngineContext) -> onnxruntime.InferenceSession:
    try:
        session = _open(opening, context.path, optimise=False)
    except ProviderUnavailable as error:
        raise ProviderUnavailable(
            f"{error}; if TensorRT has changed since, remove {context.folder}"
        ) from error
    _must_run(session, engine.provider, context.path)
    try:
        opening.check(
            session, has_metadata=False
        )  # the graph's own was checked when the context model was written
    except BundleIncompatible as error:
        raise ProviderUnavailable(
            f"{context.path} has not the tensors of {opening.path.name}: {engine.provider} takes only a part "
            "of the graph; "
            "switch the engine context off"
        ) from error
    return session


def _with_options(opening: Opening, engine: EnginePlan, derived: dict[str, str]) -> Opening:
    options = {engine.provider: derived | opening.configured[engine.provider]}
    return replace(opening, configured={**opening.configured, **options})


def _must_run(session: onnxruntime.InferenceSession, provider: str, path: Path) -> None:
    if provider not in session.get_providers():
        raise ProviderUnavailable(
            f"{path.name}: asked for {provider}, got {session.get_providers()}; install what it needs, or "
            "allow a fallback"
        )


def _open(opening: Opening, path: Path, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    names = list(opening.configured)
    options = _session_options(opening)
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            path,
            options,
            providers=list(opening.configured.items()),
            enable_fallback=int(opening.allow_fallback),
        )
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        if names != [CPU]:
            raise ProviderUnavailable(
                f"{path.name} does not open on {names}: {error}; use {CPU}, or allow a fallback"
            ) from error
        raise BundleIncompatible(
            f"ONNX Runtime {onnxruntime.__version__} does not open {path}: {error}; update it, or export "
            "again"
        ) from error
    session.disable_fallback()
    return session


def _session_options(opening: Opening) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads wait for each other by spinning, but not for the next batch: other processes need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_cpu_mem_arena = (
        False  # it would keep the memory of the largest batch for ever, and saves no time
    )
    options.add_session_config_entry(
        "session.disable_prepacking", str(int(opening.memory == WeightMemory.LOW))
    )
    if opening.num_threads is not None:
        options.intra_op_num_threads = opening.num_threads
    return options
