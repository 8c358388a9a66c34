"""GPUs as CUDA's driver describes them, without a library of CUDA.

Engines are kept by the GPU that they were built for.
"""

import ctypes
import platform
from dataclasses import dataclass
from typing import Any

from .errors import ProviderUnavailable

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU that CUDA shows to this process."""

    name: str
    capability: str
    """Compute capability, as `8.9`."""
    cuda: str
    """Newest CUDA that the driver can run, as `13.0`."""


def find_gpu(device_id: int = 0) -> Gpu | None:
    """The GPU of this number; None where there is none.

    Raises:
        ProviderUnavailable: it is there but is not described.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return None
    return describe_gpu(driver, device_id)


def describe_gpu(driver: Any, device_id: int = 0) -> Gpu | None:
    """Ask CUDA's driver library for a GPU; None where it finds none of this number.

    Raises:
        ProviderUnavailable: it is there but is not described.
    """
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), device_id):
        return None
    failures = [
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    ]
    if any(failures):
        raise ProviderUnavailable(
            f"CUDA's driver found a GPU but does not describe it (codes {failures}); see nvidia-smi"
        )
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name=name.value.decode(), capability=f"{major.value}.{minor.value}", cuda=cuda)
