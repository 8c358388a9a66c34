"""Decode processes: the same arrays as in the server's own process, and no file is anybody else's
misfortune."""

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pebble
import psutil
import pytest

import service.decode_pool
from media import Clip, ClipSpec, Modality, read_clips
from media.errors import CorruptMedia, MissingAudio, UnsupportedMedia
from service.decode_pool import MAX_EXCEPTION_NAMES, DecodePool, DecodePoolStats
from service.decode_worker import DecodeRequest
from service.errors import DecoderFailed, ServiceError
from tests.made_media import moving_frames, write_clip
from tests.service.decode_requests import decode_request
from tests.service.faulty_decoders import (
    LEAK_BYTES,
    break_as_told,
    hangs_marker,
    with_a_leak,
    with_full_memory,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where windows go; nothing of them stays."""
    folder = tmp_path / "windows"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def _pool(folder: Path, **options: Any) -> DecodePool:
    limits = {
        "num_workers": 1,
        "max_memory_bytes": 1 << 30,
        "max_growth_bytes": 1 << 30,
        "max_cpu_seconds": 10.0,
        "timeout_seconds": 20.0,
    }
    return DecodePool(folder, **{"decode": break_as_told} | limits | options)


async def _decode(pool: DecodePool, request: DecodeRequest) -> list[Clip]:
    return [clip async for _, clips in pool.chunks(request) for clip in clips]


async def _until_it_hangs(path: Path) -> None:
    for _ in range(3000):
        if hangs_marker(path).exists():
            return
        await asyncio.sleep(0.01)
    pytest.fail("the decoder never began")


def _process_ids() -> set[int]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it may just have ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def _run(pool: DecodePool, talk: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await asyncio.wait_for(talk(), 60)
        finally:
            await pool.close()

    asyncio.run(whole())


@pytest.mark.parametrize("max_windows", [16, 2, 1, 3])
def test_chunks_hold_the_same_bits_as_reading_at_once(
    max_windows: int, film: Path, song: Path, mute_film: Path, spec: ClipSpec, folder: Path
) -> None:
    async def talk() -> None:
        for path, audio, video in ((film, True, True), (song, True, False), (mute_film, False, True)):
            got = await _decode(pool, decode_request(path, spec, max_windows=max_windows))
            wanted = list(read_clips(path, spec, audio=audio, video=video))
            assert len(got) == len(wanted)
            for clip, other in zip(got, wanted, strict=True):
                assert (clip.start_seconds, clip.padded, clip.is_silent) == (
                    other.start_seconds,
                    other.padded,
                    other.is_silent,
                )
                for name in ("audio", "video"):
                    mine, theirs = getattr(clip, name), getattr(other, name)
                    assert (mine is None) == (theirs is None)
                    if mine is not None:
                        np.testing.assert_array_equal(mine, theirs)

    pool = _pool(folder)
    _run(pool, talk)


def test_the_next_chunk_is_decoded_while_one_is_looked_at(film: Path, spec: ClipSpec, folder: Path) -> None:
    async def talk() -> None:
        async with contextlib.aclosing(pool.chunks(decode_request(film, spec, max_windows=1))) as chunks:
            first, _ = await anext(chunks)
            assert first.info is not None
            for _ in range(200):
                if pool.stats.num_tasks == 2:
                    break
                await asyncio.sleep(0.01)
            assert pool.stats.num_tasks == 2  # and nobody has asked for it
        assert pool.stats.num_cancelled <= 1

    pool = _pool(folder)
    _run(pool, talk)


def test_bad_media_has_its_own_error_and_the_process_lives(
    film: Path, mute_film: Path, spec: ClipSpec, folder: Path, tmp_path: Path
) -> None:
    async def talk() -> None:
        (tmp_path / "text.mp4").write_text("just text")
        with pytest.raises(UnsupportedMedia):
            await _decode(pool, decode_request(tmp_path / "text.mp4", spec))
        (tmp_path / "cut.mp4").write_bytes(film.read_bytes()[:2000])
        with pytest.raises(CorruptMedia):
            await _decode(pool, decode_request(tmp_path / "cut.mp4", spec))
        with pytest.raises(MissingAudio):
            await _decode(
                pool, decode_request(mute_film, spec, requested=(Modality.AUDIO,), require_all=True)
            )
        assert len(await _decode(pool, decode_request(film, spec))) == 3
        assert pool.stats.num_crashes == 0

    pool = _pool(folder)
    _run(pool, talk)


@pytest.mark.parametrize(
    ("content", "code", "counter"),
    [
        (b"hang!", "decode_timeout", "num_timeouts"),
        (b"burn!", "decode_timeout", "num_crashes"),
        (b"crash", "decoder_crashed", "num_crashes"),
        (b"kill!", "decoder_crashed", "num_crashes"),
    ],
)
def test_a_decoder_that_breaks_fails_its_own_request_alone(
    content: bytes, code: str, counter: str, film: Path, spec: ClipSpec, folder: Path, tmp_path: Path
) -> None:
    async def talk() -> None:
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(content)
        requests = [decode_request(path, spec) for path in (film, bad, film, film)]
        got = await asyncio.gather(*(_decode(pool, request) for request in requests), return_exceptions=True)
        assert isinstance(got[1], ServiceError)
        assert got[1].code == code
        assert [len(x) for i, x in enumerate(got) if i != 1] == [3, 3, 3]  # type: ignore[arg-type]
        assert getattr(pool.stats, counter) == 1

    pool = _pool(
        folder, num_workers=2, max_cpu_seconds=2.0, timeout_seconds=5.0 if content == b"hang!" else 20.0
    )
    _run(pool, talk)


@pytest.mark.parametrize(
    "name", ["ValueError", "KeyError", "OSError", "TimeoutError", "SystemExit", "UnpicklableError"]
)
def test_an_unknown_exception_fails_its_own_request_alone(
    name: str, film: Path, spec: ClipSpec, folder: Path, tmp_path: Path
) -> None:
    async def talk() -> None:
        bad = tmp_path / "bad.mp4"
        bad.write_text(f"raise {name}")
        await pool.warm_up()
        before = _process_ids()
        for _ in range(2):
            with pytest.raises(DecoderFailed, match=name) as failed:
                await _decode(pool, decode_request(bad, spec))
            assert failed.value.code == "decoder_failed"
            assert "in _raise" in str(failed.value.__cause__)  # the traceback in the decode process
            assert len(await _decode(pool, decode_request(film, spec))) == 3
        assert pool.stats.exceptions == {name: 2}
        assert (pool.stats.num_crashes, pool.stats.num_timeouts) == (0, 0)
        assert _process_ids() == before

    pool = _pool(folder)
    _run(pool, talk)


def test_windows_that_cannot_be_read_fail_their_own_request_alone(
    film: Path, spec: ClipSpec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(service.decode_pool, "input_tensors", lambda *_: iter(()))
            with pytest.raises(DecoderFailed, match="AssertionError"):
                await _decode(pool, decode_request(film, spec))
        assert len(await _decode(pool, decode_request(film, spec))) == 3
        assert pool.stats.exceptions == {"AssertionError": 1}

    pool = _pool(folder)
    _run(pool, talk)


def test_names_of_exceptions_are_bounded() -> None:
    stats = DecodePoolStats()
    for i in range(100):
        stats.count_exception(f"Error{i}")
        stats.count_exception("Error0")
    assert len(stats.exceptions) == MAX_EXCEPTION_NAMES + 1
    assert (stats.exceptions["Error0"], stats.exceptions["other"]) == (101, 100 - MAX_EXCEPTION_NAMES)


def test_a_task_that_is_cancelled_is_ended_and_its_process_replaced(
    film: Path, spec: ClipSpec, folder: Path, tmp_path: Path
) -> None:
    async def talk() -> None:
        bad = tmp_path / "bad.mp4"
        bad.write_bytes(b"hang!")
        hanging = asyncio.ensure_future(_decode(pool, decode_request(bad, spec)))
        waiting = asyncio.ensure_future(_decode(pool, decode_request(film, spec)))
        await _until_it_hangs(bad)
        waiting.cancel()
        hanging.cancel()
        assert len(await _decode(pool, decode_request(film, spec))) == 3
        assert pool.stats.num_tasks == 2  # the one that waited never began

    pool = _pool(folder)
    _run(pool, talk)


def test_tasks_that_follow_cancelled_ones_are_not_lost(
    film: Path,
    spec: ClipSpec,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Told of two at once, pebble may kill a process that is at the next task already: it must not be
    told."""

    async def talk() -> None:
        await asyncio.gather(*(_decode(pool, decode_request(film, spec)) for _ in range(2)))
        before = _process_ids()
        leaving = [asyncio.ensure_future(_decode(pool, decode_request(bad, spec)))]
        await _until_it_hangs(bad)
        leaving.append(asyncio.ensure_future(_decode(pool, decode_request(film, spec))))
        await asyncio.sleep(0.01)
        for task in leaving:
            task.cancel()
        got = await asyncio.gather(*(_decode(pool, decode_request(film, spec)) for _ in range(4)))
        assert [len(clips) for clips in got] == [3] * 4
        for _ in range(200):  # the others may be answered before it has looked whether anybody waits for it
            if not before <= _process_ids():
                break
            await asyncio.sleep(0.05)
        assert not before <= _process_ids(), "the one that hung has gone"
        assert (pool.stats.num_cancelled, pool.stats.num_crashes) == (2, 0)

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"hang!")
    monkeypatch.setattr(pebble.ProcessFuture, "cancel", lambda _: pytest.fail("pebble is told"))
    pool = _pool(folder, num_workers=2)
    _run(pool, talk)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_an_idle_process_that_is_killed_is_replaced(film: Path, spec: ClipSpec, folder: Path) -> None:
    async def talk() -> None:
        assert len(await _decode(pool, decode_request(film, spec))) == 3
        for pid in _process_ids():
            os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert len(await _decode(pool, decode_request(film, spec))) == 3

    pool = _pool(folder)
    _run(pool, talk)


