"""The bundle proves itself where it runs.

Golden clips must get the answers that they got when the bundle was made.
"""

from dataclasses import dataclass

import numpy as np

from media import Modality

from .agreement import max_abs_error, min_cosine
from .bundle import Bundle, Tolerance, Variant
from .errors import BundleIncompatible, SelfTestFailed
from .session import GraphSession

GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE = "golden/inputs.npz", "golden/outputs.npz"


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    """How far golden answers are from the stored ones, by graph."""

    max_abs_error: dict[str, float]
    min_cosine: dict[str, float]
    tolerance: Tolerance
    clips: int


def self_test(bundle: Bundle, variant: Variant, sessions: dict[Modality, GraphSession]) -> SelfTestReport:
    """Compare every output of every graph of a variant on the golden clips, one by one and as one batch.

    The stored answers are those of `fp32`; each variant has a tolerance of its own.

    Raises:
        SelfTestFailed: names the output and its error.
        BundleIncompatible: the bundle has no golden clips.
    """
    try:
        inputs, expected = (_load(bundle, name) for name in (GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE))
        count = min(len(inputs[name]) for session in sessions.values() for name in session.input_names)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise BundleIncompatible(
            f"{bundle.path} has no golden clips to test it on: {error}; export it again"
        ) from error
    if count < 1:
        raise BundleIncompatible(
            f"{bundle.path} has 0 golden clips, which would prove nothing; export it again"
        )
    max_abs_error, min_cosine = {}, {}
    for modality, session in sessions.items():
        differences = [
            _difference(got, expected, modality, variant.tolerance, session.providers)
            for got in _runs(session, inputs, count)
        ]
        max_abs_error[str(modality)] = max(error for error, _ in differences)
        min_cosine[str(modality)] = min(cosine for _, cosine in differences)
    return SelfTestReport(max_abs_error, min_cosine, variant.tolerance, count)


def _load(bundle: Bundle, name: str) -> dict[str, np.ndarray]:
    with np.load(bundle.path / name, allow_pickle=False) as arrays:
        return dict(arrays)


def _runs(session: GraphSession, inputs: dict[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """Outputs for all clips: as one batch, and one by one."""
    given = {name: inputs[name] for name in session.input_names}
    singles = [session.run({name: x[i : i + 1] for name, x in given.items()}) for i in range(count)]
    return [session.run(given), {name: np.concatenate([one[name] for one in singles]) for name in singles[0]}]


def _difference(
    got: dict[str, np.ndarray],
    expected: dict[str, np.ndarray],
    modality: Modality,
    tolerance: Tolerance,
    providers: list[str],
) -> tuple[float, float]:
    """Largest error of any output, least cosine of any embedding."""
    worst, least = 0.0, 1.0
    for name, value in got.items():
        wanted = expected.get(f"{modality}.{name}")
        if wanted is None or wanted.shape != value.shape:
            shape = None if wanted is None else wanted.shape
            raise SelfTestFailed(
                f"{modality}: {name} has shape {value.shape}, the stored answer {shape}; export it again"
            )
        error = max_abs_error(value, wanted)
        cosine = min_cosine(value, wanted) if name.endswith("_embedding") else 1.0
        if not (error <= tolerance.max_abs_error and cosine >= tolerance.min_cosine):  # so written, NaN fails
            raise SelfTestFailed(
                f"{modality}: {name} is off by {error:.2g}, cosine {cosine:.5f}; allowed are "
                f"{tolerance.max_abs_error:g} and {tolerance.min_cosine:g}, on {providers[0]}; use another "
                "provider or "
                "variant"
            )
        worst, least = max(worst, error), min(least, cosine)
    return worst, least
