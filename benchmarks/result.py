"""The result of a benchmark: measured entries, ratios with limits, and checks of equal work, as JSON.

Ratios are those of minima. A ratio that misses its limit makes the run fail. A check that does not hold ends
the benchmark, because times of different work cannot be compared.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .measure import Measured

RESULTS_FOLDER = Path(__file__).parent / "results"


class CheckError(AssertionError):
    """The sides of a comparison did different work; the message says which side and by how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One side compared with another, or with the best of several."""

    what: str
    against: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether all given limits hold; NaN meets none."""
        is_low_enough = self.at_most is None or self.value <= self.at_most
        is_high_enough = self.at_least is None or self.value >= self.at_least
        return is_low_enough and is_high_enough

    @property
    def limit(self) -> str:
        """The limits as text, for example ≤ 0.85; empty if there is none."""
        limits = (("≤", self.at_most), ("≥", self.at_least))
        return " and ".join(f"{sign} {number:.2f}" for sign, number in limits if number is not None)


@dataclass(slots=True, kw_only=True)
class Result:
    """The result of one benchmark, which fills it as it runs."""

    name: str
    parameters: dict[str, Any]
    entries: dict[str, Measured] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    checks: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    """Numbers that are counted or derived rather than timed."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """Details for reports; no limit applies to them."""

    @property
    def is_met(self) -> bool:
        """Whether all limits hold."""
        return all(ratio.is_met for ratio in self.ratios)

    def compare(
        self,
        what: str,
        against: str | Sequence[str],
        *,
        at_most: float | None = None,
        title: str = "",
        other: str = "",
    ) -> None:
        """Add the ratio of the minima of two entries.

        Args:
            what: name of an entry.
            against: name of the other; of several names, the fastest is taken.
            at_most: limit of the ratio.
            title: shown in place of `what`.
            other: shown in place of `against`, with the name of the fastest if there are several.
        """
        names = [against] if isinstance(against, str) else list(against)
        best = min(names, key=lambda name: self.entries[name].min)
        value = self.entries[what].min / self.entries[best].min
        shown = f"{other} ({best})" if other and len(names) > 1 else other or best
        self.ratios.append(Ratio(what=title or what, against=shown, value=value, at_most=at_most))

    def check(self, name: str, value: float, *, at_most: float) -> None:
        """Record that `value` is within its limit.

        Raises:
            CheckError: it is not.
        """
        self.checks[name] = {"value": float(value), "at_most": at_most}
        if not value <= at_most:
            raise CheckError(
                f"{self.name}: {name} is {value:.3g}, more than {at_most:g}; the sides do different work"
            )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {
            "name": self.name,
            "parameters": self.parameters,
            "entries": {
                name: {"unit": x.unit, "min": x.min, "median": x.median, "raw": list(x.raw)}
                for name, x in self.entries.items()
            },
            "ratios": [
                {"what": x.what, "against": x.against, "value": x.value, "limit": x.limit, "is_met": x.is_met}
                for x in self.ratios
            ],
            "checks": self.checks,
            "counts": self.counts,
            **({"records": self.records} if self.records else {}),
        }

    def write(self, about: dict[str, Any], folder: Path = RESULTS_FOLDER) -> Path:
        """Write `NAME.json`, with what `about` says of the machine; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path, part = folder / f"{self.name}.json", folder / f"{self.name}.json.tmp"
        part.write_text(json.dumps({**self.to_dict(), **about}, indent=1) + "\n")
        part.replace(path)
        return path
