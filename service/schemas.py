"""Shapes of the answers."""

from typing import Any

from pydantic import BaseModel


class LabelAnswer(BaseModel):
    """A label and its probability."""

    id: str
    label: str
    score: float


class Answer(BaseModel):
    """One stream's answer for a segment, or for the whole clip."""

    index: int
    modality: str
    scope: str
    start_sec: float
    end_sec: float
    padded: bool
    silent: bool
    labels: list[LabelAnswer] | None = None
    embedding: list[float] | str | None = None


class Media(BaseModel):
    """What the file holds; null where its container does not say."""

    duration_sec: float | None
    has_audio: bool
    has_video: bool
    width: int | None
    height: int | None
    fps: float | None
    sample_rate: int | None
    container: str
    is_still: bool


class Answers(BaseModel):
    """The answer to a clip."""

    object: str = "list"
    model: str
    model_version: str
    model_sha256: str
    preprocessing: str
    """Hash of the numbers that turned media into arrays."""
    data: list[Answer]
    streams: dict[str, str]
    """Of audio, video and fused: answered, absent, or not_requested."""
    media: Media
    usage: dict[str, Any]
    warnings: list[str]
    timings_ms: dict[str, float]
    request_id: str


class ProblemAnswer(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
