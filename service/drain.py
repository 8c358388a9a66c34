"""An orderly end, after SIGTERM or SIGINT.

The server says that it is not ready, goes on answering for a while so that balancers notice, finishes what it
has, and exits with 0. A second signal ends it at once.
"""

import asyncio
from types import FrameType

import uvicorn
from fastapi import FastAPI


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with a moment between the signal and the closed door."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, drain_seconds: float) -> None:
        super().__init__(config)
        self._app, self._drain_seconds = app, drain_seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain, or end at once if that has begun.

        uvicorn's own method remembers the signal and raises it again at the end, which would not be an exit
        with 0.
        """
        if self._app.state.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._app.state.is_draining = True
        asyncio.get_event_loop().call_soon_threadsafe(self._close_later)

    def _close_later(self) -> None:
        asyncio.get_running_loop().call_later(self._drain_seconds, self._close)

    def _close(self) -> None:
        self.should_exit = True