def test_a_decoder_that_wants_too_much_memory_is_told_so_and_lives(
    film: Path, spec: ClipSpec, folder: Path, tmp_path: Path
) -> None:
    async def talk() -> None:
        for _ in range(2):
            with pytest.raises(ServiceError, match="scale it down") as refused:
                await _decode(pool, decode_request(large, spec))
            assert refused.value.code == "decoder_out_of_memory"
        assert len(await _decode(pool, decode_request(film, spec))) == 3
        assert pool.stats.num_crashes == 0

    large = write_clip(tmp_path / "large.mp4", frames=moving_frames(0.4, size=(3840, 2160)))
    pool = _pool(folder, max_memory_bytes=25_000_000)  # of these, not two pictures
    _run(pool, talk)


def test_a_full_memory_is_an_error_and_leaves_nothing(film: Path, spec: ClipSpec, folder: Path) -> None:
    async def talk() -> None:
        with pytest.raises(ServiceError, match="no room") as refused:
            await _decode(pool, decode_request(film, spec))
        assert refused.value.code == "out_of_space"

    pool = _pool(folder, decode=with_full_memory)
    _run(pool, talk)


def test_a_process_that_leaks_is_replaced_and_no_task_is_lost(
    film: Path, spec: ClipSpec, folder: Path
) -> None:
    async def talk() -> None:
        films = await asyncio.gather(*(_decode(pool, decode_request(film, spec)) for _ in range(40)))
        assert [len(clips) for clips in films] == [3] * 40
        assert 1 <= pool.num_grown <= 2  # a process does 15 tasks or a few more, then another takes its place
        assert (pool.stats.num_tasks, pool.stats.num_crashes, pool.stats.num_restarts) == (40, 0, 0)

    pool = _pool(folder, num_workers=2, max_growth_bytes=5 * LEAK_BYTES, decode=with_a_leak)
    _run(pool, talk)


def test_a_process_that_does_not_grow_stays(film: Path, spec: ClipSpec, folder: Path) -> None:
    async def talk() -> None:
        await pool.warm_up()
        before = _process_ids()
        for _ in range(15):
            await _decode(pool, decode_request(film, spec))
        assert (_process_ids(), pool.num_grown) == (before, 0)

    pool = _pool(folder, max_growth_bytes=5 * LEAK_BYTES)
    _run(pool, talk)
