"""Requests to decode a whole clip for all that it has."""

from pathlib import Path
from typing import Any

from media import ClipSpec, MediaLimits, Modality, TimeRange
from service.decode_worker import DecodeRequest


def decode_request(path: Path, spec: ClipSpec, **changes: Any) -> DecodeRequest:
    """A request for all windows and modalities, with changes by the names of its fields."""
    fields: dict[str, Any] = {
        "path": path,
        "spec": spec,
        "requested": tuple(Modality),
        "require_all": False,
        "time_range": TimeRange(),
        "max_windows": 16,
        "limits": MediaLimits(),
    }
    return DecodeRequest(**fields | changes)
