"""The `zorro` command, put together from its parts.

Exit status: 0 done, 1 it could not be done and the message says why, 2 the command line is wrong.
Commands import what they need when they run, so that serving needs no torch.
"""

from importlib.metadata import version
from typing import Annotated

import typer

from .bundle import bundle_app
from .clips import classify, embed
from .evaluate import evaluate
from .export import export
from .recordings import recordings_app
from .serve import serve
from .tensorrt import audit, build
from .train import train

DISTRIBUTION = "zorro-av"
"""Whose metadata tell the version."""

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command()(train)
app.command()(evaluate)
app.command()(export)
app.command()(classify)
app.command()(embed)
app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)(serve)
bundle_app.command()(audit)
bundle_app.command()(build)
app.add_typer(bundle_app, name="bundle")
app.add_typer(recordings_app, name="data")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"zorro {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def zorro(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Label and embed clips by their sound, by their picture, and by both together."""


if __name__ == "__main__":
    app()
