"""Ctrl-C and SIGTERM during a run: the step that is under way is finished and saved, then training stops.

An optimiser that is interrupted in the middle of a step is in no state that a run could go on from.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NOTICE = b"\nstopping after this step; once more to stop at once\n"


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal.

    `saved_step` is the step it will go on from, 0 if nothing was saved.
    """

    def __init__(self, signal_number: int, saved_step: int) -> None:
        super().__init__(f"stopped by signal {signal_number}; step {saved_step} is saved")
        self.signal_number, self.saved_step = signal_number, saved_step


class Interrupts:
    """Takes the signals while it is entered.

    Within `held_back` the first one waits, and the second does not.
    """

    def __init__(self) -> None:
        self.saved_step = 0
        self.received: int | None = None
        """The signal that waits."""
        self._is_holding = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """What is done in here is finished before a signal stops it."""
        self._is_holding = True
        try:
            yield
        finally:
            self._is_holding = False

    def raise_received(self) -> None:
        """Raise TrainingInterrupted if a signal waits."""
        if self.received is not None:
            raise TrainingInterrupted(self.received, self.saved_step)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_holding or self.received is not None:
            raise TrainingInterrupted(number, self.saved_step)
        self.received = number
        os.write(2, NOTICE)  # nothing that locks or buffers may be called from a signal's handler


def ignore_interrupts(_worker: int) -> None:
    """For processes that draw batches: Ctrl-C reaches them too, and the training process ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
