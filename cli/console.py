"""What all commands share: printing, progress, and sentences for expected errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich.box
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from media.progress import OnProgress

out, err = Console(), Console(stderr=True)

EXTRA_OF = {
    "torch": "cpu,train,export",
    "safetensors": "cpu,train,export",
    "matplotlib": "cpu,train",
    "sklearn": "cpu,train",
    "webdataset": "cpu,train,shards",
    "onnx": "cpu,export",
    "onnxscript": "cpu,export",
    "onnxruntime": "cpu",
    "opentelemetry": "cpu,otel",
}


@contextmanager
def explained() -> Iterator[None]:
    """Expected errors become a sentence and exit status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise stop(str(error)) from error
        install = f"pip install -c constraints.txt --editable '.[{extra}]'"
        raise stop(f"this command needs {error.name}, which is not installed: {install}") from error
    except Exception as error:
        from media.errors import MediaError
        from runtime.errors import ZorroError

        if isinstance(error, MediaError | ZorroError | ValueError | OSError):
            raise stop(str(error)) from error
        raise


def stop(message: str) -> typer.Exit:
    """Print the message; raise what is returned."""
    err.print(Text.assemble(("error: ", "red"), message), highlight=False, soft_wrap=True)
    return typer.Exit(1)


def make_table(*columns: str, title: str) -> Table:
    """An empty table without a frame, which leaves 80 columns for what is in it."""
    return Table(
        *columns,
        title=title,
        title_justify="left",
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar for each stage, with a note."""
    texts = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (texts[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), texts[1])
    with Progress(*columns, console=err) as shown:
        yield shown


@contextmanager
def stage_bars() -> "Iterator[OnProgress]":
    """A bar for each stage, from when it is first told of; yields what to tell."""
    with progress_bar() as progress:
        tasks: dict[str, TaskID] = {}

        def on_progress(
            stage: str, done: int, total: int, figures: Mapping[str, float] | None = None
        ) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, note="")
            note = " ".join(f"{name} {value:.3g}" for name, value in (figures or {}).items())
            progress.update(tasks[stage], completed=done, total=total, note=note)

        yield on_progress
