"""Options of a request: form fields to checked values. Each is honoured or rejected, none ignored."""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from media import Modality
from runtime import Space

from .errors import ServiceError

MIN_STRIDE = 0.1  # seconds
DURATION_TOLERANCE = 1e-3  # seconds


class Scope(StrEnum):
    """Whether `data` holds an answer for each segment, or one for the whole."""

    CLIP = "clip"
    ASSET = "asset"


class Strategy(StrEnum):
    """How the clip is cut."""

    NONE = "none"  # one answer for the whole: the same as scope=asset
    FIXED = "fixed"


class Encoding(StrEnum):
    """How an embedding is written."""

    FLOAT = "float"
    BASE64 = "base64"  # of little-endian float32


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _at_least(least: float, *, above: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = _number(text)
        if value < least or (above and value == least):
            raise ValueError("too small")
        return value

    return parse


def _probability(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise ValueError("outside 0 to 1")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("too small")
    return value


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _modalities(text: str) -> list[Modality]:
    return [Modality(part.strip()) for part in text.split(",")]


COMMON: dict[str, tuple[Callable[[str], Any], str]] = {
    "model": (str, "id of a model, see /v1/models"),
    "modalities": (_modalities, "audio, video, fused, or several with commas; default all the clip has"),
    "start_sec": (_at_least(0), "a time in seconds from 0"),
    "end_sec": (_at_least(0, above=True), "a time in seconds above 0"),
    "stride_sec": (_at_least(MIN_STRIDE), "seconds from one segment's start to the next, from 0.1"),
    "segmentation.strategy": (Strategy, "none (one answer for the whole) or fixed"),
    "segmentation.duration_sec": (_at_least(0, above=True), "the model's window_sec, see /v1/models"),
    "segmentation.overlap_sec": (
        _at_least(0),
        "seconds that segments share, from 0 to below the model's window_sec",
    ),
    "scope": (Scope, "clip (each segment) or asset (the whole)"),
    "on_missing_modality": ({"error": False, "skip": True}.__getitem__, "error or skip"),
}
CLASSIFY = COMMON | {
    "top_k": (_count, "a whole number from 1"),
    "threshold": (_probability, "a probability from 0 to 1"),
}
EMBED = COMMON | {
    "space": (Space, "shared or features"),
    "normalize": (_boolean, "true or false"),
    "encoding_format": (Encoding, "float or base64"),
}


def parse_options(
    fields: dict[str, str], known: dict[str, tuple[Callable[[str], Any], str]]
) -> dict[str, Any]:
    """Checked values of the fields that were given.

    Raises:
        ServiceError: a field that is unknown or means nothing.
    """
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        raise ServiceError(
            "invalid_option", f"unknown {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
        )
    values = {}
    for name, text in fields.items():
        parse, wanted = known[name]
        try:
            values[name] = parse(text)
        except (ValueError, KeyError) as error:
            raise ServiceError("invalid_option", f"{name}={text[:80]!r}; give {wanted}") from error
    return values


def resolve_segmentation(options: dict[str, Any], *, window_seconds: float) -> dict[str, Any]:
    """The options with `segmentation.*` turned into `scope` and `stride_sec`; a model's windows have one length.

    Raises:
        ServiceError: a duration or overlap the model has no windows for, or options that contradict each
            other.
    """
    rest = {name: value for name, value in options.items() if not name.startswith("segmentation.")}
    strategy = options.get("segmentation.strategy", Strategy.FIXED)
    duration, overlap = options.get("segmentation.duration_sec"), options.get("segmentation.overlap_sec")
    if strategy == Strategy.NONE:
        return _unsegmented(options, rest)
    if duration is not None and abs(duration - window_seconds) > DURATION_TOLERANCE:
        raise _invalid(
            "segmentation.duration_sec", duration, f"{window_seconds:g}, the length of this model's windows"
        )
    if overlap is None:
        return rest
    if "stride_sec" in options:
        raise _invalid("segmentation.overlap_sec", overlap, "it or stride_sec, not both")
    if window_seconds - overlap < MIN_STRIDE:
        raise _invalid(
            "segmentation.overlap_sec", overlap, f"at most {window_seconds - MIN_STRIDE:g} for this model"
        )
    return rest | {"stride_sec": window_seconds - overlap}


def _unsegmented(options: dict[str, Any], rest: dict[str, Any]) -> dict[str, Any]:
    against = [name for name in ("segmentation.duration_sec", "segmentation.overlap_sec") if name in options]
    if against or options.get("scope") == Scope.CLIP:
        name = against[0] if against else "scope"
        raise _invalid(name, str(options[name]), "it only with segmentation.strategy=fixed")
    return rest | {"scope": Scope.ASSET}


def _invalid(name: str, value: object, wanted: str) -> ServiceError:
    return ServiceError("invalid_option", f"{name}={value}; give {wanted}")
