"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, num_left: int | None = None
) -> str:
    """A table whose first `num_left` columns are aligned left and the others right; None: all left."""
    num_left = len(columns) if num_left is None else num_left
    rule = ["---"] * num_left + ["---:"] * (len(columns) - num_left)
    lines = [[str(cell).replace("|", "\\|") for cell in line] for line in (columns, rule, *rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
