"""ONNX Runtime sessions: which provider really runs, and how many threads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from media import ClipSpec

from .errors import BundleIncompatible, ProviderUnavailable

CPU = "CPUExecutionProvider"


class GraphSession:
    """One opened graph; `run` may be called from several threads."""

    def __init__(
        self,
        path: Path,
        spec: ClipSpec,
        *,
        providers: Sequence[str] = (CPU,),
        num_threads: int | None = None,
        allow_fallback: bool = False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        _check_known(providers)
        self._session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        self.providers: list[str] = self._session.get_providers()
        """What really runs; never what was asked for."""
        missing = [name for name in providers if name not in self.providers]
        if missing and not allow_fallback:
            raise ProviderUnavailable(
                f"asked for {list(providers)}, got {self.providers}; install what {missing} needs, or allow a fallback"
            )
        made_with = self._session.get_modelmeta().custom_metadata_map.get("clip_spec_hash")
        if made_with != spec.hash:
            raise BundleIncompatible(f"{path} was made for another ClipSpec ({made_with}, not {spec.hash})")
        self.input_names = [value.name for value in self._session.get_inputs()]
        self.output_names = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        return dict(zip(self.output_names, self._session.run(self.output_names, inputs), strict=True))


def _check_known(providers: Sequence[str]) -> None:
    known = onnxruntime.get_available_providers()
    unknown = [name for name in providers if name not in known]
    if unknown:
        raise ProviderUnavailable(f"this ONNX Runtime has no {unknown}; it has {known}")
