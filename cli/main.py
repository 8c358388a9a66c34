"""The `zorro` command: train, evaluate, export, bundle verify, data check and shard, classify, embed, serve.

Exit status: 0 done, 1 it could not be done and the message says why, 2 the command line means nothing.
Commands import what they need when they run, so that serving needs no torch.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from .bundle import DEFAULT_BUNDLE, AsJson, bundle_app
from .console import err, explained, out, stop
from .evaluate import evaluate
from .recordings import recordings_app
from .tensorrt import audit, build
from .train import train

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Sound, picture, and both together.")
bundle_app.command("audit")(audit)
bundle_app.command("build")(build)
app.command()(train)
app.command()(evaluate)
app.add_typer(bundle_app, name="bundle")
app.add_typer(recordings_app, name="data")
SWITCH_SECONDS = (
    0.0005  # a session that has run waits no longer for the interpreter, which is busy with requests
)
BundleOption = Annotated[Path, typer.Option("--bundle", help="Folder NAME/VERSION of a bundle.")]
Modalities = Annotated[
    list[str] | None, typer.Option("--modality", "-m", help="audio, video or fused; may repeat.")
]
Start = Annotated[float, typer.Option("--start", help="Second to start at.")]
End = Annotated[float | None, typer.Option("--end", help="Second to end at; default the end of the media.")]
Stride = Annotated[
    float | None, typer.Option("--stride", help="Seconds from window to window; default one window.")
]


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="What `zorro train` wrote, or a bundle with it.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder NAME/VERSION to be made.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Check parity on its test split too; calibrate int8 on its training split."
        ),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(help="fp32, fp16, int8-cpu, int8-qdq; may repeat. Default: all that can be had."),
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Model card, Markdown; default the bundle's, if it is from one.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Scores, JSON of `zorro evaluate --json`; default as card.")
    ] = None,
    about: Annotated[
        Path | None, typer.Option(help="Licence and provenance of data, JSON; default as card.")
    ] = None,
    with_checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint/--no-checkpoint", help="Put it in, to be trained on; else a third smaller."
        ),
    ] = True,
    force: Annotated[bool, typer.Option(help="Replace a bundle that is there.")] = False,
) -> None:
    """Export a checkpoint to a bundle: its variants, each proven pure and equal to the model within its tolerance."""
    with explained():
        from export.bundle_writer import export_checkpoint
        from export.variants import VARIANTS, Calibration
        from verification.checkpoint_source import open_origin
        from verification.export_clips import calibration_clips, parity_clips

        origin = open_origin(source)
        checkpoint = origin.checkpoint
        variants = variant or (VARIANTS if data else ("fp32", "fp16"))
        name, version = folder.resolve().parts[-2:]
        with err.status("reading clips") as status:
            path = export_checkpoint(
                checkpoint,
                folder,
                name=name,
                version=version,
                force=force,
                variants=variants,
                may_lack=() if variant else VARIANTS,
                calibration=Calibration(calibration_clips(checkpoint, data)) if data else None,
                clips=parity_clips(checkpoint, data) if data else None,
                model_card=card.read_text() if card else origin.card,
                metrics=json.loads(metrics.read_text()) if metrics else origin.metrics,
                about=json.loads(about.read_text()) if about else origin.about,
                with_checkpoint=with_checkpoint,
                on_progress=lambda stage: status.update(stage),
            )
        for name, reason in json.loads((path / "bundle.json").read_text())["left_out"].items():
            err.print(f"left out: {name}: {reason}", highlight=False, markup=False)
        out.print(f"bundle: {path}")


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
    with explained():
        from runtime import Zorro

        result = Zorro.open(bundle).classify(
            clip,
            modalities=modality,
            top_k=top_k,
            threshold=threshold,
            start_seconds=start,
            end_seconds=end,
            stride_seconds=stride,
        )
        if as_json:
            print(json.dumps(asdict(result)))
            return
        table = Table("stream", "seconds", *[f"{k + 1}." for k in range(min(top_k, 3))], title=str(clip.name))
        for window in result.windows:
            for name, stream in window.streams.items():
                labels = [f"{x.label} {x.score:.0%}" for x in (stream.labels or ())[:3]]
                table.add_row(name, f"{window.start_seconds:.2f}-{window.end_seconds:.2f}", *labels)
        for name, stream in result.whole.items():
            table.add_row(
                name, "all", *[f"{x.label} {x.score:.0%}" for x in (stream.labels or ())[:3]], style="bold"
            )
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
    with explained():
        from runtime import Zorro

        result = Zorro.open(bundle).embed(
            clip,
            modalities=modality,
            space=space,
            start_seconds=start,
            end_seconds=end,
            stride_seconds=stride,
        )
        if as_json:
            print(json.dumps(asdict(result), default=_plain))
            return
        table = Table("stream", "seconds", "size", "begins with", title=str(clip.name))
        for name, stream in result.whole.items():
            assert stream.embedding is not None
            table.add_row(
                name, "all", str(len(stream.embedding)), " ".join(f"{x:+.3f}" for x in stream.embedding[:6])
            )
        out.print(table)


@app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def serve(context: typer.Context) -> None:
    """Serve the bundles of a model repository over HTTP; --help lists all settings, which are also environment variables."""
    with explained():
        import uvicorn
        from pydantic_settings import CliApp

        from runtime import find_bundles
        from service.app import create_app
        from service.drain import DrainingServer
        from service.logs import log_to_stderr
        from service.memory import share_one_heap
        from service.settings import ServeCommand

        share_one_heap()
        sys.setswitchinterval(SWITCH_SECONDS)
        settings = CliApp.run(ServeCommand, cli_args=context.args)
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
        except SystemExit as error:  # uvicorn's way to say that it cannot listen
            raise stop(f"cannot serve on {settings.host}:{settings.port}; is the port taken?") from error


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value)}")


if __name__ == "__main__":
    app()
