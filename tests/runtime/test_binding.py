"""IO binding: the answers of a plain run, on whatever device; here there is the CPU alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from media import Modality
from runtime import Zorro
from runtime.binding import OutputDevice, device_of, run_bound
from runtime.session import GraphSession

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"


@pytest.fixture
def session(bundle: Path) -> GraphSession:
    return Zorro.open(bundle, num_threads=1).session(Modality.FUSED)


def batch(session: GraphSession, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    made = {
        "audio": random.normal(size=(count, 64, 32)).astype(np.float32),
        "video": random.integers(0, 256, (count, 2, 32, 32, 3), np.uint8),
    }
    return {name: made[name] for name in session.input_names}


@pytest.mark.parametrize(
    ("provider", "options", "device"),
    [
        (CPU, {}, OutputDevice()),
        (CUDA, {}, OutputDevice(type="cuda", id=0)),
        (TENSORRT, {"device_id": "1"}, OutputDevice(type="cuda", id=1)),
        ("NvTensorRTRTXExecutionProvider", {"device_id": "3"}, OutputDevice(type="cuda", id=3)),
        ("OpenVINOExecutionProvider", {"device_id": "GPU.1"}, OutputDevice()),
    ],
)
def test_outputs_stay_on_the_device_that_the_provider_runs_on(
    provider: str, options: dict[str, str], device: OutputDevice
) -> None:
    assert device_of(provider, options) == device


@pytest.mark.parametrize("count", [1, 3])
def test_a_bound_run_gives_the_bits_of_a_plain_one(session: GraphSession, count: int) -> None:
    inputs = batch(session, count)
    bound = run_bound(session._session, inputs, session.output_names, device=OutputDevice())
    plain = session.run(inputs)
    for name, value in zip(session.output_names, bound, strict=True):
        np.testing.assert_array_equal(value, plain[name])


def test_bound_runs_at_the_same_time_do_not_mix(session: GraphSession) -> None:
    batches = [batch(session, 1 + seed % 3, seed) for seed in range(12)]

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return run_bound(session._session, inputs, session.output_names, device=OutputDevice())

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, batches))
    for inputs, values in zip(batches, together, strict=True):
        for name, value in zip(session.output_names, values, strict=True):
            np.testing.assert_array_equal(value, session.run(inputs)[name])


def test_a_session_elsewhere_than_on_the_cpu_is_bound(
    session: GraphSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = batch(session, 2)
    plain = session.run(inputs)
    session.providers = ["OpenVINOExecutionProvider", CPU]
    monkeypatch.setattr(session._session, "run", None)
    bound = session.run(inputs)
    assert list(bound) == session.output_names
    for name, value in plain.items():
        np.testing.assert_array_equal(bound[name], value)


def test_an_output_that_is_not_there_fails(session: GraphSession) -> None:
    with pytest.raises(Exception, match="smell_logits"):
        run_bound(session._session, batch(session, 1), ["smell_logits"], device=OutputDevice())


def test_a_batch_that_is_larger_than_the_engines_runs_in_parts(session: GraphSession) -> None:
    inputs = batch(session, 5)
    singles = [session.run({name: array[i : i + 2] for name, array in inputs.items()}) for i in (0, 2, 4)]
    session._max_batch_size = 2
    sizes, run = [], session._run

    def seen(part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append(len(part["audio"]))
        return run(part)

    session._run = seen  # type: ignore[method-assign]
    whole = session.run(inputs)
    assert sizes == [2, 2, 1]
    for name in session.output_names:
        np.testing.assert_array_equal(whole[name], np.concatenate([single[name] for single in singles]))
