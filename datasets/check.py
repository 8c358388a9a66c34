"""Checks every file of a collection before training.

It finds what is missing, broken, mute, still, or too short.

Each file is decoded once, to its end, in a process that may crash or hang and then costs that file alone.
Mute, still, broken and damaged are said of the whole file, too short of an item's span; an item may have
several of these faults.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path

import numpy as np
from pebble import ProcessExpired, ProcessPool

from media.clip import ClipReader, read_clips
from media.container import MediaLimits
from media.probe import probe
from media.progress import OnProgress, ignore_progress
from media.spec import ClipSpec

from .manifests import Item
from .read_failure import read_failure

CHECK_SPEC = ClipSpec(num_mel_frames=256, num_video_frames=8, frame_size=64)
CHECK_LIMITS = MediaLimits(max_threads=1)
MAX_STILL_CHANGE = (
    14  # of 255, at 64 pixels: photographs that stand still, as H.264 at its usual quality, reach 10 to 14
)
MIN_LACK_SECONDS = 0.1  # a span may end this much after its file: encoders round to their frames
CHECK_TIMEOUT_SECONDS = 300.0  # for one file
NUM_QUEUED = 1000  # files handed to the processes at a time


class ItemFault(StrEnum):
    """What can be wrong with an item."""

    MISSING = "missing"
    """Its file is not there."""
    BROKEN = "broken"
    """Its file does not decode; `Finding.code` says why."""
    MUTE = "mute"
    """It has no sound where sound is wanted, or silence only."""
    STILL = "still"
    """It has no moving picture where pictures are wanted: none at all, a still, or a film that stands
    still."""
    SHORT = "short"
    """Its file ends before its span does."""
    DAMAGED = "damaged"
    """A part of its file does not decode, or it ends before its header says."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What decoding a file has shown; the rest is not filled in where there is a `code`."""

    is_audible: bool = False
    is_moving: bool = False
    num_seconds: float = 0.0
    is_still: bool = False
    """A single picture, which fills any span."""
    warnings: tuple[str, ...] = ()
    code: str = ""
    """Why it does not decode."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one item."""

    path: str
    split: str
    fault: ItemFault
    code: str = ""
    """Of a broken file: a `MediaError`'s code, "unreadable", "decoder_failed", "crashed" or "timeout"."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """Counts by split, and every fault that was found."""

    counts: dict[str, dict[str, int]]
    """Of each split: "items", those without any fault as "ok", and those with each `ItemFault`."""
    findings: tuple[Finding, ...]

    def num(self, fault: ItemFault) -> int:
        """Items with this fault, over all splits."""
        return sum(counts[fault] for counts in self.counts.values())


Inspect = Callable[[Path, bool, bool], FileFacts]


def check_items(
    items: Sequence[Item],
    *,
    missing: Sequence[Item] = (),
    num_workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
    inspect: Inspect | None = None,
) -> CheckReport:
    """Decode the file of each item and report what is wrong with it.

    Args:
        items: whose files are there; several may be spans of one file.
        missing: items whose files are not, to be reported with the others.
        num_workers: processes; default one per core.
        on_progress: told of the stage "check", in files.
        inspect: what looks at one file, given its path and whether its sound and its picture are wanted.
    """
    spans: dict[Path, list[Item]] = {}
    for item in items:
        spans.setdefault(item.path, []).append(item)
    jobs = [
        (path, any(x.modality != "video" for x in of_file), any(x.modality != "audio" for x in of_file))
        for path, of_file in spans.items()
    ]
    by_item: list[tuple[Item, tuple[Finding, ...]]] = [
        (item, (Finding(str(item.path), item.split, ItemFault.MISSING),)) for item in missing
    ]
    facts_of = _inspect_all(jobs, inspect or inspect_file, num_workers or os.cpu_count() or 1)
    for done, (of_file, facts) in enumerate(zip(spans.values(), facts_of, strict=True), 1):
        by_item += [(item, tuple(_findings(item, facts))) for item in of_file]
        on_progress("check", done, len(jobs))
    return CheckReport(_counts(by_item), tuple(finding for _, found in by_item for finding in found))


def inspect_file(path: Path, audio: bool, video: bool) -> FileFacts:
    """Decode a file to its end; of its sound and its picture only what is wanted and there."""
    try:
        info = probe(path, limits=CHECK_LIMITS)
        audio, video = audio and info.has_audio, video and info.has_video
        if not (audio or video):
            return FileFacts(num_seconds=info.duration_seconds or 0.0, is_still=info.is_still)
        facts = _watch(read_clips(path, CHECK_SPEC, audio=audio, video=video, limits=CHECK_LIMITS))
        return replace(facts, is_still=info.is_still)
    except Exception as error:  # whatever a decoder raises costs its file alone
        failure = read_failure(path, error)
        return FileFacts(code=failure.code, message=failure.message)


def _watch(reader: ClipReader) -> FileFacts:
    first: np.ndarray | None = None
    is_audible, is_moving, end_seconds = False, False, 0.0
    for clip in reader:
        is_audible = is_audible or not clip.is_silent
        if clip.video is not None:
            frames = clip.video.astype(np.int16)
            first = frames[0] if first is None else first
            is_moving = is_moving or int(np.abs(frames - first).max()) > MAX_STILL_CHANGE
        end_seconds = clip.start_seconds + max(clip.audio_seconds, clip.video_seconds)
    return FileFacts(is_audible, is_moving, end_seconds, warnings=tuple(reader.warnings))


def _findings(item: Item, facts: FileFacts) -> Iterator[Finding]:
    name, split = str(item.path), item.split
    if facts.code:
        yield Finding(name, split, ItemFault.BROKEN, facts.code, facts.message)
        return
    if item.modality != "video" and not facts.is_audible:
        yield Finding(name, split, ItemFault.MUTE)
    if item.modality != "audio" and not facts.is_moving:
        yield Finding(name, split, ItemFault.STILL)
    end = item.end_seconds
    if end is not None and not facts.is_still and facts.num_seconds < end - MIN_LACK_SECONDS:
        yield Finding(
            name,
            split,
            ItemFault.SHORT,
            message=f"it ends after {facts.num_seconds:.2f} s, its span at {end:.2f} s",
        )
    if facts.warnings:
        yield Finding(name, split, ItemFault.DAMAGED, message="; ".join(facts.warnings))


def _counts(by_item: Sequence[tuple[Item, tuple[Finding, ...]]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for item, found in by_item:
        of_split = counts.setdefault(item.split, dict.fromkeys(("items", "ok", *ItemFault), 0))
        for name in ("items", *(finding.fault for finding in found)):
            of_split[name] += 1
        of_split["ok"] += not found
    return counts


def _inspect_all(
    jobs: Sequence[tuple[Path, bool, bool]], inspect: Inspect, num_workers: int
) -> Iterator[FileFacts]:
    """Facts of each file, in order."""
    waiting = iter(jobs)
    num_workers = max(1, min(num_workers, len(jobs)))
    with ProcessPool(max_workers=num_workers, context=multiprocessing.get_context("spawn")) as pool:
        try:
            while part := list(islice(waiting, NUM_QUEUED)):
                facts = pool.map(inspect, *zip(*part, strict=True), timeout=CHECK_TIMEOUT_SECONDS).result()
                for _ in part:
                    yield _next_of(facts)
        finally:
            pool.stop()  # else an interrupt would wait for all that is queued


def _next_of(facts: Iterator[FileFacts]) -> FileFacts:
    try:
        return next(facts)
    except TimeoutError:
        return FileFacts(code="timeout", message=f"it does not decode within {CHECK_TIMEOUT_SECONDS:g} s")
    except (ProcessExpired, MemoryError) as error:
        return FileFacts(code="crashed", message=f"its decoder ended: {error}")
    except Exception as error:  # of an inspector of another kind; it costs its file alone too
        return FileFacts(code="decoder_failed", message=f"{type(error).__name__}: {error}")
