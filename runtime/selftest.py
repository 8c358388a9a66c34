"""The bundle proves itself where it runs: golden clips must get the answers that they got when it was made."""

from dataclasses import dataclass

import numpy as np

from media import Modality

from .bundle import Bundle
from .errors import SelfTestFailed
from .session import GraphSession

GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE = "golden/inputs.npz", "golden/outputs.npz"


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    """How far golden answers are from the stored ones, by graph."""

    max_abs_error: dict[str, float]
    tolerance: float
    clips: int


def self_test(bundle: Bundle, sessions: dict[Modality, GraphSession]) -> SelfTestReport:
    """Compare every output of every graph on the golden clips, one by one and as one batch.

    Raises:
        SelfTestFailed: names the output and its error.
    """
    tolerance = float(bundle.manifest["golden"]["tolerance"])
    inputs = dict(np.load(bundle.path / GOLDEN_INPUTS_FILE))
    expected = dict(np.load(bundle.path / GOLDEN_OUTPUTS_FILE))
    count = len(inputs["audio"])
    errors = {}
    for modality, session in sessions.items():
        given = {name: inputs[name] for name in session.input_names}
        singles = [session.run({k: v[i : i + 1] for k, v in given.items()}) for i in range(count)]
        runs = [session.run(given), {k: np.concatenate([s[k] for s in singles]) for k in singles[0]}]
        errors[str(modality)] = max(_error(run, expected, modality, tolerance, session.providers) for run in runs)
    return SelfTestReport(errors, tolerance, count)


def _error(
    got: dict[str, np.ndarray], expected: dict[str, np.ndarray], modality: Modality, tolerance: float, providers: list[str]
) -> float:
    worst = 0.0
    for name, value in got.items():
        error = float(np.abs(value - expected[f"{modality}.{name}"]).max())
        if not error <= tolerance:
            raise SelfTestFailed(f"{modality}: {name} is off by {error:.2g}, tolerance {tolerance:g}, on {providers[0]}")
        worst = max(worst, error)
    return worst
