"""One public name has one meaning: no two files of the packages define the same class, function or
constant."""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "root_packages"
]
SHARED = {
    "logger": "each file's own, as is usual with logging",
    "read": "what every layout in datasets/layouts must have",
    "recognises": "what every layout in datasets/layouts must have",
    "train": "the command in cli calls the function of the same name",
}
"""Names that several files may define, and why."""


def public_names(source: str) -> Iterator[str]:
    """Names of the classes, functions, constants and aliases at the top of a module, but for private ones."""
    for node in ast.parse(source).body:
        targets: list[str] = []
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            targets = [node.name]
        elif isinstance(node, ast.Assign):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            targets = [node.target.id]
        yield from (name for name in targets if not name.startswith("_"))


def names_in_several_files(root: Path, packages: list[str]) -> dict[str, list[str]]:
    files: dict[str, list[str]] = defaultdict(list)
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            for name in set(public_names(path.read_text())):
                files[name].append(str(path.relative_to(root)))
    return {name: found for name, found in files.items() if len(found) > 1}


def test_a_name_has_one_meaning() -> None:
    assert names_in_several_files(ROOT, PACKAGES).keys() == SHARED.keys()


def test_a_name_has_one_meaning_fails(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.py").write_text("class Batch: ...\n_hidden = 1\n")
    (tmp_path / "one" / "b.py").write_text("Batch = list[int]\n_hidden = 2\n")
    assert names_in_several_files(tmp_path, ["one"]) == {"Batch": ["one/a.py", "one/b.py"]}
