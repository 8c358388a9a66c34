"""What a benchmark found: measured entries, ratios with their limits, checks that the sides did the same work; as JSON.

A ratio is of minima. One that misses its limit makes the run fail; a check that does not hold stops the
benchmark, since times of unequal work say nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .measure import Measured

RESULTS = Path(__file__).parent / "results"


class CheckError(AssertionError):
    """The sides of a comparison did not do the same work; the message says which and by how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One side against another, or against the best of several."""

    what: str
    against: str
    value: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether every limit that is stated holds; NaN meets none."""
        is_low_enough = self.at_most is None or self.value <= self.at_most
        is_high_enough = self.at_least is None or self.value >= self.at_least
        return is_low_enough and is_high_enough

    @property
    def limit(self) -> str:
        """As people write it; empty if there is none."""
        limits = (("≤", self.at_most), ("≥", self.at_least))
        return " and ".join(f"{sign} {number:.2f}" for sign, number in limits if number is not None)


@dataclass(slots=True, kw_only=True)
class Result:
    """One benchmark's findings, filled as it runs."""

    name: str
    parameters: dict[str, Any]
    entries: dict[str, Measured] = field(default_factory=dict)
    ratios: list[Ratio] = field(default_factory=list)
    checks: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    """What was counted, not measured."""
    records: list[dict[str, Any]] = field(default_factory=list)
    """All that was seen, for reports; no ratio hides in it."""

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
        """Add the ratio of the minima of two entries; of several, the fastest counts.

        Args:
            what: name of an entry.
            against: name, or names, of others.
            at_most: limit.
            title: said instead of `what`.
            other: said instead of `against`; which of several it was is added.
        """
        names = [against] if isinstance(against, str) else list(against)
        best = min(names, key=lambda name: self.entries[name].min)
        value = self.entries[what].min / self.entries[best].min
        said = f"{other} ({best})" if other and len(names) > 1 else other or best
        self.ratios.append(Ratio(what=title or what, against=said, value=value, at_most=at_most))

    def check(self, name: str, value: float, *, at_most: float) -> None:
        """Note that `value` is within its limit.

        Raises:
            CheckError: it is not.
        """
        self.checks[name] = {"value": float(value), "at_most": at_most}
        if not value <= at_most:
            raise CheckError(
                f"{self.name}: {name} is {value:.3g}, more than {at_most:g}; the sides do not do the same"
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
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

    def write(self, about: dict[str, Any], folder: Path = RESULTS) -> Path:
        """Store as `NAME.json`, with what `about` says of the machine."""
        folder.mkdir(parents=True, exist_ok=True)
        path, part = folder / f"{self.name}.json", folder / f"{self.name}.json.tmp"
        part.write_text(json.dumps({**self.to_dict(), **about}, indent=1) + "\n")
        part.replace(path)
        return path
