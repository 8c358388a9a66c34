"""Answers of a predictor to whole clips, read from their files as a server reads them, view by view.

Every item either answers for a stream or is counted under the reason why it does not: `absent`, `broken`,
    `mute`, or `without_picture`. Files are read in small groups and forgotten, so that a set of any size
    fits.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from datasets.manifests import Item
from media.clip import Clip, Modality, read_waveform
from media.errors import MediaError
from media.probe import probe
from media.spec import ClipSpec

from .corruptions import Condition, Way, degrade
from .predictors import Predictor
from .views import View, ViewPlan, average_scores, read_views

Progress = Callable[[int, int], None]
"""Told how many of how many items are done."""

GROUP = 16  # items in memory at a time
NUM_READERS = 2
MAX_BABBLERS = 64  # files that babble is made of
MAX_BABBLE_SECONDS = 10.0  # of each


@dataclass(frozen=True, slots=True)
class Asked:
    """One column of answers: which output is read, and what goes in."""

    modality: Modality
    sound: bool
    picture: bool


STREAMS = {
    "audio": Asked(Modality.AUDIO, sound=True, picture=False),
    "video": Asked(Modality.VIDEO, sound=False, picture=True),
    "fused": Asked(Modality.FUSED, sound=True, picture=True),
    "fusion_by_audio": Asked(Modality.FUSED, sound=True, picture=False),
    "fusion_by_video": Asked(Modality.FUSED, sound=False, picture=True),
}
SERVED = ("audio", "video", "fused")
"""The streams that a bundle answers for: its fused graph reads both."""


@dataclass(frozen=True, slots=True)
class StreamAnswers:
    """Of one stream, to the items that have what it reads; averaged over views."""

    items: Int[np.ndarray, " clips"]
    """Numbers of the items."""
    scores: Float[np.ndarray, "clips classes"]
    """Probabilities."""
    embedding: Float[np.ndarray, "clips projection_dim"] | None
    """Of unit length; like features kept of clean clips only."""
    features: Float[np.ndarray, "clips features_dim"] | None


@dataclass(slots=True)
class ClipAnswers:
    """Of all streams under all conditions, and what became of the items that have no answer."""

    num_items: int
    streams: dict[Condition | None, dict[str, StreamAnswers]] = field(default_factory=dict)
    """By condition, None for clean; a stream that a condition does not touch is left out there."""
    unanswered: dict[str, Counter[str]] = field(default_factory=dict)
    """By stream, how many items have no answer for which reason."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """`file` and `reason` of each item of which nothing could be read."""
    num_silent: int = 0
    """Items with a sound that is nowhere audible; they answer."""
    num_still: int = 0
    """Items whose picture stands still by its nature; they answer."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read of an item."""

    views: list[View]
    failure: str | None = None
    is_still: bool = False

    def reason_against(self, asked: Asked) -> str | None:
        """Why the item cannot answer this; None if it can."""
        if self.failure is not None:
            return self.failure.partition(":")[0]
        if asked.sound and self.views[0].clip.audio is None:
            return "mute"
        return "without_picture" if asked.picture and self.views[0].clip.video is None else None


