"""Keys of TensorRT engines: an engine is used again only where all that went into it is the same.

An engine of `tensorrt` fits one version of it and one model of GPU. One of `tensorrt-rtx` is compiled for its
GPU when it is loaded; what is built here is portable, so the GPU at hand is no part of its key, but the
compute capabilities asked for are.
"""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.weights_file import external_files
from runtime.bundle import sha256_of
from runtime.engines import Profile, digest_of
from runtime.gpu import Gpu

from .profiles import EngineError, read_graph

PORTABLE = "8.0 and later"
"""What an engine of tensorrt-rtx runs on unless it was told: Ampere and later."""

SETTINGS = {"format": 1, "strongly_typed": True, "tf32": False}
"""How `engines` builds; what is changed there must be changed here, or old engines pass for new ones."""


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
