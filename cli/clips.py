"""`zorro classify` and `zorro embed`: the answers of a bundle to one clip."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import AsJson, BundleOption, bundle_or_default
from .console import err, explained, make_table, out

if TYPE_CHECKING:
    from runtime import ClipResult, LabelScore

NUM_LABELS_SHOWN, NUM_VALUES_SHOWN = 3, 4

ClipArgument = Annotated[Path, typer.Argument(help="A file of sound, of video, or a still picture.")]
Modalities = Annotated[
    list[str] | None,
    typer.Option(
        "--modality", "-m", help="audio, video or fused; may repeat. Default all that the clip has."
    ),
]
Start = Annotated[float, typer.Option("--start", help="Second to start at.")]
End = Annotated[float | None, typer.Option("--end", help="Second to end at; default the end of the clip.")]
Stride = Annotated[
    float | None, typer.Option("--stride", help="Seconds from window to window; default one window.")
]


def classify(
    clip: ClipArgument,
    bundle: BundleOption = None,
    modality: Modalities = None,
    top_k: Annotated[int, typer.Option(help="Labels per stream.")] = 5,
    threshold: Annotated[float, typer.Option(help="Least probability of a label.")] = 0.0,
    start: Start = 0.0,
    end: End = None,
    stride: Stride = None,
    as_json: AsJson = False,
) -> None:
    """Labels of a clip by its sound, by its picture, and by both together."""
    with explained():
        from runtime import Zorro

        result = Zorro.open(bundle_or_default(bundle)).classify(
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
        _print_labels(clip.name, result, num_columns=min(top_k, NUM_LABELS_SHOWN))


def embed(
    clip: ClipArgument,
    bundle: BundleOption = None,
    modality: Modalities = None,
    space: Annotated[str, typer.Option(help="shared or features.")] = "shared",
    start: Start = 0.0,
    end: End = None,
    stride: Stride = None,
    as_json: AsJson = False,
) -> None:
    """Embeddings of a clip by its sound, by its picture, and by both together."""
    with explained():
        from runtime import Zorro

        result = Zorro.open(bundle_or_default(bundle)).embed(
            clip,
            modalities=modality,
            space=space,
            start_seconds=start,
            end_seconds=end,
            stride_seconds=stride,
        )
        if as_json:
            print(json.dumps(asdict(result), default=_list_of))
            return
        _print_embeddings(clip.name, result)


def _print_labels(title: str, result: "ClipResult", *, num_columns: int) -> None:
    table = make_table("stream", "seconds", *(f"{k + 1}." for k in range(num_columns)), title=title)
    for window in result.windows:
        seconds = f"{window.start_seconds:.2f}-{window.end_seconds:.2f}"
        for name, stream in window.streams.items():
            table.add_row(name, seconds, *_label_cells(stream.labels))
    for name, stream in result.whole.items():
        table.add_row(name, "all", *_label_cells(stream.labels), style="bold")
    out.print(table)
    _print_warnings(result)


def _label_cells(labels: "Sequence[LabelScore] | None") -> list[str]:
    return [f"{x.label} {x.score:.0%}" for x in (labels or ())[:NUM_LABELS_SHOWN]]


def _print_embeddings(title: str, result: "ClipResult") -> None:
    table = make_table("stream", "seconds", "size", "begins with", title=title)
    for name, stream in result.whole.items():
        assert stream.embedding is not None
        begin = " ".join(f"{x:+.3f}" for x in stream.embedding[:NUM_VALUES_SHOWN])
        table.add_row(name, "all", str(len(stream.embedding)), begin)
    out.print(table)
    _print_warnings(result)


def _print_warnings(result: "ClipResult") -> None:
    for warning in result.warnings:
        err.print("warning:", warning, highlight=False, markup=False, soft_wrap=True)


def _list_of(value: object) -> object:
    """What JSON holds of an array."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value)}")
