"""Predictions for whole clips, read from their files as a server reads them, and averaged over views.

Every item either has a prediction of a stream or is counted under the reason why it has none: `absent`,
`broken`, `mute`, or `without_picture`. Files are read in small groups and forgotten, so that a set of any
size fits into memory.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from datasets.manifests import Item
from media.clip import Clip
from media.progress import OnProgress, ignore_progress
from media.spec import ClipSpec

from .clip_reading import ItemViews, read_babble, read_item
from .corruptions import Corruption, CorruptionKind, corrupt, without_audio, without_video
from .predictors import Predictor
from .stream_inputs import STREAM_INPUTS, StreamInput
from .views import View, ViewPlan, average_scores

GROUP_SIZE = 16  # items in memory at a time
NUM_READERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionPlan:
    """What is predicted for each clip, and from what.

    Raises:
        ValueError: an unknown stream.
    """

    streams: Sequence[str] = tuple(STREAM_INPUTS)
    """Of `STREAM_INPUTS`; for a bundle `SERVED_STREAMS`."""
    views: ViewPlan = field(default_factory=ViewPlan)
    corruptions: Sequence[Corruption] = ()
    """Each clip is predicted clean, and under each of these."""
    sigmoid: bool = False
    """Whether each of the predictor's labels stands for itself; else they compete, by softmax."""
    seed: int = 0
    """Of what corruptions draw. Draws depend on an item's number too, so that all levels draw the same."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.streams) - STREAM_INPUTS.keys()):
            raise ValueError(f"got the unknown streams {unknown}; there are {list(STREAM_INPUTS)}")


@dataclass(frozen=True, slots=True)
class StreamPredictions:
    """One stream's predictions for the items that have what it reads, averaged over views."""

    items: Int[np.ndarray, " clips"]
    """Numbers of the items."""
    scores: Float[np.ndarray, "clips classes"]
    """Probabilities."""
    embedding: Float[np.ndarray, "clips projection_dim"] | None = None
    """Of unit length; kept for clean clips only."""
    features: Float[np.ndarray, "clips features_dim"] | None = None
    """Kept for clean clips only."""


@dataclass(slots=True)
class ClipPredictions:
    """Predictions of all streams under all corruptions, and what became of the items that have none."""

    num_items: int
    streams: dict[Corruption | None, dict[str, StreamPredictions]] = field(default_factory=dict)
    """By corruption, None for clean; a stream that a corruption does not touch is left out there."""
    unanswered: dict[str, Counter[str]] = field(default_factory=dict)
    """By stream, how many items have no prediction for which reason."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """`file` and `reason` of each item of which nothing could be read."""
    num_silent: int = 0
    """Items with sound of which nothing is audible; they have predictions."""
    num_still: int = 0
    """Items with a still picture; they have predictions."""

    @property
    def clean(self) -> dict[str, StreamPredictions]:
        """By stream, for clips that are not corrupted."""
        return self.streams.get(None, {})

    def count(self, item: Item, read: ItemViews) -> None:
        """Take note of an item, and of the reasons why streams have no prediction for it."""
        for name, counts in self.unanswered.items():
            if (reason := read.why_not(STREAM_INPUTS[name])) is not None:
                counts[reason] += 1
        if read.failure is not None:
            self.failures.append({"file": item.path.name, "reason": read.failure})
        self.num_silent += read.is_silent
        self.num_still += read.is_still


def predict_clips(
    predictor: Predictor,
    items: Sequence[Item],
    spec: ClipSpec,
    plan: PredictionPlan | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
) -> ClipPredictions:
    """Predictions for clean clips, and for the same clips under each corruption.

    Args:
        predictor: what is run.
        items: files, or spans of files.
        spec: the predictor's.
        plan: streams, views and corruptions; default clean clips, one view, all streams.
        on_progress: told how many items of the stage `clips` are done.

    Raises:
        ValueError: no items, or babble of fewer than two files.
        InvalidOption: the predictor is a bundle, which lacks one of the streams.
    """
    plan = plan or PredictionPlan()
    if not items:
        raise ValueError("got 0 items; give at least 1")
    kinds = {corruption.kind for corruption in plan.corruptions}
    with_waveform = bool(kinds & {CorruptionKind.NOISE, CorruptionKind.BABBLE})
    babble = read_babble(items, spec, seed=plan.seed) if CorruptionKind.BABBLE in kinds else {}
    run = _PredictionRun(predictor, spec, plan, babble)
    found = ClipPredictions(len(items), unanswered={name: Counter() for name in plan.streams})
    with ThreadPoolExecutor(NUM_READERS) as readers:
        for start in range(0, len(items), GROUP_SIZE):
            part = items[start : start + GROUP_SIZE]
            views = readers.map(
                lambda item: read_item(item, spec, plan.views, with_waveform=with_waveform), part
            )
            for number, (item, read) in enumerate(zip(part, views, strict=True), start):
                found.count(item, read)
                run.read(number, item, read)
            run.predict()
            on_progress("clips", start + len(part), len(items))
    found.streams = run.joined()
    return found


class _Read(NamedTuple):
    """An item of the group that is in memory."""

    item: Item
    views: ItemViews


class _Row(NamedTuple):
    """One stream's prediction for one item."""

    number: int
    scores: np.ndarray
    embedding: np.ndarray | None
    features: np.ndarray | None


