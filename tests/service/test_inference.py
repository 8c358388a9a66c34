"""What of a request is still done once one of its graphs has refused it: nothing."""

import asyncio
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from media import Clip
from service.errors import Overloaded
from service.inference import InferenceEngine
from service.settings import Settings

CLIP = Clip(0.0, 1.0, None, None, 1.0, 1.0, False, padded=False)


def test_if_one_graph_refuses_the_others_do_nothing_for_the_request(tmp_path: Path) -> None:
    begun, go_on, sizes = Event(), Event(), []

    def run(clips: list[Clip]) -> dict[str, np.ndarray]:
        begun.set()
        go_on.wait(10)
        sizes.append(len(clips))
        return {"logits": np.zeros((len(clips), 1))}

    async def talk() -> int:
        engine = InferenceEngine(Settings(num_decode_workers=1), tmp_path)
        engine.batcher.add_queue("audio", run, max_batch_size=8, max_queue_size=8)
        engine.batcher.add_queue("video", run, max_batch_size=8, max_queue_size=1)
        first = engine.batcher.submit("audio", [CLIP])
        assert await asyncio.to_thread(begun.wait, 10)
        with pytest.raises(Overloaded):
            await engine._run_graphs(["audio", "video"], [CLIP, CLIP], None)
        go_on.set()
        await first
        await engine.close()
        return engine.batcher.stats.num_skipped

    assert asyncio.run(talk()) == 2
    assert sizes == [1]
