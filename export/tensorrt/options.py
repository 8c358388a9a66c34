"""What ONNX Runtime's providers and trtexec must be told so that they build as `engines` does.

Our own server tells its providers itself, by the same functions of `runtime.engines`, which says what no
option can.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from media import Modality
from runtime.engines import (
    EngineIngredients,
    Profile,
    cache_options,
    graph_folder,
    profile_options,
    shapes_argument,
)
from runtime.gpu import find_gpu
from runtime.providers import ENGINE_PROVIDERS, TENSORRT

from .keys import file_digests
from .profiles import input_shapes

TIMING_CACHE = "timing.cache"
PROFILES_FILE = "profiles.json"


def provider_options(path: Path, profile: Profile, cache: Path, *, variant: str) -> dict[str, dict[str, str]]:
    """Options of a graph's session for either provider, all strings.

    `variant` names the graph's numbers, as `fp16`.

    Raises:
        EngineError: the graph cannot be read, or more than its batch varies.
    """
    shapes, digests, gpu = input_shapes(path), file_digests(path), find_gpu()
    options = {}
    for provider in ENGINE_PROVIDERS:
        ingredients = EngineIngredients(
            provider=provider, digests=digests, variant=variant, profile=profile, gpu=gpu
        )
        folder = graph_folder(cache, path.stem, ingredients)
        options[provider] = profile_options(provider, shapes, profile) | cache_options(provider, folder)
    return options


def trtexec_arguments(graph: Path, profile: Profile, out: Path) -> list[str]:
    """The command that builds engine `out` of a graph with NVIDIA's trtexec.

    Its timing cache lies beside `out`.

    `tensorrt_rtx`, the tool of TensorRT-RTX, takes the same but for the timing cache.

    Raises:
        EngineError: the graph cannot be read, or more than its batch varies.
    """
    shapes = input_shapes(graph)
    return [
        "trtexec",
        f"--onnx={graph}",
        f"--saveEngine={out}",
        *(f"--{name}Shapes={shapes_argument(shapes, batch)}" for name, batch in profile.batches.items()),
        "--stronglyTyped",  # needed by TensorRT 10; later ones are always so, and take it
        "--noTF32",
        f"--timingCacheFile={out.parent / TIMING_CACHE}",
        "--skipInference",
    ]


def write_profiles(graphs: Mapping[Modality, Path], profile: Profile, out: Path, *, variant: str) -> Path:
    """Write `profiles.json` with all of the above into `out`, and return its path.

    It also makes the folders that the file names.

    Raises:
        EngineError: a graph cannot be read, or more than its batch varies.
    """
    content: dict[str, Any] = {"profile": profile.batches, "graphs": {}}
    for modality, path in graphs.items():
        options = provider_options(path, profile, out, variant=variant)
        folder = Path(options[TENSORRT]["trt_engine_cache_path"])
        folder.mkdir(parents=True, exist_ok=True)  # the provider makes no parents
        content["graphs"][str(modality)] = {
            "provider_options": options,
            "trtexec": trtexec_arguments(path, profile, folder / f"{path.stem}.engine"),
        }
    target = out / PROFILES_FILE
    target.write_text(json.dumps(content, indent=2) + "\n")
    return target
