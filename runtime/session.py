"""ONNX Runtime sessions.

Which provider really runs, how many threads, and whether a graph is what its bundle says.

The surprising fact: asked for a provider that does not load, ONNX Runtime takes the CPU in silence, when it
opens a graph and again when a run fails. So fallback is switched off unless allowed, for runs always, and
what runs is read from the session.
"""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime

from media import ClipSpec, Modality

from .binding import device_of, run_bound
from .engines import EnginePlan
from .errors import BundleIncompatible, ProviderUnavailable
from .opening import Opening, open_graph, open_with_engine
from .providers import CPU
from .session_options import SessionOptions
from .signature import TensorInfo, input_tensors, output_names

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
        options: SessionOptions,
        engine: EnginePlan | None = None,
    ) -> None:
        opening = Opening(
            path=path,
            configured={name: dict(options.of_provider(name)) for name in options.available_providers},
            num_threads=options.num_threads,
            memory=options.memory,
            allow_fallback=options.allow_fallback,
            check=partial(_check_graph, path, modality, spec, num_labels),
        )
        self._session = open_graph(opening) if engine is None else open_with_engine(opening, engine)
        self.providers: list[str] = self._session.get_providers()
        """What really runs; never what was asked for."""
        self._check_providers(path, options)
        self.inputs = [_tensor_info(value) for value in self._session.get_inputs()]
        self.outputs = [_tensor_info(value) for value in self._session.get_outputs()]
        self.input_names = [tensor.name for tensor in self.inputs]
        self.output_names = [tensor.name for tensor in self.outputs]
        self._device = device_of(self.providers[0], options.of_provider(self.providers[0]))
        self._max_batch_size = (
            engine.profile.max if engine is not None and engine.provider in self.providers else None
        )

    def _check_providers(self, path: Path, options: SessionOptions) -> None:
        """Refuse a provider that was not requested, or log it where a fallback is allowed."""
        requested = list(options.providers)
        missing = [name for name in requested if name not in self.providers]
        if missing and not options.allow_fallback:
            raise ProviderUnavailable(
                f"asked for {requested}, got {self.providers}; install what {missing} needs, or allow a "
                "fallback"
            )
        if missing:
            logger.warning("%s: asked for %s, runs on %s", path.name, requested, self.providers)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name.

        A batch that is larger than the engine's runs in parts, so that no engine is built for it.
        """
        count = len(next(iter(inputs.values())))
        size = self._max_batch_size
        if size is None or count <= size:
            return self._run(inputs)
        starts = range(0, count, size)
        parts = [self._run({name: array[i : i + size] for name, array in inputs.items()}) for i in starts]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.output_names}

    def _run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.providers[0] == CPU:
            values = self._session.run(self.output_names, inputs)
        else:
            values = run_bound(self._session, inputs, self.output_names, device=self._device)
        return dict(zip(self.output_names, values, strict=True))


def _tensor_info(value: onnxruntime.NodeArg) -> TensorInfo:
    """An input or output as ONNX Runtime describes it."""
    return TensorInfo(value.name, DTYPES.get(value.type, value.type), tuple(value.shape[1:]))


def _check_graph(
    path: Path,
    modality: Modality,
    spec: ClipSpec,
    num_labels: int,
    session: onnxruntime.InferenceSession,
    *,
    has_metadata: bool,
) -> None:
    """Raise BundleIncompatible unless the graph is that of `modality`.

    It must also be made for `spec` and this many labels.
    """
    stored = session.get_modelmeta().custom_metadata_map
    inputs = [_tensor_info(value) for value in session.get_inputs()]
    outputs = {x.name: x.shape for x in session.get_outputs()}
    widths = {shape[-1] for name, shape in outputs.items() if name.endswith("_logits")}
    of_metadata = (
        ("ClipSpec", stored.get("clip_spec_hash"), spec.hash),
        ("modality", stored.get("modality"), str(modality)),
    )
    of_tensors = (
        ("inputs", inputs, input_tensors(modality, spec)),
        ("outputs", list(outputs), output_names(modality)),
        ("number of labels", widths, {num_labels}),
    )
    for what, got, wanted in (*(of_metadata if has_metadata else ()), *of_tensors):
        if got != wanted:
            raise BundleIncompatible(
                f"{path} was made for another {what}: got {got}, the bundle wants {wanted}; export it again"
            )
