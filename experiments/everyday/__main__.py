"""Measures a model of the label table: `python -m experiments.everyday MODEL --data FOLDER --split val`."""

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="Folder of a checkpoint or a bundle.")],
    data: Annotated[Path, typer.Option(help="Folder of the collections sights_sounds and caltech101.")],
    split: Annotated[str, typer.Option(help="val to choose, test to report once.")] = "val",
    teachers: Annotated[
        Path | None, typer.Option(help="Folder of the teachers' files, to compare with.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Of a bundle.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="File for all figures.")] = None,
    scores: Annotated[
        Path | None, typer.Option(help="File for those that a bundle holds: `zorro export --metrics`.")
    ] = None,
) -> None:
    """Measure a model on a split: accuracy, calibration, silence and noise, and the shared space."""
    from datasets.vocabulary import everyday_vocabulary

    from .clips import open_everyday
    from .measure import measure, to_json
    from .report import to_scores, to_text

    if split == "test":
        typer.echo("The test split is looked at once, when nothing is left to choose.", err=True)
    opened = open_everyday(model, everyday_vocabulary(), variant)
    found = measure(opened, data, split, teachers=teachers, say=lambda text: typer.echo(text, err=True))
    if json_file is not None:
        facts = {"model": model.name, "variant": variant, "split": split}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(to_json(found, facts), indent=1) + "\n")
    if scores is not None:
        scores.write_text(json.dumps(to_scores(found), indent=1) + "\n")
    typer.echo(to_text(found), nl=False)


if __name__ == "__main__":
    app()
