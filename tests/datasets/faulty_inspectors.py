"""Stand-ins for what looks at a file, in a process of its own."""

import os
import time
from pathlib import Path

from datasets.check import FileFacts


def crash_on_some(path: Path, audio: bool, video: bool) -> FileFacts:
    """End the process at files called crash; say of others what was asked."""
    if path.stem == "crash":
        os._exit(11)
    return FileFacts(is_audible=audio, is_moving=video, num_seconds=1.0)


def take_long(path: Path, audio: bool, video: bool) -> FileFacts:
    """Take a second for each file."""
    time.sleep(1.0)
    return FileFacts(is_audible=audio, is_moving=video, num_seconds=1.0)
