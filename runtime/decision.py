"""What a bundle makes of probabilities: which labels a stream may answer with, and from where it is sure.

The table `decision` of `bundle.json`. A bundle without it answers with all of its labels, however improbable.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from media import Modality

from .scores import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a bundle's probabilities become labels, and when none is the answer."""

    known_labels_only: bool = False
    """Whether the audio and the video stream answer only with labels whose `modalities` name them. The fused
    stream answers with all labels."""
    threshold: Mapping[Modality, float] = field(default_factory=dict)
    """Probability from which the model is sure of a label, by stream; 0 for one that is not named."""

    def threshold_of(self, modality: Modality) -> float:
        """Probability from which this stream is sure of a label."""
        return self.threshold.get(modality, 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The table as `bundle.json` and the API hold it."""
        return asdict(self) | {"threshold": {str(name): value for name, value in self.threshold.items()}}


def parse_decision(stored: object, scores: Scores) -> Decision:
    """The table as a manifest or a checkpoint holds it, checked.

    Args:
        stored: `{"known_labels_only": bool, "threshold": {stream: probability}}`, either of which may be
            left out.
        scores: how the scores come from logits.

    Raises:
        ValueError: it is no such table, or the scores share one probability among all labels. Then a
            threshold would depend on how many labels there are, and scores of some labels would not sum
            to 1.
    """
    table = _table("decision", stored, ("known_labels_only", "threshold"))
    if scores is not Scores.SIGMOID:
        raise ValueError(f"decision is for scores={Scores.SIGMOID}, got scores={scores}; leave it out")
    known_labels_only = table.get("known_labels_only", False)
    if not isinstance(known_labels_only, bool):
        raise ValueError(f"decision.known_labels_only={known_labels_only!r}; give true or false")
    threshold = _table("decision.threshold", table.get("threshold", {}), tuple(Modality))
    for name, value in threshold.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not (is_number and 0 <= value <= 1):
            raise ValueError(f"decision.threshold.{name}={value!r}; give a probability from 0 to 1")
    return Decision(
        known_labels_only=known_labels_only,
        threshold={Modality(name): float(value) for name, value in threshold.items()},
    )


def _table(what: str, stored: object, names: tuple[str, ...]) -> dict[str, Any]:
    """The mapping `stored`, which may have these names and no other."""
    if not isinstance(stored, Mapping):
        raise ValueError(f"{what} is {stored!r}; give a table with any of {', '.join(names)}")
    if unknown := sorted(str(name) for name in stored if name not in names):
        raise ValueError(f"{what} has {', '.join(unknown)}; there are {', '.join(names)}")
    return dict(stored)