def answer_clips(
    predictor: Predictor,
    items: Sequence[Item],
    spec: ClipSpec,
    *,
    plan: ViewPlan | None = None,
    streams: Sequence[str] = tuple(STREAMS),
    conditions: Sequence[Condition] = (),
    sigmoid: bool = False,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> ClipAnswers:
    """Answers to clean clips, and to the same under conditions.

    Args:
        predictor: what is asked.
        items: files, or spans of files.
        spec: the predictor's.
        plan: views of each; default one.
        streams: of `STREAMS`; for a bundle `SERVED`.
        conditions: ways to hurt the clips, each at a level.
        sigmoid: whether each of the predictor's labels stands for itself; else they compete, by softmax.
        seed: of what conditions draw; depends on an item's number, so that all levels draw the same.
        on_progress: told how many of how many items are done.

    Raises:
        ValueError: an unknown stream, no items, or babble of fewer than two files.
        InvalidOption: a bundle was asked for a stream that it does not serve.
    """
    unknown = sorted(set(streams) - STREAMS.keys())
    if unknown or not items:
        raise ValueError(
            f"got {len(items)} items and the unknown streams {unknown}; there are {list(STREAMS)}"
        )
    wants_waveform = any(condition.way in (Way.NOISE, Way.BABBLE) for condition in conditions)
    wants_babble = any(condition.way == Way.BABBLE for condition in conditions)
    sounds = read_babblers(items, spec, seed=seed) if wants_babble else {}
    asking = _Asking(predictor, spec, streams, conditions, sounds, sigmoid=sigmoid, seed=seed)
    found = ClipAnswers(len(items), unanswered={name: Counter() for name in streams})
    with ThreadPoolExecutor(NUM_READERS) as pool:
        for start in range(0, len(items), GROUP):
            group = items[start : start + GROUP]
            readings = pool.map(
                lambda item: read_item(item, spec, plan or ViewPlan(), with_waveform=wants_waveform), group
            )
            known = {start + i: pair for i, pair in enumerate(zip(group, readings, strict=True))}
            _count(found, known)
            asking.ask(known)
            if on_progress is not None:
                on_progress(start + len(group), len(items))
    found.streams = asking.joined()
    return found


def read_item(item: Item, spec: ClipSpec, plan: ViewPlan, *, with_waveform: bool) -> Reading:
    """Views with what there is of that which the item's modality names, or the reason why there are none."""
    if not item.path.is_file():
        return Reading([], "absent")
    try:
        info = probe(item.path)
        audio, video = (
            info.has_audio and item.modality != "video",
            info.has_video and item.modality != "audio",
        )
        if not (audio or video):
            return Reading([], "mute" if item.modality == "audio" else "without_picture")
        views = read_views(item, spec, info, plan, audio=audio, video=video, with_waveform=with_waveform)
    except MediaError as error:
        return Reading([], f"broken: {error.code}")
    return Reading(views, is_still=info.is_still)


def read_babblers(items: Sequence[Item], spec: ClipSpec, *, seed: int) -> dict[Path, np.ndarray]:
    """Waveforms of some of the files, chosen at random; those that do not decode are passed over.

    Raises:
        ValueError: fewer than two have sound, so that a clip might have only itself to babble.
    """
    paths = sorted({item.path for item in items if item.path.is_file()})
    found: dict[Path, np.ndarray] = {}
    for i in np.random.default_rng(seed).permutation(len(paths)):
        try:
            found[paths[i]] = read_waveform(paths[i], spec, end_seconds=MAX_BABBLE_SECONDS)
        except MediaError:
            continue
        if len(found) == MAX_BABBLERS:
            break
    if len(found) < 2:
        raise ValueError(f"{len(found)} of {len(paths)} files have sound; babble needs at least 2")
    return found


def _count(found: ClipAnswers, known: Mapping[int, tuple[Item, Reading]]) -> None:
    for item, reading in known.values():
        for name, counts in found.unanswered.items():
            reason = reading.reason_against(STREAMS[name])
            if reason is not None:
                counts[reason] += 1
        if reading.failure is not None:
            found.failures.append({"file": item.path.name, "reason": reading.failure})
            continue
        heard = [view.clip for view in reading.views if view.clip.audio is not None]
        found.num_silent += bool(heard) and all(clip.is_silent for clip in heard)
        found.num_still += reading.is_still


class _Asking:
    """Asks group after group, and keeps what is averaged over views."""

    def __init__(
        self,
        predictor: Predictor,
        spec: ClipSpec,
        streams: Sequence[str],
        conditions: Sequence[Condition],
        sounds: Mapping[Path, np.ndarray],
        *,
        sigmoid: bool,
        seed: int,
    ) -> None:
        self.predictor, self.spec, self.sounds = predictor, spec, sounds
        self.sigmoid, self.seed = sigmoid, seed
        self.columns = [
            (condition, name)
            for condition in (None, *conditions)
            for name in streams
            if condition is None
            or (STREAMS[name].sound if condition.way.hurts_sound else STREAMS[name].picture)
        ]
        self.rows: dict[tuple[Condition | None, str], list[tuple[Any, ...]]] = {
            column: [] for column in self.columns
        }

    def ask(self, known: Mapping[int, tuple[Item, Reading]]) -> None:
        for condition, name in self.columns:
            asked = STREAMS[name]
            clips = {
                number: [
                    self._clip(number, item, view, condition, asked)
                    for view in _distinct(reading.views, asked)
                ]
                for number, (item, reading) in known.items()
                if reading.reason_against(asked) is None
            }
            if clips:
                self._keep((condition, name), clips)

    def joined(self) -> dict[Condition | None, dict[str, StreamAnswers]]:
        found: dict[Condition | None, dict[str, StreamAnswers]] = {}
        for (condition, name), rows in self.rows.items():
            if rows:
                numbers, scores, *vectors = zip(*rows, strict=True)
                kept = map(np.stack, vectors) if condition is None else (None, None)
                found.setdefault(condition, {})[name] = StreamAnswers(
                    np.array(numbers), np.stack(scores), *kept
                )
        return found

    def _clip(self, number: int, item: Item, view: View, condition: Condition | None, asked: Asked) -> Clip:
        if condition is not None:
            others = [sound for path, sound in self.sounds.items() if path != item.path]
            random = np.random.default_rng([self.seed, number, view.window])
            view = degrade(view, condition, self.spec, random, babble=others)
        for wanted, way in ((asked.sound, Way.NO_SOUND), (asked.picture, Way.NO_PICTURE)):
            if not wanted:
                view = degrade(view, Condition(way), self.spec, np.random.default_rng())
        return view.clip

    def _keep(self, column: tuple[Condition | None, str], clips: Mapping[int, list[Clip]]) -> None:
        answers = self.predictor.outputs(
            STREAMS[column[1]].modality, [clip for views in clips.values() for clip in views]
        )
        start = 0
        for number, views in clips.items():
            part = {kind: rows[start : start + len(views)] for kind, rows in answers.items()}
            start += len(views)
            scores = average_scores(part["logits"], sigmoid=self.sigmoid)
            self.rows[column].append((number, scores, *(_vectors(part) if column[0] is None else ())))


def _vectors(answers: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Embedding and features of a clip from those of its views."""
    embedding = answers["embedding"].mean(0)
    return embedding / max(float(np.linalg.norm(embedding)), 1e-12), answers["features"].mean(0)


def _distinct(views: Sequence[View], asked: Asked) -> list[View]:
    """Without views that differ by their crop alone, where no picture is read."""
    return [view for view in views if asked.picture or view.crop == 0]
