"""The models being served: loaded, self-tested, and found by id."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime import Bundle, Engines, WeightMemory, Zorro, find_bundles, read_bundle
from runtime.providers import pair_providers

from .errors import ServiceError
from .settings import Settings

PROJECT_MODEL = "everyday"
"""The bundle that comes with the project. It answers if no model is named, by client or operator."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One bundle, opened for both kinds of batches.

    The same object twice if they have equally many threads.
    """

    alone: Zorro
    """For a batch that has the server to itself."""
    beside: Zorro
    """For batches that run beside others, with their share of the threads."""


class ModelRepository:
    """Models by id: NAME/VERSION, or NAME for its newest version."""

    def __init__(self, models: Sequence[ServedModel], *, default_model: str | None = None) -> None:
        """Hold these models.

        Args:
            models: at least one; the versions of a name in order.
            default_model: id of the model that answers if none is named.

        Raises:
            ServiceError: there is no model with the id `default_model`.
        """
        self.models = tuple(models)
        self._by_id: dict[str, Zorro] = {}
        for served in models:
            bundle = served.alone.bundle
            self._by_id[f"{bundle.name}/{bundle.version}"] = served.alone
            self._by_id[bundle.name] = served.alone  # versions come in order: the last is the newest
        self._default_id = default_model or self._project_model_or_first()
        self.get(self._default_id)

    def get(self, model_id: str | None) -> Zorro:
        """The model with this id; None is the default.

        Raises:
            ServiceError: there is none.
        """
        if model_id is None:
            model_id = self._default_id
        if model_id not in self._by_id:
            raise ServiceError(
                "unknown_model", f"no model {model_id[:80]!r}; there are {', '.join(self._by_id)}"
            )
        return self._by_id[model_id]

    def all(self) -> list[Zorro]:
        """Each model once."""
        return [served.alone for served in self.models]

    def _project_model_or_first(self) -> str:
        names = [name for name in self._by_id if "/" not in name]
        return PROJECT_MODEL if PROJECT_MODEL in names else names[0]


def load_models(settings: Settings) -> ModelRepository:
    """Open and self-test every bundle of the operator's model repository.

    Raises:
        ZorroError: a bundle cannot be used; the server must not become ready.
        ServiceError: the operator's default model is not there.
    """
    models = [_load_model(settings, Path(path)) for path in find_bundles(settings.bundles)]
    return ModelRepository(models, default_model=settings.default_model)


def _load_model(settings: Settings, path: Path) -> ServedModel:
    beside = _open(settings, read_bundle(path), settings.threads_beside, settings.memory)
    if settings.threads_alone == settings.threads_beside:
        return ServedModel(beside, beside)
    # Mapped weights: a second copy of packed ones is not worth what it saves.
    return ServedModel(_open(settings, beside.bundle, settings.threads_alone, WeightMemory.LOW), beside)


def _open(settings: Settings, bundle: Bundle, num_threads: int, memory: WeightMemory) -> Zorro:
    model = Zorro(
        bundle,
        providers=pair_providers(settings.providers, settings.provider_options),
        num_threads=num_threads,
        memory=memory,
        allow_fallback=settings.allow_fallback,
        variant=settings.variant,
        engines=Engines(
            max_batch_size=settings.max_batch_size,
            cache=settings.engine_cache,
            as_context=settings.engine_context,
        ),
    )
    model.self_test()
    return model
