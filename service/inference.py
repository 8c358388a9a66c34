"""From an uploaded file to its result: decode processes make windows, and the batcher runs graphs on them.

Nothing here blocks the event loop. Cancelling a request ends its work, whatever stage it is in.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import numpy as np

from media import Clip, MediaLimits, Modality
from runtime import ClipResult, Zorro
from runtime.result_assembly import ResultBuilder
from runtime.signature import graphs_for, stream_values

from .batcher import Batcher
from .clip_request import ClipRequest
from .decode_pool import DecodePool
from .decode_worker import DecodeRequest
from .graph_queue import GraphResult
from .heap import IdleTimer, release_free_memory
from .model_repository import ModelRepository
from .settings import Settings
from .tracing import span

MAX_WINDOWS_PER_CHUNK = 16
HEAP_IDLE_SECONDS = 2.0  # then free memory is released; the next batch takes some milliseconds more
DecodedT = TypeVar("DecodedT")


class InferenceEngine:
    """The decode pool and the batcher, which all requests share. Lives on one event loop."""

    def __init__(self, settings: Settings, windows_folder: Path) -> None:
        self._settings = settings
        self._limits = MediaLimits(
            max_bytes=settings.max_body_bytes,
            max_duration_seconds=settings.max_duration_seconds,
            max_pixels=settings.max_pixels,
            max_streams=settings.max_streams,
            max_windows=settings.max_windows,
            max_frames_per_second=settings.max_frames_per_second,
        )
        self.pool = DecodePool(
            windows_folder,
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

    async def start(self, models: ModelRepository) -> None:
        """Start the decode processes, and add a queue for each graph of each model."""
        await self.pool.warm_up()
        for served in models.models:
            for modality in Modality:
                self.batcher.add_queue(
                    queue_name(served.alone, modality),
                    _graph_runner(served.beside, modality),
                    run_alone=_graph_runner(served.alone, modality),
                    max_batch_size=self._settings.max_batch_size,
                    max_queue_size=self._settings.max_queue_windows,
                )
        self._idle_timer.start()  # loading has left much free memory

    async def answer_clip(
        self, model: Zorro, request: ClipRequest, path: Path, *, deadline: float | None
    ) -> ClipResult:
        """The result for one clip: while a chunk of its windows runs, the next one is decoded.

        Args:
            model: that answers.
            request: what the client wants to know.
            path: of the clip.
            deadline: on `time.monotonic`.

        Raises:
            MediaError: the file is at fault; see `media.errors`.
            ServiceError: a decode process failed on the file, or there is no room or no time.
        """
        output = request.output_request(model)
        builder: ResultBuilder | None = None
        decode_seconds, warnings = 0.0, []
        with self._idle_timer.active():
            async with aclosing(self.pool.chunks(self._decode_request(model, request, path))) as chunks:
                while (decoded := await _next_chunk(chunks)) is not None:
                    chunk, clips = decoded
                    builder = builder or ResultBuilder(chunk.available)
                    decode_seconds += chunk.seconds
                    warnings += [warning for warning in chunk.warnings if warning not in warnings]
                    if clips:
                        values = await self._stream_values(model, builder, clips, output.kind, deadline)
                        builder.add(clips, values)
            assert builder is not None
            return builder.build(
                output,
                chunk.info,
                requested=request.modalities,
                warnings=warnings,
                decode_seconds=decode_seconds,
            )

    async def run_tensors(
        self, model: Zorro, modality: Modality, clips: Sequence[Clip], *, deadline: float | None
    ) -> GraphResult:
        """A graph's outputs for windows that a client has prepared.

        Raises:
            ServiceError: there is no room or no time.
        """
        name = queue_name(model, modality)
        with self._idle_timer.active(), span("inference", lanes=name, windows=len(clips)):
            return await self.batcher.submit(name, clips, deadline=deadline)

    async def _stream_values(
        self,
        model: Zorro,
        builder: ResultBuilder,
        clips: Sequence[Clip],
        kind: str,
        deadline: float | None,
    ) -> dict[Modality, np.ndarray]:
        """Values of one chunk's windows for each modality of the result, [windows, dim]."""
        names = [queue_name(model, graph) for graph in graphs_for(builder.modalities)]
        with span("inference", lanes=",".join(names), windows=len(clips)):
            results = await self._run_graphs(names, clips, deadline)
        builder.inference_seconds += sum(result.run_seconds for result in results)
        return stream_values((result.outputs for result in results), builder.modalities, kind)

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

    def _decode_request(self, model: Zorro, request: ClipRequest, path: Path) -> DecodeRequest:
        return DecodeRequest(
            path=path,
            spec=model.bundle.clip_spec,
            requested=request.modalities,
            require_all=request.require_all,
            time_range=request.time_range,
            max_windows=MAX_WINDOWS_PER_CHUNK,
            limits=self._limits,
        )

    async def close(self) -> None:
        """Finish what waits, and end processes and threads."""
        self._idle_timer.stop()
        await self.batcher.close()
        await self.pool.close()


async def _next_chunk(chunks: AsyncIterator[DecodedT]) -> DecodedT | None:
    with span("decode"):
        return await anext(chunks, None)


def queue_name(model: Zorro, modality: Modality) -> str:
    """NAME/VERSION/GRAPH."""
    return f"{model.bundle.name}/{model.bundle.version}/{modality}"


def _graph_runner(model: Zorro, modality: Modality) -> Callable[[Sequence[Clip]], dict[str, np.ndarray]]:
    return lambda clips: model.run(modality, clips)
