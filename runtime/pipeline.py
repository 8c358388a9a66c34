"""The Python API: `Zorro.open(path)`, then `classify` or `embed` a path, bytes or a file object."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np

from media import Clip, MediaInfo, MediaLimits, Modality, Source, probe, read_clips
from media.errors import MissingAudio, MissingVideo
from media.pooling import pool, window_weights

from .bundle import Bundle, read_bundle
from .errors import InvalidOption
from .results import ClipResult, LabelScore, StreamResult, WindowResult
from .selftest import SelfTestReport, self_test
from .session import CPU, GraphSession

MAX_BATCH_SIZE = 8
STREAM_OF = {Modality.AUDIO: "audio", Modality.VIDEO: "video", Modality.FUSED: "fusion"}


class Space(StrEnum):
    """Which vector an embedding is."""

    SHARED = "shared"  # the contrastive space in which audio, video and fusion compare
    FEATURES = "features"  # of the backbone


class Zorro:
    """An opened bundle. Graphs are opened when first used; calls from several threads are fine."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: Sequence[str] = (CPU,),
        num_threads: int | None = None,
        allow_fallback: bool = False,
    ) -> None:
        self.bundle = bundle
        self._providers, self._num_threads, self._allow_fallback = providers, num_threads, allow_fallback
        self._sessions: dict[Modality, GraphSession] = {}
        self._opening = Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        providers: Sequence[str] = (CPU,),
        num_threads: int | None = None,
        allow_fallback: bool = False,
    ) -> Self:
        """Verify and open the bundle at `path`.

        Args:
            path: folder NAME/VERSION of a bundle.
            providers: ONNX Runtime's execution providers, in order of preference.
            num_threads: of one inference; default all cores.
            allow_fallback: take another provider where one that was asked for does not run.

        Raises:
            BundleError: it cannot be used; see `errors`.
        """
        return cls(read_bundle(path), providers=providers, num_threads=num_threads, allow_fallback=allow_fallback)

    def session(self, modality: Modality) -> GraphSession:
        """The opened graph of a modality.

        Raises:
            ProviderUnavailable, BundleIncompatible: see `errors`.
        """
        with self._opening:
            if modality not in self._sessions:
                self._sessions[modality] = GraphSession(
                    self.bundle.graphs[modality], self.bundle.clip_spec, providers=self._providers,
                    num_threads=self._num_threads, allow_fallback=self._allow_fallback,
                )  # fmt: skip
            return self._sessions[modality]

    @property
    def providers(self) -> dict[str, list[str]]:
        """Providers that really run, of each graph opened so far."""
        return {str(modality): session.providers for modality, session in self._sessions.items()}

    def self_test(self) -> SelfTestReport:
        """Answer the golden clips with every graph and compare with the answers in the bundle.

        Raises:
            SelfTestFailed: they differ by more than the bundle's tolerance.
        """
        return self_test(self.bundle, {modality: self.session(modality) for modality in self.bundle.graphs})

    def run(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Outputs of one batch, by name; all clips must have what the modality reads."""
        session = self.session(modality)
        return session.run({name: np.stack([getattr(clip, name) for clip in clips]) for name in session.input_names})

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> np.ndarray:
        """[clips, classes] of the stream that `modality` names, in batches."""
        name = f"{STREAM_OF[modality]}_logits"
        return np.concatenate([self.run(modality, batch)[name] for batch in _batches(clips)])

    def classify(
        self,
        source: Source,
        *,
        modalities: Iterable[Modality | str] | None = None,
        top_k: int = 5,
        threshold: float = 0.0,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        stride_seconds: float | None = None,
        skip_missing: bool = False,
        limits: MediaLimits | None = None,
    ) -> ClipResult:
        """Labels of a clip and of its windows.

        Args:
            source: path, bytes or a seekable binary file.
            modalities: streams that shall answer; default all that the clip has what to read for.
            top_k: how many labels, from 1; more than there are means all.
            threshold: least probability of a label, 0 to 1.
            start_seconds: where to start.
            end_seconds: where to end; default the end of the media.
            stride_seconds: from window to window; default one window.
            skip_missing: pass over asked-for streams that the clip lacks instead of raising.
            limits: the most that the media may ask.

        Raises:
            InvalidOption: an option that means nothing.
            MediaError: the media; see `media.errors`.
        """
        if top_k < 1:
            raise InvalidOption(f"top_k={top_k}; ask for at least 1 label")
        if not 0 <= threshold <= 1:
            raise InvalidOption(f"threshold={threshold}; give a probability from 0 to 1")
        answer = Question("logits", lambda value, _: StreamResult(labels=self._top(value, top_k=top_k, threshold=threshold)))
        times = _Times(start_seconds, end_seconds, stride_seconds)
        return self._answer(source, answer, modalities, times, skip_missing=skip_missing, limits=limits)

    def embed(
        self,
        source: Source,
        *,
        modalities: Iterable[Modality | str] | None = None,
        space: Space | str = Space.SHARED,
        normalize: bool = True,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        stride_seconds: float | None = None,
        skip_missing: bool = False,
        limits: MediaLimits | None = None,
    ) -> ClipResult:
        """Embeddings of a clip and of its windows; float32.

        Args:
            source: path, bytes or a seekable binary file.
            modalities: streams that shall answer; default all that the clip has what to read for.
            space: which vector.
            normalize: to unit length. In the shared space each window's vector has it anyway.
            start_seconds: where to start.
            end_seconds: where to end; default the end of the media.
            stride_seconds: from window to window; default one window.
            skip_missing: pass over asked-for streams that the clip lacks instead of raising.
            limits: the most that the media may ask.

        Raises:
            InvalidOption: an option that means nothing.
            MediaError: the media; see `media.errors`.
        """
        if space not in list(Space):
            raise InvalidOption(f"space={space!r}; there are {', '.join(Space)}")
        kind = "embedding" if space == Space.SHARED else "features"
        answer = Question(kind, lambda value, _: StreamResult(embedding=_unit(value) if normalize else value))
        times = _Times(start_seconds, end_seconds, stride_seconds)
        return self._answer(source, answer, modalities, times, skip_missing=skip_missing, limits=limits)

    def _answer(
        self,
        source: Source,
        question: "Question",
        modalities: Iterable[Modality | str] | None,
        times: "_Times",
        *,
        skip_missing: bool,
        limits: MediaLimits | None,
    ) -> ClipResult:
        started = time.perf_counter()
        limits = limits or MediaLimits()
        info = probe(source, limits=limits)
        asked = parse_modalities(modalities)
        present = _present(asked, info, must_have=modalities is not None and not skip_missing)
        reader = read_clips(
            source, self.bundle.clip_spec, limits=limits,
            start_seconds=times.start, end_seconds=times.end, stride_seconds=times.stride,
            audio=any(m != Modality.VIDEO for m in present), video=any(m != Modality.AUDIO for m in present),
        )  # fmt: skip
        collected = _Collected(present)
        for batch in _batches(reader):
            collected.add(batch, self._run_streams(present, batch, question.kind, collected))
        warnings = list(reader.warnings)
        if Modality.AUDIO in present and all(window.is_silent for window in collected.windows):
            warnings.append("silent_audio: there is no audible sound; its answer means nothing")
        total = time.perf_counter() - started
        return ClipResult(
            windows=tuple(collected.window_results(question)),
            whole=collected.whole(question),
            media=info,
            absent=tuple(str(m) for m in asked if m not in present),
            warnings=tuple(warnings),
            decode_seconds=total - collected.inference_seconds,
            inference_seconds=collected.inference_seconds,
        )

    def _run_streams(
        self, present: Sequence[Modality], batch: Sequence[Clip], kind: str, collected: "_Collected"
    ) -> dict[Modality, np.ndarray]:
        """Values of each stream; the fused graph answers for all three at once."""
        started = time.perf_counter()
        if Modality.FUSED in present:
            outputs = self.run(Modality.FUSED, batch)
        else:
            outputs = {k: v for modality in present for k, v in self.run(modality, batch).items()}
        collected.inference_seconds += time.perf_counter() - started
        return {modality: outputs[f"{STREAM_OF[modality]}_{kind}"] for modality in present}

    def _top(self, logits: np.ndarray, *, top_k: int, threshold: float) -> tuple[LabelScore, ...]:
        exps = np.exp(logits.astype(np.float64) - logits.max())
        scores = exps / exps.sum()
        best = np.argsort(-scores, kind="stable")[:top_k]
        labels = self.bundle.labels
        return tuple(LabelScore(labels[i].id, labels[i].label, float(scores[i])) for i in best if scores[i] >= threshold)


@dataclass(frozen=True, slots=True)
class Question:
    """Which output is asked for, and how its value becomes an answer."""

    kind: str
    answer: Callable[[np.ndarray, Modality], StreamResult]


@dataclass(slots=True)
class _Collected:
    """Values of the windows seen so far; of the windows themselves only the facts are kept, not the arrays."""

    modalities: Sequence[Modality]
    windows: list[Clip] = field(default_factory=list)
    values: list[dict[Modality, np.ndarray]] = field(default_factory=list)
    inference_seconds: float = 0.0

    def add(self, batch: Sequence[Clip], values: dict[Modality, np.ndarray]) -> None:
        for i, clip in enumerate(batch):
            bare = Clip(
                clip.start_seconds, clip.end_seconds, None, None,
                clip.audio_seconds, clip.video_seconds, clip.is_silent, clip.padded,
            )  # fmt: skip
            self.windows.append(bare)
            self.values.append({modality: value[i] for modality, value in values.items()})

    def window_results(self, question: Question) -> Iterator[WindowResult]:
        for i, (clip, values) in enumerate(zip(self.windows, self.values, strict=True)):
            streams = {str(modality): question.answer(value, modality) for modality, value in values.items()}
            yield WindowResult(i, clip.start_seconds, clip.end_seconds, clip.padded, clip.is_silent, streams)

    def whole(self, question: Question) -> dict[str, StreamResult]:
        return {
            str(modality): question.answer(
                pool(np.stack([v[modality] for v in self.values]), window_weights(self.windows, modality)), modality
            )
            for modality in self.modalities
        }


def parse_modalities(modalities: Iterable[Modality | str] | None) -> list[Modality]:
    """Modalities in their fixed order, each once; None is all.

    Raises:
        InvalidOption: one that is unknown, or none at all.
    """
    asked = list(Modality) if modalities is None else list(modalities)
    unknown = [name for name in asked if name not in list(Modality)]
    if unknown or not asked:
        raise InvalidOption(f"modalities={[str(a) for a in asked]}; give one or more of {', '.join(Modality)}")
    return [modality for modality in Modality if modality in asked]


def _present(asked: Sequence[Modality], info: MediaInfo, *, must_have: bool) -> list[Modality]:
    has = {Modality.AUDIO: info.has_audio, Modality.VIDEO: info.has_video}
    has[Modality.FUSED] = info.has_audio and info.has_video
    present = [modality for modality in asked if has[modality]]
    if len(present) < len(asked) and (must_have or not present):
        if not info.has_audio and any(m != Modality.VIDEO for m in asked):
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        raise MissingVideo("the file has no picture (cover art is none); send one that has, or ask for audio")
    return present


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds, checked."""

    start: float
    end: float | None
    stride: float | None

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end), ("stride", self.stride)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InvalidOption(f"{name}_seconds={value}; give a time in seconds from 0")


def _batches(clips: Iterable[Clip]) -> Iterator[list[Clip]]:
    remaining = iter(clips)
    while batch := list(islice(remaining, MAX_BATCH_SIZE)):
        yield batch


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
