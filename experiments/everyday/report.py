"""The measures as a table of 80 columns, and as the scores that a bundle holds."""

from itertools import groupby
from typing import Any

from .measure import MeasureRow, Measures

TEACHERS = ("mn04", "YAMNet", "joined", "Lite0")
_NAME, _COUNT = 34, 6
SCORES = {
    "esc10": ("ESC-10, of", "top1"),
    "instruments": ("instruments, of", "top1"),
    "sights": ("sights, of", "top1"),
    "caltech_imagenet": ("Caltech, ImageNet's, of", "top1"),
    "pairs_fused": ("clean: fused", "top1"),
    "pairs_audio": ("clean: audio alone", "top1"),
    "pairs_video": ("clean: video alone", "top1"),
    "noisy_sound_audio": ("noisy sound: audio alone", "top1"),
    "noisy_sound_fused": ("noisy sound: fused", "top1"),
    "noise_for_picture_video": ("noise for picture: video alone", "top1"),
    "noise_for_picture_fused": ("noise for picture: fused", "top1"),
    "audio_calibration": ("audio, clip and label", "calibration_error"),
    "video_calibration": ("video, clip and label", "calibration_error"),
    "fused_calibration": ("fused, clip and label", "calibration_error"),
    "sound_finds_picture": ("sound finds picture", "precision_at_10"),
    "picture_finds_sound": ("picture finds sound", "precision_at_10"),
}
"""Name of a table in `bundle.json`: how the row of its measure begins, and what that measures."""


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


def to_scores(measures: Measures) -> dict[str, dict[str, Any]]:
    """The tables of `bundle.json` under `metrics`, of those measures that there are."""
    found = {}
    for name, (begins, score) in SCORES.items():
        for row in measures.rows:
            if row.name.startswith(begins):
                found[name] = {"clips": row.count, score: row.value} | _by_label(row)
    return found


def _by_label(row: MeasureRow) -> dict[str, Any]:
    return {"labels": row.details["labels"]} if "labels" in row.details else {}


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
