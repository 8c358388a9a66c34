"""ONNX Runtime sessions: which provider really runs, how many threads, and whether a graph is what its bundle says.

The surprising fact: asked for a provider that does not load, ONNX Runtime takes the CPU in silence, when it opens a graph
and again when a run fails. So fallback is switched off unless allowed, and what runs is read from the session.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from media import ClipSpec, Modality

from .errors import BundleIncompatible, InvalidOption, ProviderUnavailable
from .options import Memory, check_num_threads
from .signature import input_tensors, output_names

CPU = "CPUExecutionProvider"
ProviderOptions = Mapping[str, Mapping[str, str]]
"""Options of execution providers, by provider, as ONNX Runtime documents them: `device_id`, `trt_engine_cache_path`."""
logger = logging.getLogger("zorro.runtime")
DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class GraphSession:
    """One opened graph; `run` may be called from several threads."""

    def __init__(
        self,
        path: Path,
        modality: Modality,
        spec: ClipSpec,
        *,
        num_labels: int,
        providers: Sequence[str] = (CPU,),
        num_threads: int | None = None,
        memory: Memory = Memory.FAST,
        allow_fallback: bool = False,
        provider_options: ProviderOptions | None = None,
    ) -> None:
        chosen = choose_providers(providers, allow_fallback=allow_fallback)
        configured = [(name, dict((provider_options or {}).get(name, {}))) for name in chosen]
        self._session = _open(path, configured, num_threads=num_threads, memory=memory, allow_fallback=allow_fallback)
        self.providers: list[str] = self._session.get_providers()
        """What really runs; never what was asked for."""
        missing = [name for name in providers if name not in self.providers]
        if missing and not allow_fallback:
            raise ProviderUnavailable(
                f"asked for {list(providers)}, got {self.providers}; install what {missing} needs, or allow a fallback"
            )
        if missing:
            logger.warning("%s: asked for %s, runs on %s", path.name, list(providers), self.providers)
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]
        _check_graph(self._session, path, modality, spec, num_labels)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        return dict(zip(self.output_names, self._session.run(self.output_names, inputs), strict=True))


def choose_providers(providers: Sequence[str], *, allow_fallback: bool) -> list[str]:
    """Those that this ONNX Runtime was built with; the CPU if it has none of them and a fallback is allowed.

    Raises:
        InvalidOption: no list of names, or a name that no ONNX Runtime knows.
        ProviderUnavailable: one is missing and no fallback is allowed.
    """
    known, built_in = onnxruntime.get_all_providers(), onnxruntime.get_available_providers()
    unknown = [name for name in providers if name not in known]
    if isinstance(providers, str) or not providers or unknown:
        raise InvalidOption(f"providers={providers!r}; give a list of names among {known}")
    missing = [name for name in providers if name not in built_in]
    if missing and not allow_fallback:
        raise ProviderUnavailable(
            f"this ONNX Runtime has no {missing}, it has {built_in}; install one that has, or allow a fallback"
        )
    return [name for name in providers if name in built_in] or [CPU]


def check_provider_options(options: ProviderOptions, providers: Sequence[str]) -> None:
    """Raise InvalidOption unless all options are strings, and of providers that are asked for."""
    for name, given in options.items():
        if name not in providers:
            raise InvalidOption(f"provider_options has {name!r}; give options of {list(providers)}, which are asked for")
        wrong = [key for key, value in given.items() if not isinstance(value, str)]
        if wrong:
            raise InvalidOption(f"provider_options of {name}: {wrong} must be strings, as '1' or 'True'")


def _open(
    path: Path, providers: list[tuple[str, dict[str, str]]], *, num_threads: int | None, memory: Memory, allow_fallback: bool
) -> onnxruntime.InferenceSession:
    check_num_threads(num_threads)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads wait for each other by spinning, but not for the next batch: other processes need the cores.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch for ever, and saves no time
    options.add_session_config_entry("session.disable_prepacking", str(int(memory == Memory.LOW)))
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=providers, enable_fallback=int(allow_fallback)
        )
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        names = [name for name, _ in providers]
        if names != [CPU]:
            raise ProviderUnavailable(
                f"{path.name} does not open on {names}: {error}; use {CPU}, or allow a fallback"
            ) from error
        raise BundleIncompatible(
            f"ONNX Runtime {onnxruntime.__version__} does not open {path}: {error}; update it, or export again"
        ) from error
    if not allow_fallback:
        session.disable_fallback()
    return session


def _check_graph(
    session: onnxruntime.InferenceSession, path: Path, modality: Modality, spec: ClipSpec, num_labels: int
) -> None:
    """Raise BundleIncompatible unless the graph is that of `modality`, made for `spec` and this many labels."""
    stored = session.get_modelmeta().custom_metadata_map
    inputs = [(x.name, DTYPES.get(x.type, x.type), tuple(x.shape[1:])) for x in session.get_inputs()]
    outputs = {x.name: x.shape for x in session.get_outputs()}
    widths = {shape[-1] for name, shape in outputs.items() if name.endswith("_logits")}
    facts = (
        ("ClipSpec", stored.get("clip_spec_hash"), spec.hash),
        ("modality", stored.get("modality"), str(modality)),
        ("inputs", inputs, [tuple(tensor) for tensor in input_tensors(modality, spec)]),
        ("outputs", list(outputs), output_names(modality)),
        ("number of labels", widths, {num_labels}),
    )
    for what, got, wanted in facts:
        if got != wanted:
            raise BundleIncompatible(
                f"{path} was made for another {what}: got {got}, the bundle wants {wanted}; export it again"
            )
