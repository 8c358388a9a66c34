"""What pyproject.toml requires, what the lock pins, and what the metadata of installed distributions says."""

import importlib.metadata
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "constraints.txt"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements_of(*extras: str) -> list[Requirement]:
    """Return the project's own requirements and those of `extras`, those for other platforms left out."""
    listed = list(PROJECT["dependencies"])
    for extra in extras:
        listed += PROJECT["optional-dependencies"][extra]
    required = [Requirement(line) for line in listed]
    return [requirement for requirement in required if _applies(requirement)]


def locked_versions(lines: Iterable[str] | None = None) -> dict[str, Version]:
    """Return the version that the lock pins for each distribution on this platform and Python."""
    versions: dict[str, Version] = {}
    for line in LOCK.read_text().splitlines() if lines is None else lines:
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{line}: a lock pins one version by =="
        if _applies(requirement):
            name = canonicalize_name(requirement.name)
            assert name not in versions, f"{line}: pinned twice for this platform"
            versions[name] = Version(pin.version)
    return versions


def installed_versions() -> dict[str, Version]:
    """Return the version of each installed distribution, without a local part such as `+cpu`."""
    return {
        canonicalize_name(found.name): Version(Version(found.version).public)
        for found in importlib.metadata.distributions()
    }


def installed_with(required: Iterable[Requirement]) -> set[str]:
    """Return the names of all distributions that `required` bring, directly or by way of others.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    reached: set[tuple[str, str]] = set()
    waiting = [(requirement.name, extra) for requirement in required for extra in _extras(requirement)]
    while waiting:
        name, extra = waiting.pop()
        if (canonicalize_name(name), extra) in reached:
            continue
        reached.add((canonicalize_name(name), extra))
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if _applies(requirement, extra):
                waiting += [(requirement.name, x) for x in _extras(requirement)]
    return {name for name, _ in reached}


def _extras(requirement: Requirement) -> set[str]:
    """Return the extras that are asked for, and the empty name, which stands for what needs no extra."""
    return {"", *requirement.extras}


def _applies(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})
