"""`zorro serve`: the HTTP server, until it is told to stop."""

import sys
from typing import TYPE_CHECKING

import typer

from .arguments import model_repositories
from .console import err, explained, stop

if TYPE_CHECKING:
    from service.settings import ServeCommand

SWITCH_SECONDS = 0.0005
"""A session that has run waits no longer than this for the interpreter, which is busy with requests."""


def serve(context: typer.Context) -> None:
    """Serve the bundles of a model repository over HTTP.

    --help lists all settings, which are also environment variables.
    """
    with explained():
        import uvicorn

        from runtime import find_bundles
        from service.app import create_app
        from service.drain import DrainingServer
        from service.heap import share_one_heap
        from service.logs import log_to_stderr

        share_one_heap()
        sys.setswitchinterval(SWITCH_SECONDS)
        settings = _read_settings(context.args)
        find_bundles(settings.bundles)
        err.print(
            f"Zorro AV on http://{settings.host}:{settings.port} - page at /, API at /docs", highlight=False
        )
        log_to_stderr()
        zorro = create_app(settings)
        config = uvicorn.Config(
            zorro,
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
        )
        server = DrainingServer(config, zorro, drain_seconds=settings.drain_seconds)
        try:
            server.run()
        except SystemExit as error:  # uvicorn ends the process where it cannot listen
            raise stop(f"cannot serve on {settings.host}:{settings.port}; is the port taken?") from error


def _read_settings(arguments: list[str]) -> "ServeCommand":
    """Settings of the command line and the environment.

    Bundles by default those of here, or of the checkout.
    """
    from pydantic_settings import CliApp

    from service.settings import ServeCommand

    settings = CliApp.run(ServeCommand, cli_args=arguments)
    if "bundles" in settings.model_fields_set:
        return settings
    there = [folder for folder in model_repositories() if folder.is_dir()]
    return settings.model_copy(update={"bundles": there[0]}) if there else settings
