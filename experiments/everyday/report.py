"""The measures as a table of 80 columns."""

from itertools import groupby

from .measure import MeasureRow, Measures

TEACHERS = ("mn04", "YAMNet", "joined", "Lite0")
_NAME, _COUNT = 34, 6


def to_text(measures: Measures) -> str:
    """Rows by section, teachers beside the model, and whether what is wanted is met."""
    lines = []
    for section, rows in groupby(measures.rows, lambda row: row.section):
        found = list(rows)
        shown = [name for name in TEACHERS if any(name in row.teachers for row in found)]
        head = "".join(f"{name:>7}" for name in ("model", *shown))
        lines += ["", f"{section:<{_NAME}}{'n':>{_COUNT}}{head}".rstrip()]
        lines += [line for row in found for line in _lines(row, shown)]
    notes = [f"- {note}" for note in measures.notes]
    return "\n".join([*lines, "", *notes]).strip() + "\n"


def _lines(row: MeasureRow, shown: list[str]) -> list[str]:
    """One line, or two if the name is long."""
    teachers = "".join(f"{_share(row.teachers.get(name)):>7}" for name in shown)
    figures = f"{row.count:>{_COUNT}}{_share(row.value):>7}{teachers}{_wanted(row)}"
    if len(row.name) < _NAME:
        return [f"{row.name:<{_NAME}}{figures}"]
    return [row.name, " " * _NAME + figures]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _wanted(row: MeasureRow) -> str:
    if row.least is not None:
        return f"  >={row.least:.2f}" + ("" if row.value >= row.least else " no")
    if row.most is not None:
        return f"  <={row.most:.2f}" + ("" if row.value <= row.most else " no")
    return ""