class _PredictionRun:
    """Runs the predictor on group after group of items, and keeps what is averaged over views."""

    def __init__(
        self, predictor: Predictor, spec: ClipSpec, plan: PredictionPlan, babble: Mapping[Path, np.ndarray]
    ) -> None:
        self._predictor, self._spec, self._plan, self._babble = predictor, spec, plan, babble
        self._group: dict[int, _Read] = {}
        self._rows: dict[tuple[Corruption | None, str], list[_Row]] = {
            (corruption, name): []
            for corruption in (None, *plan.corruptions)
            for name in plan.streams
            if corruption is None or _touches(corruption, STREAM_INPUTS[name])
        }

    def read(self, number: int, item: Item, views: ItemViews) -> None:
        """Add an item to the group."""
        self._group[number] = _Read(item, views)

    def predict(self) -> None:
        """Predict all streams of the group, and forget it."""
        for (corruption, name), rows in self._rows.items():
            stream = STREAM_INPUTS[name]
            clips = {
                number: self._clips(number, read, corruption, stream)
                for number, read in self._group.items()
                if read.views.why_not(stream) is None
            }
            if clips:
                rows += self._predict_clips(stream, clips, keep_vectors=corruption is None)
        self._group = {}

    def joined(self) -> dict[Corruption | None, dict[str, StreamPredictions]]:
        """Predictions of all groups; see `ClipPredictions.streams`."""
        found: dict[Corruption | None, dict[str, StreamPredictions]] = {}
        for (corruption, name), rows in self._rows.items():
            if rows:
                found.setdefault(corruption, {})[name] = StreamPredictions(
                    np.array([row.number for row in rows]),
                    np.stack([row.scores for row in rows]),
                    _stacked([row.embedding for row in rows]),
                    _stacked([row.features for row in rows]),
                )
        return found

    def _clips(
        self, number: int, read: _Read, corruption: Corruption | None, stream: StreamInput
    ) -> list[Clip]:
        """The item's views as the stream reads them.

        Where it reads no video, views that differ in crop are one.
        """
        views = [view for view in read.views.views if stream.video or view.crop == 0]
        if corruption is not None:
            others = [waveform for path, waveform in self._babble.items() if path != read.item.path]
            views = [
                corrupt(view, corruption, self._spec, self._random(number, view), babble=others)
                for view in views
            ]
        return [_without_unread(view, stream).clip for view in views]

    def _random(self, number: int, view: View) -> np.random.Generator:
        return np.random.default_rng([self._plan.seed, number, view.window])

    def _predict_clips(
        self, stream: StreamInput, clips: Mapping[int, list[Clip]], *, keep_vectors: bool
    ) -> list[_Row]:
        """Run all views of all items at once, and average each item's."""
        outputs = self._predictor.outputs(
            stream.modality, [clip for views in clips.values() for clip in views]
        )
        rows, start = [], 0
        for number, views in clips.items():
            part = {kind: values[start : start + len(views)] for kind, values in outputs.items()}
            start += len(views)
            scores = average_scores(part["logits"], sigmoid=self._plan.sigmoid)
            vectors = _mean_vectors(part) if keep_vectors else (None, None)
            rows.append(_Row(number, scores, *vectors))
        return rows


def _touches(corruption: Corruption, stream: StreamInput) -> bool:
    return stream.audio if corruption.kind.affects_audio else stream.video


def _without_unread(view: View, stream: StreamInput) -> View:
    """The view without the modality that the stream does not read."""
    view = view if stream.audio else without_audio(view)
    return view if stream.video else without_video(view)


def _mean_vectors(outputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and features of a clip from those of its views."""
    embedding = outputs["embedding"].mean(0)
    return embedding / max(float(np.linalg.norm(embedding)), 1e-12), outputs["features"].mean(0)


def _stacked(vectors: Sequence[np.ndarray | None]) -> np.ndarray | None:
    kept = [vector for vector in vectors if vector is not None]
    return np.stack(kept) if kept else None
