"""The `zorro` command: train, evaluate, export, bundle verify, classify, embed, serve.

Exit status: 0 done, 1 it could not be done and the message says why, 2 the command line means nothing.
Commands import what they need when they run, so that serving needs no torch.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Sound, picture, and both together.")
bundle_app = typer.Typer(no_args_is_help=True, help="Look after bundles.")
app.add_typer(bundle_app, name="bundle")
out, err = Console(), Console(stderr=True)

EXTRA_OF = {"torch": "cpu,train,export", "safetensors": "cpu,train,export", "matplotlib": "cpu,train",
            "onnx": "cpu,export", "onnxscript": "cpu,export", "onnxruntime": "cpu", "opentelemetry": "cpu,otel"}  # fmt: skip
SWITCH_SECONDS = 0.0005  # a session that has run waits no longer for the interpreter, which is busy with requests
DEFAULT_BUNDLE = Path("bundles/sights-sounds/1")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder NAME/VERSION of a bundle.")]
Modalities = Annotated[list[str] | None, typer.Option("--modality", "-m", help="audio, video or fused; may repeat.")]
Start = Annotated[float, typer.Option("--start", help="Second to start at.")]
End = Annotated[float | None, typer.Option("--end", help="Second to end at; default the end of the media.")]
Stride = Annotated[float | None, typer.Option("--stride", help="Seconds from window to window; default one window.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder that holds manifest.csv.")]


@contextmanager
def _explained() -> Iterator[None]:
    """Expected errors become a sentence and exit status 1."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = EXTRA_OF.get((error.name or "").partition(".")[0], "dev")
        install = f"pip install --editable '.[{extra}]'"
        raise _stop(f"this command needs {error.name}, which is not installed: {install}") from error
    except Exception as error:
        from media.errors import MediaError
        from runtime.errors import ZorroError

        if isinstance(error, MediaError | ZorroError | ValueError | OSError):
            raise _stop(str(error)) from error
        raise


def _stop(message: str) -> typer.Exit:
    err.print(Text.assemble(("error: ", "red"), message), highlight=False, soft_wrap=True)
    return typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Progress]:
    texts = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (texts[0], BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), texts[1])
    with Progress(*columns, console=err) as progress:
        yield progress


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="TOML file, such as training/recipes/sights-sounds.toml.")],
    data: DataOption,
    run: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/RECIPE.")] = None,
    fresh: Annotated[bool, typer.Option(help="Refuse to continue a run that is there.")] = False,
) -> None:
    """Train by a recipe; a run that was stopped goes on where it was saved."""
    with _explained(), _progress() as progress:
        from training.loop import train as run_training

        tasks: dict[str, Any] = {}

        def on_progress(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total, note="")
            note = " ".join(f"{name} {value:.3g}" for name, value in figures.items())
            progress.update(tasks[stage], completed=done, total=total, note=note)

        folder = run or Path("runs") / recipe.stem
        checkpoint = run_training(recipe, folder, data_dir=data, resume=not fresh, on_progress=on_progress)
    out.print(f"checkpoint: {checkpoint}")


