"""What ONNX Runtime's providers and trtexec must be told so that they build as `engines` does.

No precision is asked for. TensorRT 11 and TensorRT-RTX are strongly typed: they compute in the types that the graph names,
so the variant is the precision. With TensorRT 10 the provider is strongly typed only while `trt_fp16_enable`,
`trt_bf16_enable` and `trt_int8_enable` are unset: setting one would let it put into float16 what `mixed_precision` keeps in
float32. TF32 is no option of either provider; the environment's `NVIDIA_TF32_OVERRIDE=0` turns it off.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from media import Modality

from .keys import digest_of, file_digests
from .profiles import Profile, input_shapes, shapes_argument

TENSORRT, TENSORRT_RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
TIMING_CACHE = "timing.cache"
PROFILES_FILE = "profiles.json"


def provider_options(
    graphs: Mapping[Modality, Path], profile: Profile, cache_dir: Path
) -> dict[Modality, dict[str, dict[str, str]]]:
    """Options of each graph's session for either provider, all strings, as `{"audio": {"TensorrtExecutionProvider": {}}}`.

    Each graph has a folder of its own, named by its bytes and the profile. The providers name an engine by the graph's file
    name, its tensors' names and their own versions, not by its weights, so in one folder two bundles of one architecture
    would answer with each other's engines.

    No context model (`trt_dump_ep_context_model`) is asked for: it is another graph, which the bundle's sums do not cover.

    Raises:
        EngineError: a graph cannot be read, or more than its batch varies.
    """
    return {modality: _options(path, profile, graph_folder(path, profile, cache_dir)) for modality, path in graphs.items()}


def _options(path: Path, profile: Profile, folder: Path) -> dict[str, dict[str, str]]:
    shapes = input_shapes(path)
    ranges = {name: shapes_argument(shapes, batch) for name, batch in profile.batches.items()}
    return {
        TENSORRT: {
            "trt_engine_cache_enable": "True",  # "1" is refused
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder.parent),
            **{f"trt_profile_{name}_shapes": value for name, value in ranges.items()},
        },
        TENSORRT_RTX: {
            "nv_runtime_cache_path": str(folder),
            **{f"nv_profile_{name}_shapes": value for name, value in ranges.items()},
        },
    }


def graph_folder(path: Path, profile: Profile, cache_dir: Path) -> Path:
    """Where a provider keeps what it builds of one graph for one profile."""
    digest = digest_of({"files": file_digests(path), "profile": profile.batches})
    return cache_dir / f"{path.stem}-{digest[:16]}"


def trtexec_arguments(graph: Path, profile: Profile, out: Path) -> list[str]:
    """The command that builds engine `out` of a graph with NVIDIA's trtexec; its timing cache lies beside `out`.

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


def write_profiles(graphs: Mapping[Modality, Path], profile: Profile, out: Path) -> Path:
    """Write `profiles.json` with all of the above into `out`, make the folders that it names, and return its path.

    Raises:
        EngineError: a graph cannot be read, or more than its batch varies.
    """
    options = provider_options(graphs, profile, out)
    content: dict[str, Any] = {"profile": profile.batches, "graphs": {}}
    for modality, path in graphs.items():
        folder = graph_folder(path, profile, out)
        folder.mkdir(parents=True, exist_ok=True)  # the providers make no parents
        content["graphs"][str(modality)] = {
            "provider_options": options[modality],
            "trtexec": trtexec_arguments(path, profile, folder / f"{path.stem}.engine"),
        }
    target = out / PROFILES_FILE
    target.write_text(json.dumps(content, indent=2) + "\n")
    return target
