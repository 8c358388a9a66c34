"""Runs the experiments, and writes their report.

`python -m experiments run --data FOLDER` trains and scores. `python -m experiments report` writes the
report.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="The paper's claims, examined in the small."
)
Runs = Annotated[Path, typer.Option(help="Folder of the runs.")]


@app.command()
def run(
    data: Annotated[Path, typer.Option(help="Folder of GRID, with sentences.csv and words.csv.")],
    runs: Runs = Path("runs/grid"),
    only: Annotated[str, typer.Option(help="Names of runs, with * for anything.")] = "*",
    parallel: Annotated[int | None, typer.Option(help="Runs at a time; default one per core.")] = None,
) -> None:
    """Train and score what has no result yet; what was stopped goes on."""
    from .grid.run import run_all

    run_all(data, runs, only=only, parallel=parallel)


@app.command(
    help="Write results/grid.json, grid.md and charts: runs that are done, "
    "and of earlier ones what grid.json holds."
)
def report(runs: Runs = Path("runs/grid")) -> None:
    """Write results/grid.json, grid.md and charts.

    They show the runs that are done, and of earlier ones what grid.json holds.
    """
    from .grid.report import collect, with_earlier, write_results

    print(write_results(with_earlier(collect(runs))))


if __name__ == "__main__":
    app()
