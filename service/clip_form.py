"""The form fields of a clip request, and the one place where they become a `ClipRequest`.

Each field is honoured or refused, none is ignored. The table of fields also makes the API's description, and
docs/api.md is compared with it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from media import Modality
from media.time_range import MIN_STRIDE_SECONDS, TimeRange
from runtime import Space, Zorro
from runtime.options import parse_modalities

from .clip_request import ClipRequest, ClipTask, EmbeddingOptions, Encoding, LabelOptions, Scope
from .errors import ServiceError
from .model_repository import ModelRepository

DURATION_TOLERANCE = 1e-3  # seconds
ValueT = TypeVar("ValueT")


class Strategy(StrEnum):
    """How a clip is cut into segments."""

    NONE = "none"  # one answer for the whole: the same as scope=asset
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class FormField(Generic[ValueT]):
    """An optional field of a form."""

    name: str
    parse: Callable[[str], ValueT]
    """Text to value; raises ValueError or KeyError for a text that is not allowed."""
    wanted: str
    """What a value must be, for the API's description and for error messages."""

    def read(self, texts: Mapping[str, str], default: ValueT) -> ValueT:
        """The field's value, or `default` if the field was not sent.

        Raises:
            ServiceError: the text is not allowed.
        """
        return default if self.name not in texts else self._parse(texts[self.name])

    def read_optional(self, texts: Mapping[str, str]) -> ValueT | None:
        """The field's value, or None if the field was not sent.

        Raises:
            ServiceError: the text is not allowed.
        """
        return None if self.name not in texts else self._parse(texts[self.name])

    def _parse(self, text: str) -> ValueT:
        try:
            return self.parse(text)
        except (ValueError, KeyError) as error:
            raise ServiceError("invalid_option", f"{self.name}={text[:80]!r}; give {self.wanted}") from error


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _at_least(minimum: float, *, above: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = _number(text)
        if value < minimum or (above and value == minimum):
            raise ValueError("too small")
        return value

    return parse


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ValueError("outside 0 to 1")
    return value


def _positive_count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("too small")
    return value


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _modality_list(text: str) -> list[Modality]:
    return [Modality(part.strip()) for part in text.split(",")]


MODEL = FormField("model", str, "id of a model, see /v1/models")
MODALITIES = FormField(
    "modalities", _modality_list, "audio, video, fused, or several with commas; default all the clip has"
)
START = FormField("start_sec", _at_least(0), "a time in seconds from 0")
END = FormField("end_sec", _at_least(0, above=True), "a time in seconds above 0")
STRIDE = FormField(
    "stride_sec",
    _at_least(MIN_STRIDE_SECONDS),
    f"seconds from one segment's start to the next, from {MIN_STRIDE_SECONDS:g}",
)
STRATEGY = FormField("segmentation.strategy", Strategy, "none (one answer for the whole) or fixed")
DURATION = FormField(
    "segmentation.duration_sec", _at_least(0, above=True), "the model's window_sec, see /v1/models"
)
OVERLAP = FormField(
    "segmentation.overlap_sec",
    _at_least(0),
    "seconds that segments share, from 0 to below the model's window_sec",
)
SCOPE = FormField("scope", Scope, "clip (each segment) or asset (the whole)")
SKIP_MISSING = FormField("on_missing_modality", {"error": False, "skip": True}.__getitem__, "error or skip")
TOP_K = FormField("top_k", _positive_count, "a whole number from 1")
THRESHOLD = FormField(
    "threshold",
    _probability,
    "a probability from 0 to 1; default the model's `decision`, see /v1/models, or 0 if it has none",
)
SPACE = FormField("space", Space, "shared or features")
NORMALIZE = FormField("normalize", _boolean, "true or false")
ENCODING = FormField("encoding_format", Encoding, "float or base64")

_COMMON: tuple[FormField[Any], ...] = (
    MODEL, MODALITIES, START, END, STRIDE, STRATEGY, DURATION, OVERLAP, SCOPE, SKIP_MISSING,
)  # fmt: skip
FIELDS: dict[ClipTask, tuple[FormField[Any], ...]] = {
    ClipTask.CLASSIFY: (*_COMMON, TOP_K, THRESHOLD),
    ClipTask.EMBED: (*_COMMON, SPACE, NORMALIZE, ENCODING),
}


@dataclass(frozen=True, slots=True)
class ClipForm:
    """The form that one route takes."""

    task: ClipTask
    modality: Modality | None
    """The one modality of the route; None if the form may choose."""

    @property
    def fields(self) -> tuple[FormField[Any], ...]:
        """The fields that may be sent."""
        return tuple(x for x in FIELDS[self.task] if x is not MODALITIES or self.modality is None)

    def read(self, texts: Mapping[str, str], models: ModelRepository) -> tuple[Zorro, ClipRequest]:
        """The model that is to answer, and the request.

        Args:
            texts: fields that were sent, by name.
            models: to choose from.

        Raises:
            ServiceError: a field is unknown, or has a value that is not allowed, or there is no such model.
            InvalidSpan: the end is not after the start.
        """
        self._check_known(texts)
        model_id = MODEL.read_optional(texts)
        chosen = [self.modality] if self.modality is not None else MODALITIES.read_optional(texts)
        skips_missing = SKIP_MISSING.read(texts, False)
        output = self._read_output(texts)
        segmentation = _Segmentation.read(texts)
        start, end = START.read(texts, 0.0), END.read_optional(texts)
        model = models.get(model_id)
        scope, stride = segmentation.resolve(window_seconds=model.bundle.clip_spec.window_seconds)
        return model, ClipRequest(
            output=output,
            modalities=tuple(parse_modalities(chosen)),
            require_all=chosen is not None and not skips_missing,
            time_range=TimeRange(start_seconds=start, end_seconds=end, stride_seconds=stride),
            scope=scope,
        )

    def _check_known(self, texts: Mapping[str, str]) -> None:
        names = [x.name for x in self.fields]
        unknown = sorted(texts.keys() - set(names))
        if unknown:
            raise ServiceError(
                "invalid_option", f"unknown {', '.join(map(repr, unknown))}; there are {', '.join(names)}"
            )

    def _read_output(self, texts: Mapping[str, str]) -> LabelOptions | EmbeddingOptions:
        if self.task == ClipTask.CLASSIFY:
            labels = LabelOptions()
            return LabelOptions(
                top_k=TOP_K.read(texts, labels.top_k), threshold=THRESHOLD.read_optional(texts)
            )
        vectors = EmbeddingOptions()
        return EmbeddingOptions(
            space=SPACE.read(texts, vectors.space),
            normalize=NORMALIZE.read(texts, vectors.normalize),
            encoding=ENCODING.read(texts, vectors.encoding),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segmentation:
    """The fields that say how a clip is cut; None where one was not sent."""

    strategy: Strategy
    duration: float | None
    overlap: float | None
    stride: float | None
    scope: Scope | None

    @classmethod
    def read(cls, texts: Mapping[str, str]) -> "_Segmentation":
        return cls(
            strategy=STRATEGY.read(texts, Strategy.FIXED),
            duration=DURATION.read_optional(texts),
            overlap=OVERLAP.read_optional(texts),
            stride=STRIDE.read_optional(texts),
            scope=SCOPE.read_optional(texts),
        )

    def resolve(self, *, window_seconds: float) -> tuple[Scope, float | None]:
        """Scope and stride for a model with windows of this length.

        Raises:
            ServiceError: the model has no windows of this duration or overlap, or two fields contradict
                each other.
        """
        if self.strategy == Strategy.NONE:
            return self._unsegmented()
        scope = self.scope or Scope.CLIP
        if self.duration is not None and abs(self.duration - window_seconds) > DURATION_TOLERANCE:
            raise _refused(DURATION, self.duration, f"{window_seconds:g}, the length of this model's windows")
        if self.overlap is None:
            return scope, self.stride
        if self.stride is not None:
            raise _refused(OVERLAP, self.overlap, "it or stride_sec, not both")
        stride = window_seconds - self.overlap
        if stride < MIN_STRIDE_SECONDS:
            most = window_seconds - MIN_STRIDE_SECONDS
            raise _refused(OVERLAP, self.overlap, f"at most {most:g} for this model")
        return scope, stride

    def _unsegmented(self) -> tuple[Scope, float | None]:
        scope_of_segments = self.scope if self.scope == Scope.CLIP else None
        for field, value in ((DURATION, self.duration), (OVERLAP, self.overlap), (SCOPE, scope_of_segments)):
            if value is not None:
                raise _refused(field, value, "it only with segmentation.strategy=fixed")
        return Scope.ASSET, self.stride


def _refused(field: FormField[Any], value: object, wanted: str) -> ServiceError:
    return ServiceError("invalid_option", f"{field.name}={value}; give {wanted}")
