"""An orderly shutdown after SIGTERM or SIGINT.

The server reports that it is not ready, goes on accepting requests for a while so that load balancers notice,
finishes what it has, and exits with 0. A second signal ends it at once.
"""

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI

from .state import started_state


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with some seconds between the signal and the end of accepting requests."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_seconds: float) -> None:
        super().__init__(config)
        self._app, self._drain_seconds = app, drain_seconds
        self._is_draining = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain, or end at once if draining has begun.

        uvicorn's own method remembers the signal and raises it again at the end; the exit would not be with
        0.
        """
        if self._is_draining:
            self.should_exit = self.force_exit = True
            return
        self._is_draining = True
        if (state := started_state(self._app)) is not None:
            state.is_draining = True
        asyncio.get_event_loop().call_soon_threadsafe(self._close_later)

    def _close_later(self) -> None:
        asyncio.get_running_loop().call_later(self._drain_seconds, self._close)

    def _close(self) -> None:
        self.should_exit = True
