"""Answers files of any origin, as a table: file, sound says, picture says, both say.

`python -m experiments.everyday.elsewhere MODEL FILE ...` prints it in Markdown. Each stream says at most two
labels that it is sure of, or that there are none, with the best.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from jaxtyping import Float

from datasets.vocabulary import Vocabulary, everyday_vocabulary
from evaluation.report import markdown_table
from media.clip import Modality
from media.errors import MediaError
from media.modality_check import read_modalities
from verification.scored_model import ScoredModel

from .clips import answers, open_everyday
from .measure import THRESHOLD

MAX_SHOWN = 2
COLUMNS = ("file", "sound says", "picture says", "both say")
app = typer.Typer(add_completion=False)


@app.command()
def answer(
    model: Annotated[Path, typer.Argument(help="Folder of a checkpoint or a bundle.")],
    files: Annotated[list[Path], typer.Argument(help="Sounds, pictures and films.")],
    variant: Annotated[str | None, typer.Option(help="Of a bundle.")] = None,
    threshold: Annotated[float, typer.Option(help="Probability from which a stream is sure.")] = THRESHOLD,
) -> None:
    """Print what a model says of files, as a table in Markdown."""
    vocabulary = everyday_vocabulary()
    opened = open_everyday(model, vocabulary, variant)
    typer.echo(table_of_files(opened, vocabulary, files, threshold), nl=False)


def table_of_files(
    model: ScoredModel, vocabulary: Vocabulary, files: Sequence[Path], threshold: float = THRESHOLD
) -> str:
    """One row a file, in Markdown."""
    rows = [(path.name, *file_cells(model, vocabulary, path, threshold)) for path in files]
    return markdown_table(COLUMNS, rows, num_text_columns=len(COLUMNS))


def file_cells(
    model: ScoredModel, vocabulary: Vocabulary, path: Path, threshold: float
) -> tuple[str, str, str]:
    """What sound, picture and both say of a file; empty for a stream that it has nothing for.

    A file that does not decode has the reason instead.
    """
    try:
        present, reader = read_modalities(path, model.spec, list(Modality), require_all=False)
        windows = list(reader)
    except MediaError as error:
        return f"({error.code})", "", ""
    cells = {
        modality: said_text(
            answers(model.predictor, modality, [windows]).probabilities[0],
            vocabulary,
            str(modality),
            threshold,
        )
        for modality in present
    }
    return (cells.get(Modality.AUDIO, ""), cells.get(Modality.VIDEO, ""), cells.get(Modality.FUSED, ""))


def said_text(
    probabilities: Float[np.ndarray, " labels"], vocabulary: Vocabulary, stream: str, threshold: float
) -> str:
    """The labels that a stream is sure of, the best first, or that there are none."""
    known = np.where(vocabulary.stream_mask(stream), probabilities, -1)
    best = np.argsort(-known, kind="stable")[:MAX_SHOWN]
    shown = [f"{vocabulary.labels[i].label} {known[i]:.0%}" for i in best if known[i] >= threshold]
    first = f"{vocabulary.labels[best[0]].label} {known[best[0]]:.0%}"
    return ", ".join(shown) or f"nothing it is sure of (best: {first})"


if __name__ == "__main__":
    app()
