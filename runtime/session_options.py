"""How the graphs of a bundle are opened, checked once and the same for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .options import WeightMemory, check_num_threads
from .providers import CPU, ProviderOptions, check_provider_options, choose_providers


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """Providers, threads and memory of the sessions of a bundle.

    Raises:
        InvalidOption: a name that no ONNX Runtime knows, options of a provider that is not requested, or 0
            threads.
        ProviderUnavailable: a provider is missing here and no fallback is allowed.
    """

    providers: Sequence[str] = (CPU,)
    """Execution providers as requested, in order of preference."""
    num_threads: int | None = None
    """Of one inference; None for all cores."""
    memory: WeightMemory = WeightMemory.FAST
    allow_fallback: bool = False
    """Take another provider where a requested one does not run."""
    provider_options: ProviderOptions = field(default_factory=dict)
    """By provider, as ONNX Runtime documents them."""

    def __post_init__(self) -> None:
        choose_providers(self.providers, allow_fallback=self.allow_fallback)
        check_num_threads(self.num_threads)
        check_provider_options(self.provider_options, self.providers)

    @property
    def available_providers(self) -> list[str]:
        """Those of the requested providers that this ONNX Runtime has; the CPU if it has none of them."""
        return choose_providers(self.providers, allow_fallback=self.allow_fallback)

    def of_provider(self, provider: str) -> Mapping[str, str]:
        """An operator's options of one provider."""
        return self.provider_options.get(provider, {})
