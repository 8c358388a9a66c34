"""Reads a film in processes that may take less and less memory, and prints what became of each.

python -m tests.media.little_memory FILM: JSON, {bytes that the process might take: "starved", "died", or what
it read}
"""

import hashlib
import json
import os
import resource
import sys
from pathlib import Path

from media import ClipSpec, Modality
from media.memory import data_bytes
from media.modality_check import read_modalities

ENOUGH_BYTES = 1 << 30
STEP_BYTES = 256 << 10
NUM_STEPS = 24


def outcome(film: Path, max_bytes: int) -> str:
    """What a process makes of the film that may take so much more than it has."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes() + max_bytes,) * 2)
        os.write(theirs, _read(film).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said or "died"


def _read(film: Path) -> str:
    spec = ClipSpec(num_mel_frames=64, num_mel_bins=32, num_video_frames=2, frame_size=32)
    try:
        _, reader = read_modalities(film, spec, [Modality.VIDEO], require_all=True)
        pictures = [clip.video.tobytes() for clip in reader if clip.video is not None]
    except MemoryError:
        return "starved"
    except Exception as error:
        return repr(error)
    return f"{len(pictures)} windows {hashlib.sha256(b''.join(pictures)).hexdigest()} {reader.warnings}"


def main() -> None:
    """Look for the least memory that is enough, and then at what happens just below it."""
    film = Path(sys.argv[1])
    outcomes = {ENOUGH_BYTES: outcome(film, ENOUGH_BYTES)}
    too_little, enough = 0, ENOUGH_BYTES
    while enough - too_little > STEP_BYTES:
        middle = (too_little + enough) // 2
        outcomes[middle] = outcome(film, middle)
        too_little, enough = (
            (too_little, middle) if outcomes[middle] == outcomes[ENOUGH_BYTES] else (middle, enough)
        )
    for step in range(NUM_STEPS):
        outcomes[too_little - step * STEP_BYTES] = outcome(film, too_little - step * STEP_BYTES)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
