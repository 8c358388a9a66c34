"""The bundle proves itself where it runs: golden clips must get the answers that they got when it was made."""

from dataclasses import dataclass

import numpy as np

from media import Modality

from .bundle import Bundle
from .errors import BundleIncompatible, SelfTestFailed
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
        BundleIncompatible: the bundle has no golden clips.
    """
    try:
        tolerance = float(bundle.manifest["golden"]["tolerance"])
        inputs, expected = (_load(bundle, name) for name in (GOLDEN_INPUTS_FILE, GOLDEN_OUTPUTS_FILE))
        count = min(len(inputs[name]) for session in sessions.values() for name in session.input_names)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise BundleIncompatible(f"{bundle.path} has no golden clips to test it on: {error}; export it again") from error
    if count < 1:
        raise BundleIncompatible(f"{bundle.path} has 0 golden clips, which would prove nothing; export it again")
    errors = {
        str(modality): max(
            _error(run, expected, modality, tolerance, session.providers) for run in _runs(session, inputs, count)
        )
        for modality, session in sessions.items()
    }
    return SelfTestReport(errors, tolerance, count)


def _load(bundle: Bundle, name: str) -> dict[str, np.ndarray]:
    with np.load(bundle.path / name, allow_pickle=False) as arrays:
        return dict(arrays)


def _runs(session: GraphSession, inputs: dict[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """Outputs for all clips: as one batch, and one by one."""
    given = {name: inputs[name] for name in session.input_names}
    singles = [session.run({name: x[i : i + 1] for name, x in given.items()}) for i in range(count)]
    return [session.run(given), {name: np.concatenate([one[name] for one in singles]) for name in singles[0]}]


def _error(
    got: dict[str, np.ndarray], expected: dict[str, np.ndarray], modality: Modality, tolerance: float, providers: list[str]
) -> float:
    worst = 0.0
    for name, value in got.items():
        wanted = expected.get(f"{modality}.{name}")
        if wanted is None or wanted.shape != value.shape:
            shape = None if wanted is None else wanted.shape
            raise SelfTestFailed(f"{modality}: {name} has shape {value.shape}, the stored answer {shape}; export it again")
        error = float(np.abs(value - wanted).max())
        if not error <= tolerance:  # so written, NaN fails
            raise SelfTestFailed(
                f"{modality}: {name} is off by {error:.2g}, tolerance {tolerance:g}, on {providers[0]}; use another provider"
            )
        worst = max(worst, error)
    return worst
