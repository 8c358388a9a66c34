"""Python processes that can import the checkout and what chosen extras install, and nothing else."""

import functools
import importlib.metadata
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Set as AbstractSet
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.distributions import PROJECT, ROOT, installed_with, requirements_of

OUTSIDE = {"/", "..", "__pycache__"}
"""First parts of paths that are not below site-packages, such as those of scripts, and what is made again."""
ZORRO = "from cli.main import app; app()"
START = "import sys; sys.path[:0] = {paths}; sys.argv = ['zorro', *sys.argv[1:]]\n"


class IsolatedEnvironment:
    """A folder of links to the installed distributions of `extras`, which takes the place of
    site-packages."""

    def __init__(self, folder: Path, *extras: str, without: tuple[str, ...] = ()) -> None:
        self._paths = [str(ROOT), str(folder)]
        allowed = {canonicalize_name(name) for name in installed_with(requirements_of(*extras))}
        allowed.add(canonicalize_name(PROJECT["name"]))
        site = Path(str(importlib.metadata.distribution("numpy").locate_file("")))
        for entry in _entries_of(allowed - {canonicalize_name(name) for name in without}):
            (folder / entry).parent.mkdir(parents=True, exist_ok=True)
            (folder / entry).symlink_to(site / entry)

    def python(self, code: str, *arguments: object, folder: Path, status: int = 0) -> str:
        """Run code in `folder`.

        Return its standard output, or standard error if it is to fail with `status`.
        """
        done = self.run(code, *arguments, folder=folder)
        assert done.returncode == status, done.stderr
        return done.stderr if status else done.stdout

    def run(
        self, code: str, *arguments: object, folder: Path, columns: int = 500
    ) -> "subprocess.CompletedProcess[str]":
        """Run code in `folder`, with a terminal of that many columns."""
        # -I: no PYTHONPATH and no working directory on sys.path; -S: no site-packages.
        command = [sys.executable, "-I", "-S", "-c", START.format(paths=self._paths) + code]
        return subprocess.run(
            [*command, *map(str, arguments)],
            cwd=folder,
            env=os.environ | {"COLUMNS": str(columns)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    def zorro(self, *arguments: object, folder: Path, status: int = 0) -> str:
        """Run `zorro` with these arguments."""
        return self.python(ZORRO, *arguments, folder=folder, status=status)


def _entries_of(allowed: AbstractSet[str]) -> set[str]:
    """Files and folders that belong to `allowed` alone: folders as a whole where possible."""
    owners: dict[str, set[str]] = defaultdict(set)
    for name, file in _installed_files():
        for path in _with_parents(file):
            owners[path].add(name)
    return {
        next(path for path in _with_parents(file) if owners[path] <= allowed)
        for name, file in _installed_files()
        if name in allowed
    }


def _with_parents(file: str) -> list[str]:
    """The folders that lead to a file, outermost first, and the file."""
    parts = file.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


@functools.cache
def _installed_files() -> list[tuple[str, str]]:
    """The name of each installed distribution with each of its files, relative to site-packages."""
    named = [
        (canonicalize_name(found.name), found.files or ()) for found in importlib.metadata.distributions()
    ]
    return [(name, str(file)) for name, files in named for file in files if file.parts[0] not in OUTSIDE]
