"""From an uploaded file to its result: decode processes make windows, and the batcher runs graphs on them.

Nothing here blocks the event loop. Cancelling a request ends its work, whatever stage it is in.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from media import Clip, MediaLimits, Modality
from media.time_range import TimeRange
from runtime import ClipResult, Zorro
from runtime.options import parse_modalities
from runtime.result_assembly import OutputRequest, ResultBuilder
from runtime.signature import graphs_for, stream_values

from .batcher import Batcher
from .decode_pool import DecodePool
from .decode_worker import DecodedChunk, DecodeRequest
from .graph_queue import GraphResult
from .heap import IdleTimer, release_free_memory
from .models import Models
from .settings import Settings
from .tracing import span

MAX_WINDOWS_PER_CHUNK = 16
HEAP_IDLE_SECONDS = 2.0  # then free memory is released; the next batch takes some milliseconds more

DecodedClips = tuple[DecodedChunk, list[Clip]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants to know of its clip, checked."""

    question: OutputRequest
    modalities: Sequence[Modality]
    must_have_all: bool
    times: TimeRange


class InferenceEngine:
    """The decode pool, the batcher and the models behind them. Lives on one event loop."""

    def __init__(self, settings: Settings, models: Models, folder: Path) -> None:
        self.models, self._settings = models, settings
        self._limits = MediaLimits(
            max_bytes=settings.max_body_bytes,
            max_duration_seconds=settings.max_duration_seconds,
            max_pixels=settings.max_pixels,
            max_streams=settings.max_streams,
            max_windows=settings.max_windows,
            max_frames_per_second=settings.max_frames_per_second,
        )
        self.pool = DecodePool(
            folder,
            num_workers=settings.decode_workers,
            max_memory_bytes=settings.max_decode_memory_bytes,
            max_growth_bytes=settings.max_decode_growth_bytes,
            max_cpu_seconds=settings.max_decode_cpu_seconds,
            timeout_seconds=settings.decode_timeout_seconds,
        )
        self._idle_timer = IdleTimer(release_free_memory, seconds=HEAP_IDLE_SECONDS)
        self.batcher: Batcher[Clip] = Batcher(
            num_sessions=settings.sessions, is_idle=lambda: self._idle_timer.num_active <= 1
        )

    async def start(self) -> None:
        """Start the decode processes, and add a queue for each graph of each model, once they are loaded."""
        await self.pool.warm_up()
        for model in self.models.all():
            for modality in Modality:
                self.batcher.add_queue(
                    queue_name(model, modality),
                    _runner(self.models.beside(model), modality),
                    run_alone=_runner(model, modality),
                    max_batch_size=self._settings.max_batch_size,
                    max_queue_size=self._settings.max_queue_windows,
                )
        self._idle_timer.start()  # loading has left much free memory

    async def answer_clip(
        self, model: Zorro, asked: Asked, path: Path, *, deadline: float | None
    ) -> ClipResult:
        """The answer to one clip.

        Args:
            model: that answers.
            asked: what is wanted.
            path: of the clip.
            deadline: on `time.monotonic`.

        Raises:
            MediaError: the clip; see `media.errors`.
            ServiceError: a decode process failed over it, or there is no room or no time.
        """
        with self._idle_timer.active():
            return await self._answer(
                model, asked, self._decode_request(model, asked, path), deadline=deadline
            )

    async def _answer(
        self, model: Zorro, asked: Asked, request: DecodeRequest, *, deadline: float | None
    ) -> ClipResult:
        collected: ResultBuilder | None = None
        decode_seconds, warnings = 0.0, []
        async with aclosing(self.pool.chunks(request)) as chunks:
            while (decoded := await _next(chunks)) is not None:
                chunk, clips = decoded
                collected = collected or ResultBuilder(chunk.available)
                decode_seconds += chunk.seconds
                warnings += [warning for warning in chunk.warnings if warning not in warnings]
                if clips:
                    values = await self._run(
                        model, chunk.available, clips, asked.question.kind, collected, deadline
                    )
                    collected.add(clips, values)
        assert collected is not None
        return collected.build(
            asked.question,
            chunk.info,
            requested=asked.modalities,
            warnings=warnings,
            decode_seconds=decode_seconds,
        )

    async def run_tensors(
        self, model: Zorro, modality: Modality, clips: Sequence[Clip], *, deadline: float | None
    ) -> GraphResult:
        """A graph's outputs for windows that somebody else has prepared.

        Raises:
            ServiceError: there is no room or no time.
        """
        name = queue_name(model, modality)
        with self._idle_timer.active(), span("inference", lanes=name, windows=len(clips)):
            return await self.batcher.submit(name, clips, deadline=deadline)

    async def _run(
        self,
        model: Zorro,
        present: Sequence[Modality],
        clips: Sequence[Clip],
        kind: str,
        collected: ResultBuilder,
        deadline: float | None,
    ) -> dict[Modality, np.ndarray]:
        names = [queue_name(model, graph) for graph in graphs_for(present)]
        with span("inference", lanes=",".join(names), windows=len(clips)):
            results = await self._run_graphs(names, clips, deadline)
        collected.inference_seconds += sum(result.run_seconds for result in results)
        return stream_values((result.outputs for result in results), present, kind)

    async def _run_graphs(
        self, names: Sequence[str], clips: Sequence[Clip], deadline: float | None
    ) -> list[GraphResult]:
        pending: list[asyncio.Future[GraphResult]] = []
        try:
            pending.extend(self.batcher.submit(name, clips, deadline=deadline) for name in names)
            return await asyncio.gather(*pending)
        finally:  # if one queue refuses or one graph fails, the other results are of no use
            for result in pending:
                result.cancel()

    def _decode_request(self, model: Zorro, asked: Asked, path: Path) -> DecodeRequest:
        return DecodeRequest(
            path=path,
            spec=model.bundle.clip_spec,
            requested=tuple(asked.modalities),
            require_all=asked.must_have_all,
            times=asked.times,
            max_windows=MAX_WINDOWS_PER_CHUNK,
            limits=self._limits,
        )

    async def close(self) -> None:
        """Finish what waits, and end processes and threads."""
        self._idle_timer.stop()
        await self.batcher.close()
        await self.pool.close()


def make_asked(
    question: OutputRequest,
    *,
    modalities: Iterable[Modality | str] | None,
    times: TimeRange,
    skip_missing: bool,
) -> Asked:
    """What is asked, with the default of all streams that the clip has."""
    must_have_all = modalities is not None and not skip_missing
    return Asked(
        question=question, modalities=parse_modalities(modalities), must_have_all=must_have_all, times=times
    )


async def _next(chunks: AsyncIterator[DecodedClips]) -> DecodedClips | None:
    with span("decode"):
        return await anext(chunks, None)


def queue_name(model: Zorro, modality: Modality) -> str:
    """NAME/VERSION/GRAPH."""
    return f"{model.bundle.name}/{model.bundle.version}/{modality}"


def _runner(model: Zorro, modality: Modality) -> Callable[[Sequence[Clip]], dict[str, np.ndarray]]:
    return lambda clips: model.run(modality, clips)
