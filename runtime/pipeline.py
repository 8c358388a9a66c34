"""The Python API: `Zorro.open(path)`, then `classify` or `embed` a path, bytes or a file object."""

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Self

import numpy as np

from media import Clip, MediaLimits, Modality, Source, TimeRange
from media.modality_check import read_modalities
from media.time_range import WHOLE_MEDIA

from .bundle import Bundle, read_bundle
from .engines import Engines
from .errors import InvalidOption
from .options import (
    Space,
    WeightMemory,
    check_memory,
    check_space,
    check_threshold,
    check_time_range,
    check_top_k,
    parse_modalities,
)
from .providers import CPU, ExecutionProvider, split_providers
from .result_assembly import OutputRequest, ResultBuilder
from .results import ClipResult, LabelScore, StreamResult
from .selftest import SelfTestReport, self_test
from .session import GraphSession
from .session_options import SessionOptions
from .signature import OUTPUT_KINDS, STREAM_OF_MODALITY, graphs_for, input_tensors, stream_values

DEFAULT_ENGINES = Engines()


class Zorro:
    """An opened bundle. Graphs are opened when first used; calls from several threads are fine."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        providers: Sequence[ExecutionProvider] = (CPU,),
        num_threads: int | None = None,
        memory: WeightMemory | str = WeightMemory.FAST,
        allow_fallback: bool = False,
        variant: str | None = None,
        engines: Engines = DEFAULT_ENGINES,
    ) -> None:
        names, options = split_providers(providers)
        self._options = SessionOptions(
            providers=names,
            num_threads=num_threads,
            memory=check_memory(memory),
            allow_fallback=allow_fallback,
            provider_options=options,
        )
        self.bundle = bundle
        self._known_labels = {
            modality: np.array(bundle.known_labels(modality), dtype=np.int64) for modality in Modality
        }
        self.variant = bundle.variant(variant, provider=self._options.available_providers[0])
        """What answers; where a fallback was allowed and no variant asked for, that of the provider that
        really runs."""
        self._is_variant_asked_for = variant is not None
        engines.check(names, options)
        self._engines = engines
        self._sessions: dict[Modality, GraphSession] = {}
        self._opening = Lock()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        providers: Sequence[ExecutionProvider] = (CPU,),
        num_threads: int | None = None,
        memory: WeightMemory | str = WeightMemory.FAST,
        allow_fallback: bool = False,
        variant: str | None = None,
        engines: Engines = DEFAULT_ENGINES,
    ) -> Self:
        """Verify and open the bundle at `path`.

        Args:
            path: folder NAME/VERSION of a bundle.
            providers: ONNX Runtime's execution providers, in order of preference, each a name or a pair
                (name, options), as its sessions take them; options given go before derived ones.
            num_threads: of one inference; default all cores.
            memory: how weights are held on a CPU, `fast` or `low`.
            allow_fallback: take another provider where one that was asked for does not run.
            variant: which of the bundle's; default what its table gives to the first provider.
            engines: the largest batch, and how TensorRT's engines for it are kept; default not at all.

        Raises:
            BundleError: it cannot be used; see `errors`.
            InvalidOption, ProviderUnavailable: providers, threads or a variant that there are not, or engines
                that none of the providers builds.
        """
        return cls(
            read_bundle(path),
            providers=providers,
            num_threads=num_threads,
            memory=memory,
            allow_fallback=allow_fallback,
            variant=variant,
            engines=engines,
        )

    def session(self, modality: Modality) -> GraphSession:
        """The opened graph of a modality.

        Raises:
            ProviderUnavailable, BundleIncompatible, EngineCacheCorrupt: see `errors`.
        """
        with self._opening:
            if modality not in self._sessions:
                session = self._open_graph(modality)
                runs_best = self.bundle.variant(None, provider=session.providers[0])
                if not self._is_variant_asked_for and runs_best != self.variant:
                    self.variant = runs_best
                    session = self._open_graph(modality)
                self._sessions[modality] = session
            return self._sessions[modality]

    def _open_graph(self, modality: Modality) -> GraphSession:
        engine = self._engines.plan(
            self.bundle,
            self.variant,
            modality,
            providers=self._options.providers,
            options=self._options.provider_options,
        )
        return GraphSession(
            self.variant.graphs[modality],
            modality,
            self.bundle.clip_spec,
            num_labels=len(self.bundle.labels),
            options=self._options,
            engine=engine,
        )

    @property
    def providers(self) -> dict[str, list[str]]:
        """Providers that really run, of each graph opened so far."""
        with self._opening:
            return {str(modality): session.providers for modality, session in self._sessions.items()}

    def self_test(self) -> SelfTestReport:
        """Answer the golden clips with every graph and compare with the answers in the bundle.

        Raises:
            SelfTestFailed: they differ by more than the bundle's tolerance.
        """
        return self_test(
            self.bundle, self.variant, {modality: self.session(modality) for modality in Modality}
        )

    def run(self, modality: Modality | str, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Outputs of one batch, by name, each [clips, ...].

        Raises:
            InvalidOption: no clips, or one that has not what the modality reads, in this bundle's shapes.
        """
        (modality,) = parse_modalities([modality])
        return self.session(modality).run(self._stack(modality, clips))

    def _stack(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """Arrays of the clips as the graph's inputs."""
        if not clips:
            raise InvalidOption("got 0 clips; give at least 1")
        inputs = {}
        for name, dtype, shape in input_tensors(modality, self.bundle.clip_spec):
            arrays = [getattr(clip, name) for clip in clips]
            for array in arrays:
                if array is None or array.shape != shape or array.dtype != dtype:
                    got = None if array is None else f"{array.dtype}{list(array.shape)}"
                    raise InvalidOption(
                        f"{modality} reads {name} as {dtype}{list(shape)}, got {got}; make clips with the "
                        "bundle's clip_spec"
                    )
            inputs[name] = np.stack(arrays)
        return inputs

    def logits(self, modality: Modality, clips: Sequence[Clip]) -> np.ndarray:
        """[clips, classes] of the stream that `modality` names, in batches.

        Raises:
            InvalidOption: a clip has not what the modality reads.
        """
        if not clips:
            return np.empty((0, len(self.bundle.labels)), np.float32)
        return self.outputs(modality, clips)["logits"]

    def outputs(self, modality: Modality, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
        """`features`, `embedding` and `logits` of the stream that `modality` names.

        Each is [clips, ...]; the clips run in batches.

        Raises:
            InvalidOption: no clips, or one that has not what the modality reads.
        """
        if not clips:
            raise InvalidOption("got 0 clips; give at least 1")
        parts = [self.run(modality, batch) for batch in _batches(clips, self._engines.max_batch_size)]
        stream = STREAM_OF_MODALITY[modality]
        return {kind: np.concatenate([part[f"{stream}_{kind}"] for part in parts]) for kind in OUTPUT_KINDS}

    def classify(
        self,
        source: Source,
        *,
        modalities: Iterable[Modality | str] | str | None = None,
        top_k: int = 5,
        threshold: float | None = None,
        time_range: TimeRange = WHOLE_MEDIA,
        skip_missing: bool = False,
        limits: MediaLimits | None = None,
    ) -> ClipResult:
        """Labels of a clip and of its windows.

        An answer may be empty: nothing is probable enough to be sure of; see `StreamResult.is_sure`.

        Args:
            source: path, bytes or a seekable binary file.
            modalities: streams that shall answer, one name or several; default all that the clip has what to
                read for.
            top_k: how many labels, from 1; more than there are means all.
            threshold: least probability of a label, 0 to 1; default the bundle's for each stream, 0 if it has
                none. With 0 the best labels are shown, sure or not.
            time_range: where to start and end, and the stride of windows; default all, in windows that
                touch.
            skip_missing: pass over asked-for streams that the clip lacks instead of raising.
            limits: the most that the media may ask.

        Raises:
            InvalidOption: an option is out of range or unknown.
            MediaError: the media; see `media.errors`.
        """
        check_time_range(time_range)
        request = self.label_request(top_k=top_k, threshold=threshold)
        return self._answer(source, request, modalities, time_range, skip_missing=skip_missing, limits=limits)

    def embed(
        self,
        source: Source,
        *,
        modalities: Iterable[Modality | str] | str | None = None,
        space: Space | str = Space.SHARED,
        normalize: bool = True,
        time_range: TimeRange = WHOLE_MEDIA,
        skip_missing: bool = False,
        limits: MediaLimits | None = None,
    ) -> ClipResult:
        """Embeddings of a clip and of its windows; float32.

        Args:
            source: path, bytes or a seekable binary file.
            modalities: streams that shall answer, one name or several; default all that the clip has what to
                read for.
            space: which vector.
            normalize: to unit length. In the shared space each window's vector has it anyway.
            time_range: where to start and end, and the stride of windows; default all, in windows that
                touch.
            skip_missing: pass over asked-for streams that the clip lacks instead of raising.
            limits: the most that the media may ask.

        Raises:
            InvalidOption: an option is out of range or unknown.
            MediaError: the media; see `media.errors`.
        """
        check_time_range(time_range)
        request = self.embedding_request(space=space, normalize=normalize)
        return self._answer(source, request, modalities, time_range, skip_missing=skip_missing, limits=limits)

    def label_request(self, *, top_k: int = 5, threshold: float | None = None) -> OutputRequest:
        """The output that `classify` needs, and how it becomes labels.

        Raises:
            InvalidOption: an option is out of range or unknown.
        """
        check_top_k(top_k)
        check_threshold(threshold)
        scores = self.bundle.scores
        return OutputRequest(
            "logits",
            lambda votes, modality: self._top(
                scores.probabilities(votes), modality, top_k=top_k, threshold=threshold
            ),
            votes=scores.votes,
        )

    def embedding_request(
        self, *, space: Space | str = Space.SHARED, normalize: bool = True
    ) -> OutputRequest:
        """The output that `embed` needs, and how it becomes embeddings.

        Raises:
            InvalidOption: an option is out of range or unknown.
        """
        kind = "embedding" if check_space(space) == Space.SHARED else "features"
        return OutputRequest(
            kind,
            lambda votes, _: [StreamResult(embedding=row) for row in (_unit(votes) if normalize else votes)],
        )

    def _answer(
        self,
        source: Source,
        request: OutputRequest,
        modalities: Iterable[Modality | str] | str | None,
        time_range: TimeRange,
        *,
        skip_missing: bool,
        limits: MediaLimits | None,
    ) -> ClipResult:
        started = time.perf_counter()
        asked = parse_modalities(modalities)
        present, reader = read_modalities(
            source,
            self.bundle.clip_spec,
            asked,
            require_all=modalities is not None and not skip_missing,
            time_range=time_range,
            limits=limits,
        )
        builder = ResultBuilder(present)
        for batch in _batches(reader, self._engines.max_batch_size):
            builder.add(batch, self._run_streams(present, batch, request.kind, builder))
        decode_seconds = time.perf_counter() - started - builder.inference_seconds
        return builder.build(
            request, reader.info, requested=asked, warnings=reader.warnings, decode_seconds=decode_seconds
        )

    def _run_streams(
        self, present: Sequence[Modality], batch: Sequence[Clip], kind: str, builder: ResultBuilder
    ) -> dict[Modality, np.ndarray]:
        started = time.perf_counter()
        outputs = [self.run(graph, batch) for graph in graphs_for(present)]
        builder.inference_seconds += time.perf_counter() - started
        return stream_values(outputs, present, kind)

    def _top(
        self, probabilities: np.ndarray, modality: Modality, *, top_k: int, threshold: float | None
    ) -> list[StreamResult]:
        """One stream's labels, of each row of probabilities."""
        known, labels, decision = self._known_labels[modality], self.bundle.labels, self.bundle.decision
        own = decision.threshold_of(modality) if decision is not None else 0.0
        limit = own if threshold is None else threshold
        best = np.argsort(-probabilities[:, known], axis=1, kind="stable")[:, :top_k]
        found = []
        for row, chosen in zip(probabilities, known[best].tolist(), strict=True):
            scores = [LabelScore(labels[i].id, labels[i].label, float(row[i])) for i in chosen]
            found.append(
                StreamResult(
                    labels=tuple(x for x in scores if x.score >= limit),
                    threshold=limit,
                    is_sure=bool(scores) and scores[0].score >= max(limit, own),
                    best_guess=scores[0] if scores else None,
                )
            )
        return found


def _batches(clips: Iterable[Clip], max_size: int) -> Iterator[list[Clip]]:
    remaining = iter(clips)
    while batch := list(islice(remaining, max_size)):
        yield batch


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
