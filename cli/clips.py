"""`zorro classify` and `zorro embed`: the answers of a bundle to one clip."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from .arguments import AsJson, BundleOption, bundle_or_default
from .console import err, explained, make_table, out

if TYPE_CHECKING:
    from runtime import ClipResult, StreamResult

NUM_LABELS_SHOWN, NUM_VALUES_SHOWN = 3, 4
FAINT = "dim not bold"

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
    threshold: Annotated[
        float | None,
        typer.Option(help="Least probability of a label; default the bundle's, 0 shows the best anyhow."),
    ] = None,
    start: Start = 0.0,
    end: End = None,
    stride: Stride = None,
    as_json: AsJson = False,
) -> None:
    """Labels of a clip by its sound, by its picture, and by both together."""
    with explained():
        from runtime import TimeRange, Zorro

        zorro = Zorro.open(bundle_or_default(bundle))
        result = zorro.classify(
            clip,
            modalities=modality,
            top_k=top_k,
            threshold=threshold,
            time_range=TimeRange(start_seconds=start, end_seconds=end, stride_seconds=stride),
        )
        if as_json:
            decides = zorro.bundle.decision is not None
            print(json.dumps(asdict(result, dict_factory=dict if decides else _without_sureness)))
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
        from runtime import TimeRange, Zorro

        result = Zorro.open(bundle_or_default(bundle)).embed(
            clip,
            modalities=modality,
            space=space,
            time_range=TimeRange(start_seconds=start, end_seconds=end, stride_seconds=stride),
        )
        if as_json:
            print(json.dumps(asdict(result, dict_factory=_without_sureness), default=_list_of))
            return
        _print_embeddings(clip.name, result)


def _print_labels(title: str, result: "ClipResult", *, num_columns: int) -> None:
    table = make_table("stream", "seconds", *(f"{k + 1}." for k in range(num_columns)), title=title)
    for window in result.windows:
        seconds = f"{window.start_seconds:.2f}-{window.end_seconds:.2f}"
        for name, stream in window.streams.items():
            table.add_row(name, seconds, *_label_cells(stream)[:num_columns])
    for name, stream in result.whole.items():
        table.add_row(name, "all", *_label_cells(stream)[:num_columns], style="bold")
    out.print(table)
    _print_warnings(result)


def _label_cells(stream: "StreamResult") -> list[Text]:
    """What a stream says, best first; faintly, where it is not sure.

    What is heard and what is seen may have one name, and both be in one answer: the more probable one is
    shown.
    """
    from runtime.results import NOTHING_SURE

    if not stream.labels:
        guess = stream.best_guess
        return [Text(NOTHING_SURE), *([Text(f"perhaps {guess}", style=FAINT)] if guess else [])]
    by_name = {x.label: x for x in reversed(stream.labels)}
    labels = [x for x in stream.labels if by_name[x.label] is x]
    return [Text(str(x), style="" if stream.is_sure else FAINT) for x in labels]


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


def _without_sureness(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict without what only bundles with a decision say of their answers."""
    return {name: value for name, value in pairs if name not in ("threshold", "is_sure", "best_guess")}


def _list_of(value: object) -> object:
    """What JSON holds of an array."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"no JSON for {type(value)}")