@app.command()
def evaluate(
    target: Annotated[Path, typer.Argument(help="A checkpoint's or a bundle's folder.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="val to choose, test to report once.")] = "val",
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint or a bundle on a split: the same tables for both."""
    with _explained():
        from .scoring import score_target

        tables = score_target(target, data, split=split)
        _print_scores(tables, as_json=as_json)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that `zorro train` wrote.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder NAME/VERSION to be made.")],
    data: Annotated[Path | None, typer.Option("--data", help="Check parity on its test split too.")] = None,
    card: Annotated[Path | None, typer.Option(help="Model card, Markdown.")] = None,
    metrics: Annotated[Path | None, typer.Option(help="Scores to put in, JSON of `zorro evaluate --json`.")] = None,
    about: Annotated[Path | None, typer.Option(help="Licence and provenance of the data, JSON.")] = None,
    force: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a checkpoint to a bundle, proven pure and equal to the model."""
    with _explained():
        from export.bundle_writer import export_checkpoint

        from .scoring import parity_clips

        name, version = folder.resolve().parts[-2:]
        with err.status("reading clips") as status:
            path = export_checkpoint(
                checkpoint, folder, name=name, version=version, force=force,
                clips=parity_clips(checkpoint, data) if data else None,
                model_card=card.read_text() if card else "",
                metrics=json.loads(metrics.read_text()) if metrics else None,
                about=json.loads(about.read_text()) if about else None,
                on_progress=lambda stage: status.update(stage),
            )  # fmt: skip
        out.print(f"bundle: {path}")


@bundle_app.command("verify")
def verify(path: Annotated[Path, typer.Argument()] = DEFAULT_BUNDLE, as_json: AsJson = False) -> None:
    """Check every byte of a bundle, and its answers to the golden clips, on this machine."""
    with _explained():
        from runtime import Zorro

        model = Zorro.open(path)
        report = asdict(model.self_test()) | {"sha256": model.bundle.sha256, "providers": model.providers}
        if as_json:
            print(json.dumps(report))
        else:
            out.print(f"{path}: every byte and every golden answer is as it was made ({model.bundle.sha256[:12]})")


@app.command()
def classify(
    clip: Annotated[Path, typer.Argument(help="A film, a sound or a picture.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    modality: Modalities = None,
    top_k: Annotated[int, typer.Option(help="Labels per stream.")] = 5,
    threshold: Annotated[float, typer.Option(help="Least probability of a label.")] = 0.0,
    start: Start = 0.0,
    end: End = None,
    stride: Stride = None,
    as_json: AsJson = False,
) -> None:
    """What a clip's sound says, what its picture says, and what both say together."""
    with _explained():
        from runtime import Zorro

        result = Zorro.open(bundle).classify(
            clip, modalities=modality, top_k=top_k, threshold=threshold,
            start_seconds=start, end_seconds=end, stride_seconds=stride,
        )  # fmt: skip
        if as_json:
            print(json.dumps(asdict(result)))
            return
        table = Table("stream", "seconds", *[f"{k + 1}." for k in range(min(top_k, 3))], title=str(clip.name))
        for window in result.windows:
            for name, stream in window.streams.items():
                labels = [f"{x.label} {x.score:.0%}" for x in (stream.labels or ())[:3]]
                table.add_row(name, f"{window.start_seconds:.2f}-{window.end_seconds:.2f}", *labels)
        for name, stream in result.whole.items():
            table.add_row(name, "all", *[f"{x.label} {x.score:.0%}" for x in (stream.labels or ())[:3]], style="bold")
        out.print(table)
        for warning in result.warnings:
            err.print("warning:", warning, highlight=False)


@app.command()
def embed(
    clip: Annotated[Path, typer.Argument(help="A film, a sound or a picture.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    modality: Modalities = None,
    space: Annotated[str, typer.Option(help="shared or features.")] = "shared",
    start: Start = 0.0,
    end: End = None,
    stride: Stride = None,
    as_json: AsJson = False,
) -> None:
    """Embeddings of a clip."""
    with _explained():
        from runtime import Zorro

        result = Zorro.open(bundle).embed(
            clip, modalities=modality, space=space, start_seconds=start, end_seconds=end, stride_seconds=stride
        )
        if as_json:
            print(json.dumps(asdict(result), default=_plain))
            return
        table = Table("stream", "seconds", "size", "begins with", title=str(clip.name))
        for name, stream in result.whole.items():
            assert stream.embedding is not None
            table.add_row(name, "all", str(len(stream.embedding)), " ".join(f"{x:+.3f}" for x in stream.embedding[:6]))
        out.print(table)


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def serve(context: typer.Context) -> None:
    """Serve the bundles of a model repository over HTTP; --help lists all settings, which are also environment variables."""
    with _explained():
        import uvicorn
        from pydantic_settings import CliApp

        from runtime import find_bundles
        from service.app import create_app
        from service.drain import DrainingServer
        from service.logs import log_to_stderr
        from service.settings import ServeCommand

        sys.setswitchinterval(SWITCH_SECONDS)
        settings = CliApp.run(ServeCommand, cli_args=context.args)
        find_bundles(settings.bundles)
        err.print(f"Zorro AV on http://{settings.host}:{settings.port} - page at /, API at /docs", highlight=False)
        log_to_stderr()
        zorro = create_app(settings)
        config = uvicorn.Config(zorro, host=settings.host, port=settings.port, log_level="warning", access_log=False)
        server = DrainingServer(config, zorro, drain_seconds=settings.drain_seconds)
        try:
            server.run()
        except SystemExit as error:  # uvicorn's way to say that it cannot listen
            raise _stop(f"cannot serve on {settings.host}:{settings.port}; is the port taken?") from error


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value)}")


def _print_scores(tables: dict[str, dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(tables, indent=1))
        return
    summary = Table("table", "clips", "top-1", "top-5", "calibration error")
    for name, scores in tables.items():
        shares = (f"{scores['top1']:.1%}", f"{scores['top5']:.1%}", f"{scores['calibration_error']:.3f}")
        summary.add_row(name, str(scores["clips"]), *shares)
    out.print(summary)
    labels = Table("label", *tables, title="top-1 per label")
    for label in sorted({label for scores in tables.values() for label in scores["labels"]}):
        cells = [scores["labels"].get(label) for scores in tables.values()]
        labels.add_row(label, *["" if c is None else f"{c['accuracy']:.0%} of {c['clips']}" for c in cells])
    out.print(labels)


if __name__ == "__main__":
    app()
