"""Shapes of the responses, for the API's description; `responses` writes them."""

from typing import Any

from pydantic import BaseModel

from runtime import Scores


class LabelResult(BaseModel):
    """A label and its probability."""

    id: str
    label: str
    score: float


class SegmentResult(BaseModel):
    """The labels or the embedding of one modality, for a segment or for the whole clip."""

    index: int
    modality: str
    scope: str
    start_sec: float
    end_sec: float
    padded: bool
    silent: bool
    labels: list[LabelResult] | None = None
    """Those that reach the threshold, the best first. If none does, the model is sure of nothing."""
    threshold: float | None = None
    """Least score of the labels: the requested one, or else the model's for this modality. Only of models
    that have a decision, as are sure and best_guess."""
    sure: bool | None = None
    """Whether the best label reaches both the requested threshold and the model's."""
    best_guess: LabelResult | None = None
    """The label with the highest score, however low; null if the modality knows no label."""
    embedding: list[float] | str | None = None


class MediaDescription(BaseModel):
    """Facts about the file; null where its container does not say."""

    duration_sec: float | None
    has_audio: bool
    has_video: bool
    width: int | None
    height: int | None
    fps: float | None
    sample_rate: int | None
    container: str
    is_still: bool


class ClipResponse(BaseModel):
    """The answer for one clip."""

    object: str = "list"
    model: str
    model_version: str
    model_sha256: str
    preprocessing: str
    """Hash of the numbers by which media became arrays."""
    data: list[SegmentResult]
    streams: dict[str, str]
    """For each of audio, video and fused: answered, absent, or not_requested."""
    media: MediaDescription
    usage: dict[str, Any]
    warnings: list[str]
    timings_ms: dict[str, float]
    request_id: str


class LabelDescription(BaseModel):
    """A label of a model, and the modalities it was learned from."""

    id: str
    label: str
    modalities: list[str]
    parents: list[str] | None = None
    """Ids of the labels and groups that it belongs to. This and what follows is in the description of one
    model alone, not in the list of models, and only where there is any."""
    mid: str | None = None
    """Its id in AudioSet's ontology."""
    wnid: str | None = None
    """Its id in WordNet."""
    bridges: list[str] | None = None
    """Ids of labels of the other modality that mean the same thing. A fused answer may have both."""


class DecisionDescription(BaseModel):
    """Which labels a modality may answer with, and from where the model is sure of one."""

    known_labels_only: bool
    """Whether audio and video answer only with labels whose modalities name them."""
    threshold: dict[str, float]
    """By modality, the least score of a label that the model is sure of; 0 for one that is not named."""


class ModelDescription(BaseModel):
    """A model that answers."""

    id: str
    """NAME/VERSION."""
    object: str = "model"
    name: str
    version: str
    sha256: str
    preprocessing: str
    """Hash of the numbers by which media become arrays."""
    window_sec: float
    variant: str
    variants: list[str]
    modalities: list[str]
    labels: list[LabelDescription]
    """In the order of the logits."""
    scores: Scores
    """Of labels: softmax, which sum to 1, or sigmoid, where any number of labels may be true at once."""
    providers: dict[str, list[str]]
    parity: dict[str, Any]
    metrics: dict[str, Any]
    about: dict[str, Any]
    decision: DecisionDescription | None = None
    """Absent of a model that answers with all its labels, however low their scores."""


class ModelDescriptions(BaseModel):
    """The models that answer."""

    object: str = "list"
    data: list[ModelDescription]


class ProblemDetails(BaseModel):
    """An error as RFC 9457 describes it."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
