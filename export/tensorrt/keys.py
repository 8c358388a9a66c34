"""Keys of TensorRT engines: an engine is used again only where all that went into it is the same.

An engine of `tensorrt` fits one version of it and one model of GPU. One of `tensorrt-rtx` is compiled for its GPU when it is
loaded; what is built here is portable, so the GPU at hand is no part of its key, but the compute capabilities asked for are.
"""

import ctypes
import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.weights_file import external_files
from runtime.bundle import sha256_of

from .profiles import EngineError, Profile, read_graph

PORTABLE = "8.0 and later"
"""What an engine of tensorrt-rtx runs on unless it was told: Ampere and later."""

SETTINGS = {"format": 1, "strongly_typed": True, "tf32": False}
"""How `engines` builds; what is changed there must be changed here, or old engines pass for new ones."""

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The first GPU that CUDA shows to this process."""

    name: str
    capability: str
    """Compute capability, as `8.9`."""
    cuda: str
    """Newest CUDA that the driver can run, as `13.0`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """A digest, and everything that it is of."""

    hex: str
    """64 hexadecimal digits."""
    ingredients: dict[str, Any]


def engine_key(
    path: Path,
    profile: Profile,
    *,
    builder: str,
    version: str,
    variant: str,
    capabilities: Sequence[str] = (),
    gpu: Gpu | None = None,
) -> EngineKey:
    """The key of an engine of the graph at `path`; `variant` names its numbers, as `fp16`.

    Raises:
        EngineError: the graph or its weights cannot be read.
    """
    ingredients = {
        "files": file_digests(path),
        "builder": builder,
        "version": version,
        "target": asdict(gpu) if gpu is not None else sorted(capabilities) or PORTABLE,
        "variant": variant,
        "profile": profile.batches,
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
        "settings": SETTINGS,
    }
    return EngineKey(hex=digest_of(ingredients), ingredients=ingredients)


def digest_of(ingredients: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def file_digests(path: Path) -> dict[str, str]:
    """SHA-256 of a graph and of each file of weights beside it, by file name.

    Raises:
        EngineError: a file is missing, or the graph cannot be read.
    """
    names = [path.name, *external_files(read_graph(path).graph)]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise EngineError(f"{path}: its weights {', '.join(missing)} are not beside it; copy them there")
    return {name: sha256_of(path.parent / name) for name in names}


def find_gpu() -> Gpu | None:
    """The GPU that an engine would be built for and run on, of CUDA's driver; None where there is none."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return None
    return describe_gpu(driver)


def describe_gpu(driver: Any) -> Gpu | None:
    """Ask CUDA's driver library for its first GPU; None where it finds none."""
    device, major, minor, version = (ctypes.c_int() for _ in range(4))
    name = ctypes.create_string_buffer(256)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    failures = [
        driver.cuDeviceGetName(name, len(name), device),
        driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device),
        driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device),
        driver.cuDriverGetVersion(ctypes.byref(version)),
    ]
    if any(failures):
        raise EngineError(f"CUDA's driver found a GPU but does not describe it (codes {failures}); see nvidia-smi")
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Gpu(name=name.value.decode(), capability=f"{major.value}.{minor.value}", cuda=cuda)
