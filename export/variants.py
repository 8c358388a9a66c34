"""Variants of a bundle: one model in other numbers, what each may differ by, and which provider takes which.

| variant | for | numbers |
|---|---|---|
| `fp32` | everything | float32 |
| `fp16` | GPUs | products in float16, see `mixed_precision` |
| `int8-cpu` | CPUs | products in int8 of unsigned activations, see `quantize` |
| `int8-qdq` | TensorRT | products in int8 around zero |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import onnx
from onnxruntime.quantization.calibrate import TensorsData

from media import Clip, Modality
from media.progress import NO_FIGURES, OnProgress, ignore_progress
from runtime.bundle import ANY_PROVIDER, Tolerance

from .mixed_precision import to_mixed_float16
from .parity import stack
from .quantize import SCHEMES, Inputs, find_sensitive, measure_ranges, quantise
from .weights_file import write_graphs

VARIANTS = ("fp32", "fp16", *SCHEMES)
FOR_CPUS = frozenset({"int8-cpu"})
"""Variants that TensorRT does not take."""

_INT8 = Tolerance(max_abs_error=1.5, min_cosine=0.99, min_top1_agreement=0.97)
TOLERANCES = {
    "fp32": Tolerance(max_abs_error=1e-4, min_cosine=0.99999, min_top1_agreement=1.0),
    "fp16": Tolerance(max_abs_error=0.05, min_cosine=0.9999, min_top1_agreement=0.99),
    "int8-cpu": _INT8,
    "int8-qdq": _INT8,
}
"""How far from the model a variant may be on any real clip; not written otherwise.

Logits are of the order of 10.
"""

# Golden clips are like nothing that a model was trained on: which label is first there may be a toss-up.
# Processors differ in the order of sums, so fp32 is given more than at export; a wrong graph is off by far
# more.
_GOLDEN_INT8 = Tolerance(max_abs_error=1.5, min_cosine=0.999, min_top1_agreement=0.0)
GOLDEN_TOLERANCES = {
    "fp32": Tolerance(max_abs_error=1e-3, min_cosine=0.99999, min_top1_agreement=0.0),
    "fp16": Tolerance(max_abs_error=0.05, min_cosine=0.9999, min_top1_agreement=0.0),
    "int8-cpu": _GOLDEN_INT8,
    "int8-qdq": _GOLDEN_INT8,
}
"""How far from the model a variant may be on the golden clips, on any machine."""

PREFERRED = {
    "CUDAExecutionProvider": "fp16",
    "TensorrtExecutionProvider": "fp16",
    "NvTensorRTRTXExecutionProvider": "fp16",
}
"""What a provider takes if the bundle has it; everything else takes fp32."""

MARGIN = 0.5
"""Share of what int8 may lose in cosine that its search for sensitive layers allows on the clips it sees."""


@dataclass(slots=True)
class Calibration:
    """Clips for the ranges of int8, by graph.

    They are real ones of the training split, and the golden ones, which are louder.
    """

    clips: Mapping[Modality, Sequence[Clip]] = field(default_factory=dict)
    _ranges: dict[Path, TensorsData] = field(default_factory=dict, init=False)

    def beside(self, golden: Mapping[Modality, Sequence[Clip]]) -> Self:
        """With golden clips before the real ones.

        A range that is measured on speech alone clips all other sound.
        """
        return type(self)({modality: (*golden[modality], *clips) for modality, clips in self.clips.items()})

    def batches(self, modality: Modality) -> list[Inputs]:
        """One clip a batch."""
        return [stack([clip], modality) for clip in self.clips.get(modality, ())]

    def ranges(self, modality: Modality, path: Path) -> TensorsData:
        """Of the tensors of the float32 graph at `path`; measured once, for all schemes."""
        if path not in self._ranges:
            self._ranges[path] = measure_ranges(path, self.batches(modality))
        return self._ranges[path]


def check_variants(variants: Sequence[str], calibration: Calibration | None) -> None:
    """Raise ValueError unless these variants can be written.

    They must be known, with `fp32` among them, and int8 needs clips to calibrate on.
    """
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown or "fp32" not in variants:
        raise ValueError(f"variants={list(variants)}; give some of {', '.join(VARIANTS)}, fp32 among them")
    integer = [name for name in variants if name in SCHEMES]
    if integer and calibration is None:
        raise ValueError(
            f"{', '.join(integer)} must be calibrated on real clips; give data with a training split"
        )


def provider_table(variants: Sequence[str]) -> dict[str, str]:
    """Which of these variants each provider takes."""
    return {ANY_PROVIDER: "fp32"} | {
        provider: name for provider, name in PREFERRED.items() if name in variants
    }


def write_variant(
    name: str,
    full: Mapping[Modality, Path],
    folder: Path,
    *,
    calibration: Calibration,
    on_progress: OnProgress = ignore_progress,
) -> tuple[dict[Modality, Path], list[str]]:
    """Derive variant `name` from the float32 graphs `full` into `folder`.

    Returns:
        Its graphs, and the layers that are left in float32.

    Raises:
        ValueError: the model cannot be had in these numbers; see `mixed_precision` and `quantize`.
    """
    if name == "fp16":
        graphs = ((modality, to_mixed_float16(onnx.load(path))) for modality, path in full.items())
        return write_graphs(graphs, folder), []
    scheme = SCHEMES[name]

    def on_search(stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
        on_progress(f"{name}: {stage}", done, total, figures)

    ranges = {modality: calibration.ranges(modality, path) for modality, path in full.items()}
    allowed = 1 - MARGIN * (1 - GOLDEN_TOLERANCES[name].min_cosine)
    kept = find_sensitive(
        full[Modality.FUSED],
        ranges[Modality.FUSED],
        scheme,
        calibration.batches(Modality.FUSED),
        min_cosine=allowed,
        on_progress=on_search,
    )
    graphs = ((m, quantise(path, ranges[m], scheme, without=kept)) for m, path in full.items())
    return write_graphs(graphs, folder), kept
