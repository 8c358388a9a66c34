"""The models being served: loaded, self-tested, and found by id."""

from pathlib import Path
from typing import Any

from media import Modality
from runtime import Bundle, WeightMemory, Zorro, find_bundles, read_bundle

from .errors import ServiceError
from .settings import Settings

DEFAULT_NAME = "sights-sounds"


class Models:
    """Bundles of a repository; none answers before all have passed their self-test."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_id: dict[str, Zorro] = {}
        self._beside: dict[str, Zorro] = {}
        self.is_ready = False
        """Set by whoever loads them, once requests can be answered."""

    def load(self) -> None:
        """Open and self-test every bundle.

        Raises:
            ZorroError: one cannot be used; the server must not start.
        """
        settings = self._settings
        for path in find_bundles(settings.bundles):
            beside = self._open(read_bundle(Path(path)), settings.threads_beside, settings.memory)
            model = beside
            if settings.threads_alone != settings.threads_beside:
                # Mapped weights: a second copy of packed ones is not worth what it saves.
                model = self._open(beside.bundle, settings.threads_alone, WeightMemory.LOW)
            self._by_id[f"{model.bundle.name}/{model.bundle.version}"] = model
            self._by_id[model.bundle.name] = model  # versions come in order: the last is the newest
            self._beside[model.bundle.sha256] = beside
        self.get(settings.default_model)

    def _open(self, bundle: Bundle, num_threads: int, memory: WeightMemory) -> Zorro:
        settings = self._settings
        model = Zorro(
            bundle,
            providers=settings.providers,
            num_threads=num_threads,
            memory=memory,
            allow_fallback=settings.allow_fallback,
            variant=settings.variant,
            provider_options=settings.provider_options,
            max_batch_size=settings.max_batch_size,
            engine_cache=settings.engine_cache,
            engine_context=settings.engine_context,
        )
        model.self_test()
        return model

    def beside(self, model: Zorro) -> Zorro:
        """The same model, for batches that run beside others: with its share of the threads."""
        return self._beside[model.bundle.sha256]

    def get(self, model_id: str | None) -> Zorro:
        """The model with this id, NAME or NAME/VERSION; None is the default.

        Raises:
            ServiceError: there is none.
        """
        if model_id is None:
            model_id = self._settings.default_model or self._first()
        if model_id not in self._by_id:
            raise ServiceError(
                "unknown_model", f"no model {model_id[:80]!r}; there are {', '.join(self._by_id)}"
            )
        return self._by_id[model_id]

    def _first(self) -> str:
        """The bundle that comes with the project, wherever it stands; without it the first by name."""
        names = [name for name in self._by_id if "/" not in name]
        return DEFAULT_NAME if DEFAULT_NAME in names else names[0]

    def all(self) -> list[Zorro]:
        """Each model once."""
        return [model for model_id, model in self._by_id.items() if "/" in model_id]


def describe(model: Zorro) -> dict[str, Any]:
    """What a client may know of a model."""
    bundle = model.bundle
    return {
        "id": f"{bundle.name}/{bundle.version}",
        "object": "model",
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "preprocessing": bundle.clip_spec.hash,
        "window_sec": bundle.clip_spec.window_seconds,
        "variant": model.variant.name,
        "variants": list(bundle.variants),
        "modalities": [str(modality) for modality in Modality],
        "labels": [{"id": x.id, "label": x.label, "modalities": list(x.modalities)} for x in bundle.labels],
        "scores": str(bundle.scores),
        "providers": model.providers,
        "parity": bundle.manifest["variants"][model.variant.name]["parity"],
        "metrics": bundle.manifest["metrics"],
        "about": bundle.manifest["about"],
    }
