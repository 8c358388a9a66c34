"""The end after a signal: not ready at once, closed after a while, and at once after a second signal."""

import asyncio
import signal
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.drain import DrainingServer
from service.settings import Settings
from service.state import state_of


def _app(folder: Path) -> FastAPI:
    """An application without models."""
    return create_app(Settings(bundles=folder, temporary_dir=folder, windows_dir=folder))


def test_a_signal_makes_the_server_not_ready_and_a_second_one_ends_it(tmp_path: Path) -> None:
    app = _app(tmp_path)
    server = DrainingServer(uvicorn.Config(app), app, drain_seconds=600.0)

    async def talk() -> None:
        async with app.router.lifespan_context(app):
            assert not state_of(app).is_draining
            server.handle_exit(signal.SIGTERM, None)
            assert state_of(app).is_draining
            assert not server.should_exit
            server.handle_exit(signal.SIGTERM, None)
            assert server.should_exit
            assert server.force_exit

    asyncio.run(talk())


def test_a_signal_before_the_server_has_started_ends_it_too(tmp_path: Path) -> None:
    app = _app(tmp_path)
    server = DrainingServer(uvicorn.Config(app), app, drain_seconds=0.0)

    async def talk() -> None:
        server.handle_exit(signal.SIGTERM, None)
        for _ in range(3):  # the handler schedules a callback, which schedules the end
            await asyncio.sleep(0.001)
        assert server.should_exit
        assert not server.force_exit

    asyncio.run(talk())
