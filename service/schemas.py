"""Shapes of the answers."""

from typing import Any

from pydantic import BaseModel

from runtime import Scores


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


class LabelDescription(BaseModel):
    """A label that a model knows, and what it was learned from."""

    id: str
    label: str
    modalities: list[str]


class ModelDescription(BaseModel):
    """A model that answers."""

    id: str
    """NAME/VERSION."""
    object: str = "model"
    name: str
    version: str
    sha256: str
    preprocessing: str
    """Hash of the numbers that turn media into arrays."""
    window_sec: float
    variant: str
    variants: list[str]
    modalities: list[str]
    labels: list[LabelDescription]
    """In the order of the logits."""
    scores: Scores
    """Of labels: softmax, which sum to 1, or sigmoid, where any number of labels may hold, each by itself."""
    providers: dict[str, list[str]]
    parity: dict[str, Any]
    metrics: dict[str, Any]
    about: dict[str, Any]


class ModelDescriptions(BaseModel):
    """The models that answer."""

    object: str = "list"
    data: list[ModelDescription]


class ProblemAnswer(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
