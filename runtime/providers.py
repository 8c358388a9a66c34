"""Execution providers of ONNX Runtime: their names, which there are here, and what they are told."""

from collections.abc import Mapping, Sequence

import onnxruntime

from .errors import InvalidOption, ProviderUnavailable

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, TENSORRT_RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
ENGINE_PROVIDERS = (TENSORRT, TENSORRT_RTX)
"""Those that build engines."""
ON_CUDA = (CUDA, *ENGINE_PROVIDERS)
ProviderOptions = Mapping[str, Mapping[str, str]]
"""Options of execution providers, by provider, as ONNX Runtime documents them: `device_id`,
`trt_engine_cache_path`."""


def choose_providers(providers: Sequence[str], *, allow_fallback: bool) -> list[str]:
    """Those that this ONNX Runtime was built with; the CPU if it has none of them and a fallback is allowed.

    Raises:
        InvalidOption: no list of names, or a name that no ONNX Runtime knows.
        ProviderUnavailable: one is missing and no fallback is allowed.
    """
    known, built_in = onnxruntime.get_all_providers(), onnxruntime.get_available_providers()
    unknown = [name for name in providers if name not in known]
    if isinstance(providers, str) or not providers or unknown:
        raise InvalidOption(f"providers={providers!r}; give a list of names among {known}")
    missing = [name for name in providers if name not in built_in]
    if missing and not allow_fallback:
        raise ProviderUnavailable(
            f"this ONNX Runtime has no {missing}, it has {built_in}; install one that has, or allow a "
            "fallback"
        )
    return [name for name in providers if name in built_in] or [CPU]


def check_provider_options(options: ProviderOptions, providers: Sequence[str]) -> None:
    """Raise InvalidOption unless the options fit the providers.

    They must be strings, of providers that are asked for, and number CUDA's GPUs.
    """
    for name, given in options.items():
        if name not in providers:
            raise InvalidOption(
                f"provider_options has {name!r}; give options of {list(providers)}, which are asked for"
            )
        wrong = [key for key, value in given.items() if not isinstance(value, str)]
        if wrong:
            raise InvalidOption(f"provider_options of {name}: {wrong} must be strings, as '1' or 'True'")
        device_id = given.get("device_id", "0")
        if name in ON_CUDA and not device_id.isdecimal():
            raise InvalidOption(
                f"provider_options of {name}: device_id={device_id!r}; give the number of a GPU, from 0"
            )


def device_id_of(options: Mapping[str, str]) -> int:
    """Number of the GPU that a provider's options name; the first if they name none."""
    return int(options.get("device_id", "0"))
