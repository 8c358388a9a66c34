"""The model card: a person's prose, with marked places that code fills.

What fills them comes from the scores and the manifest of the bundle.

`<!-- scores -->` becomes a table of all scores, `<!-- labels -->` one of the accuracy of each label, or of
its average precision where several may hold, `<!-- training -->` a sentence on the run. So no number of a
card is typed by hand.
"""

from collections.abc import Mapping
from typing import Any

TABLE_TITLES = {
    "audio": "by sound",
    "video": "by picture",
    "fused": "by both",
    "sounds": "sounds",
    "esc10": "sounds of ESC-10 alone",
    "instruments": "instruments",
    "sights": "sights",
    "caltech_imagenet": "Caltech-101, classes that ImageNet knows",
    "pairs_fused": "pairs, by both",
    "pairs_audio": "the same pairs, by sound alone",
    "pairs_video": "the same pairs, by picture alone",
    "noisy_sound_audio": "pairs with the sound under noise, by sound alone",
    "noisy_sound_fused": "pairs with the sound under noise, by both",
    "noise_for_picture_video": "pairs with noise for a picture, by picture alone",
    "noise_for_picture_fused": "pairs with noise for a picture, by both",
    "audio_calibration": "probability of a label, by sound",
    "video_calibration": "probability of a label, by picture",
    "fused_calibration": "probability of a label, by both",
    "sound_finds_picture": "pictures found by a sound",
    "picture_finds_sound": "sounds found by a picture",
}
"""Tables of `zorro evaluate`, in the order in which a reader wants them."""
LABEL_COLUMNS = ("audio", "video", "fused", "sounds", "sights", "pairs_fused")
SCORE_COLUMNS = {
    "top1": ("top-1", ".1%"),
    "top5": ("top-5", ".1%"),
    "within_groups": ("top-1 within groups", ".1%"),
    "map": ("mAP", ".3f"),
    "calibration_error": ("calibration error", ".3f"),
    "precision_at_10": ("precision at 10", ".2f"),
}
"""Scores of a table, their titles and how they are written; those that no table has are left out."""


def fill_card(template: str, *, metrics: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """The card with its marks filled.

    Raises:
        ValueError: a mark of a table for which there are no scores.
    """
    fillings = {"scores": _scores, "labels": _labels}
    for mark, table in fillings.items():
        comment = f"<!-- {mark} -->"
        if comment in template:
            if not metrics:
                raise ValueError(
                    f"the card has {comment}, but there are no scores; give --metrics, or remove the mark"
                )
            template = template.replace(comment, table(metrics))
    return template.replace("<!-- training -->", _training(manifest))


def _scores(metrics: Mapping[str, Any]) -> str:
    tables = {title: metrics[name] for name, title in TABLE_TITLES.items() if name in metrics}
    columns = [key for key in SCORE_COLUMNS if any(key in table for table in tables.values())]
    head = f"| what | clips | {' | '.join(SCORE_COLUMNS[key][0] for key in columns)} |"
    rows = [
        f"| {title} | {table['clips']} | "
        + " | ".join(format(table[key], SCORE_COLUMNS[key][1]) if key in table else "" for key in columns)
        + " |"
        for title, table in tables.items()
    ]
    return "\n".join([head, "|---|---:|" + "---:|" * len(columns), *rows])


def _labels(metrics: Mapping[str, Any]) -> str:
    columns = {name: metrics[name]["labels"] for name in LABEL_COLUMNS if name in metrics}
    names = sorted({label for column in columns.values() for label in column})
    head = [
        f"| label | {' | '.join(TABLE_TITLES[name] for name in columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    return "\n".join(
        head + [f"| {name} | {' | '.join(_share(c.get(name)) for c in columns.values())} |" for name in names]
    )


def _share(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return ""
    return f"{cell['accuracy'] if 'accuracy' in cell else cell['average_precision']:.0%} of {cell['clips']}"


def _training(manifest: Mapping[str, Any]) -> str:
    training, model = manifest["training"], manifest["model"]
    run = f"{training['num_steps']:,} steps" if "num_steps" in training else "an unknown number of steps"
    return f"{model['num_parameters'] / 1e6:.1f} M parameters, trained for {run}"
