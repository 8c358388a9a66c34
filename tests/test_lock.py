"""The lock: it pins everything that pyproject.toml requires, and the tests run against the versions that it
pins."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.distributions import (
    LOCK,
    PROJECT,
    ROOT,
    installed_versions,
    installed_with,
    locked_versions,
    requirements_of,
)

TESTED = ("cpu", "train", "export", "dev")
EXTRAS = sorted(PROJECT["optional-dependencies"])
# Installed, and not in the lock: by venv, by make, and by a line of the Makefile that names its version.
ADDED = {"pip": None, "zorro-av": None, "zorro-pytorch": "0.1.1"}


def unmet(required: list[Requirement], versions: dict[str, Version]) -> list[str]:
    """Requirements that `versions` leave out or do not satisfy."""
    return [
        str(requirement)
        for requirement in required
        if (version := versions.get(canonicalize_name(requirement.name))) is None
        or not requirement.specifier.contains(version, prereleases=True)
    ]


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_requirement_is_locked_at_a_version_that_satisfies_it(extra: str) -> None:
    assert unmet(requirements_of(extra), locked_versions()) == []


def test_every_requirement_is_locked_fails() -> None:
    versions = locked_versions(["av==13.1.0", "typer==0.15.0"])
    required = [Requirement(line) for line in ("av>=14", "typer>=0.15", "rich>=13")]
    assert unmet(required, versions) == ["av>=14", "rich>=13"]


def test_the_tests_run_against_the_lock() -> None:
    installed, locked = installed_versions(), locked_versions()
    others = {
        name: (str(version), str(locked.get(name)))
        for name, version in installed.items()
        if name not in ADDED and version != locked.get(name)
    }
    assert not others, f"(installed, locked) {others}: run `make clean` and `make test`"
    assert installed_with(requirements_of(*TESTED)) <= set(locked)
    assert ADDED["zorro-pytorch"] == str(installed["zorro-pytorch"])


def test_the_lock_holds_names_and_versions_only() -> None:
    """No address of an index, and nothing of one build of torch: not its local version, not its CUDA
    packages."""
    lines = LOCK.read_text().splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z_]+ .*)?", line), line
    assert "torch==2.13.0" in lines
    assert not [line for line in lines if re.match(r"nvidia-|cuda-|triton==", line)]


def test_everything_is_installed_by_the_lock() -> None:
    """Each `pip install` that resolves names: those of the Makefile but for peers and the resolver, and the
    image's."""
    makefile = (ROOT / "Makefile").read_text()
    installs = [line for line in makefile.splitlines() if "pip install" in line and "--no-deps" not in line]
    free = [line for line in installs if "--constraint $(LOCK)" not in line]
    assert len(installs) == 4
    assert [word for line in free for word in re.findall(r"PACKAGE_|uv>=", line)] == ["uv>=", "PACKAGE_"]
    image = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"pip install --quiet (\S+)", image) == ["--constraint", "--no-deps"]
    assert "--constraint /tmp/constraints.txt" in image


def test_the_image_is_built_from_every_package_and_the_lock() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    text = (ROOT / "pyproject.toml").read_text()
    packages = re.findall(r'"([a-z]+)[a-z.]*"', re.search(r"packages = \[(.+?)\]", text, re.DOTALL)[1])  # type: ignore[index]
    assert set(packages) | {"constraints.txt", "pyproject.toml"} <= kept
