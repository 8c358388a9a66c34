"""Execution providers of ONNX Runtime: their names, which there are here, and what they are told."""

from collections.abc import Mapping, Sequence

import onnxruntime

from .errors import InvalidOption, ProviderUnavailable

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, TENSORRT_RTX = "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider"
ENGINE_PROVIDERS = (TENSORRT, TENSORRT_RTX)
"""Those that build engines."""
ON_CUDA = (CUDA, *ENGINE_PROVIDERS)
ExecutionProvider = str | tuple[str, Mapping[str, str | int | float]]
"""A name, alone or with options, as ONNX Runtime's sessions take it."""
ProviderOptions = Mapping[str, Mapping[str, str]]
"""Options of execution providers, by provider, as ONNX Runtime documents them: `device_id`,
`trt_engine_cache_path`."""


def split_providers(providers: Sequence[ExecutionProvider]) -> tuple[list[str], ProviderOptions]:
    """Names of providers in their order, and options by name, whose values become strings.

    Raises:
        InvalidOption: no list of names and pairs, an option that is neither a string nor a number, or a
            provider that is listed twice with different options.
    """
    if isinstance(providers, str) or not all(_is_provider(provider) for provider in providers):
        raise InvalidOption(
            f"providers={providers!r}; give a list of names among {onnxruntime.get_all_providers()}, or of "
            "pairs (name, options)"
        )
    pairs = [(p, {}) if isinstance(p, str) else (p[0], _option_texts(*p)) for p in providers]
    options = dict(pairs)
    for name, given in pairs:
        if given != options[name]:
            raise InvalidOption(f"providers has {name} twice, with different options; list it once")
    return [name for name, _ in pairs], options


def _is_provider(value: object) -> bool:
    if isinstance(value, tuple) and len(value) == 2:
        return isinstance(value[0], str) and isinstance(value[1], Mapping)
    return isinstance(value, str)


def _option_texts(name: str, options: Mapping[str, object]) -> dict[str, str]:
    """Values as strings, which is what ONNX Runtime makes of them."""
    wrong = [key for key, value in options.items() if not isinstance(value, str | int | float)]
    if wrong:
        raise InvalidOption(f"options of {name}: {wrong} must be strings or numbers, as '1', 1 or True")
    return {key: str(value) for key, value in options.items()}


def pair_providers(providers: Sequence[str], options: ProviderOptions) -> list[ExecutionProvider]:
    """Each provider with its options if it has any, as `split_providers` takes them.

    Raises:
        InvalidOption: options of a provider that is not listed, or a GPU that is no number.
    """
    check_provider_options(options, providers)
    return [(name, options[name]) if name in options else name for name in providers]


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
    """Raise InvalidOption unless the options are of listed providers, and number CUDA's GPUs."""
    for name, given in options.items():
        if name not in providers:
            raise InvalidOption(
                f"provider_options has {name!r}; give options of {list(providers)}, which are asked for"
            )
        device_id = given.get("device_id", "0")
        if name in ON_CUDA and not device_id.isdecimal():
            raise InvalidOption(
                f"options of {name}: device_id={device_id!r}; give the number of a GPU, from 0"
            )


def device_id_of(options: Mapping[str, str]) -> int:
    """Number of the GPU that a provider's options name; the first if they name none."""
    return int(options.get("device_id", "0"))
