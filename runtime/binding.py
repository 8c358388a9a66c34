"""Batches on a device.

Inputs are copied there before the graph runs; outputs stay there until all of it has run.

`bind_cpu_input` puts an input where the graph reads it, by the session's own allocator; outputs are bound to
the device and copied back together. On the CPU nothing is copied either way and a plain `run` does the same.

Host memory is not pinned: from Python, ONNX Runtime has no such device ("Unsupported device type:
    cuda_pinned").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .providers import ON_CUDA, device_id_of


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDevice:
    """Where outputs are left, as ONNX Runtime names it."""

    type: str = "cpu"
    id: int = 0


def device_of(provider: str, options: Mapping[str, str]) -> OutputDevice:
    """Where a provider leaves outputs.

    For one whose device has no name here the CPU, to which it copies as it runs.
    """
    return OutputDevice(type="cuda", id=device_id_of(options)) if provider in ON_CUDA else OutputDevice()


def run_bound(
    session: Any, inputs: Mapping[str, np.ndarray], output_names: Sequence[str], *, device: OutputDevice
) -> list[np.ndarray]:
    """Outputs of one batch, in order.

    Each call has a binding of its own, so several threads may call at a time.
    """
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for name in output_names:
        binding.bind_output(name, device.type, device.id)
    binding.synchronize_inputs()  # they are copied on a stream of their own, which a run does not wait for
    session.run_with_iobinding(binding)
    outputs: list[np.ndarray] = binding.copy_outputs_to_cpu()
    return outputs
