"""The `zorro data` commands: look after collections of recordings before they are trained on."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .console import err, explained, out, stage_bars

if TYPE_CHECKING:
    from datasets.check import CheckReport

recordings_app = typer.Typer(no_args_is_help=True, help="Look after collections of recordings.")
Folder = Annotated[
    Path, typer.Argument(help="Folder in a known layout: its own manifest.csv, AudioSet, folders, ...")
]
NUM_PRINTED = 20  # findings; all of them are in the JSON


@recordings_app.command()
def check(
    folder: Folder,
    allow_missing: Annotated[
        bool, typer.Option(help="Missing files are no reason for exit status 1.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Decode every file and count what is missing, broken, mute, still or too short.

    Status 1 if any is the first two.
    """
    with explained():
        from datasets.check import ItemFault, check_items
        from datasets.layouts import read_items

        listing = read_items(folder)
        with stage_bars() as on_progress:
            report = check_items(listing.items, missing=listing.missing, on_progress=on_progress)
    if as_json:
        print(json.dumps({"layout": listing.layout} | asdict(report), indent=1))
    else:
        _print_report(report, listing.layout)
    if report.num(ItemFault.BROKEN) or (report.num(ItemFault.MISSING) and not allow_missing):
        raise typer.Exit(1)


@recordings_app.command()
def shard(
    folder: Folder,
    target: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder of the shards; a stopped run goes on.")
    ],
    shard_mb: Annotated[int, typer.Option(help="Megabytes of media after which a shard is full.")] = 256,
) -> None:
    """Write a collection as WebDataset tar shards: its files as they are, with their labels and spans."""
    with explained():
        from datasets.layouts import read_items
        from datasets.shard_writer import write_shards

        listing = read_items(folder)
        with stage_bars() as on_progress:
            index = write_shards(listing, folder, target, shard_mb=shard_mb, on_progress=on_progress)
    table = Table(
        "split",
        "shards",
        "files",
        "items",
        "missing items",
        "broken files",
        title=f"{target} ({index.layout})",
    )
    for split in sorted({s.split for s in index.shards} | index.missing.keys()):
        of_split = [s for s in index.shards if s.split == split]
        broken = sum((Counter(s.broken) for s in of_split), Counter())
        numbers = (len(of_split), sum(s.num_files for s in of_split), sum(s.num_items for s in of_split))
        codes = ", ".join(f"{count} {code}" for code, count in broken.items()) or "0"
        table.add_row(split, *map(str, numbers), str(index.missing.get(split, 0)), codes)
    out.print(table)


def _print_report(report: "CheckReport", layout: str) -> None:
    columns = list(next(iter(report.counts.values()), {}))
    table = Table("split", *columns, title=f"items ({layout})")
    for split, counts in sorted(report.counts.items()):
        table.add_row(split, *(str(counts[column]) for column in columns))
    out.print(table)
    # A collection of pictures is still by nature, so what is broken or missing goes first.
    order = ["broken", "missing", "damaged", "short", "mute", "still"]
    for finding in sorted(report.findings, key=lambda finding: order.index(finding.fault))[:NUM_PRINTED]:
        about = " ".join(part for part in (finding.code, finding.message) if part)
        out.print(
            f"{finding.fault}: {finding.path} {about}".rstrip(), highlight=False, markup=False, soft_wrap=True
        )
    if len(report.findings) > NUM_PRINTED:
        err.print(f"{NUM_PRINTED} of {len(report.findings)} findings; --json has all", highlight=False)
