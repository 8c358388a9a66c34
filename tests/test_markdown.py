"""Documents: prose of at most 100 columns, a short README, and paths and names that are in the code."""

import ast
import importlib
import re
import tomllib
from functools import cache
from itertools import takewhile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_COLUMNS = 100
MAX_README_CHARACTERS = 9_000
ITEM = re.compile(r"\s*(?:[-*+] |\d+\. |> )?")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "examples" / "portable" / "README.md",
]
DESCRIPTIVE = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it names what was there once
NAMING = [page for page in DESCRIPTIVE if page.name != "api.md"]  # its `media.width` is a field of an answer
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
FOLDERS = (*PACKAGES, ".ci", "benchmarks", "deploy", "docs", "examples", "experiments", "tests")
PATH = re.compile(rf"`((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]+)`")
DEFINED_IN = re.compile(r"`([\w./]+\.py)` \(((?:`[\w.]+`(?:, )?)+)\)")
"""A file and what it defines, as prose writes it: `media/spec.py` (`ClipSpec`)."""
DOTTED = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`")
"""A name with its package: `runtime.Zorro.open`."""


def prose(text: str) -> dict[int, str]:
    """Lines by their numbers, without code blocks, tables, headings and comments."""
    lines, is_code = {}, False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "#", "<!--")):
            lines[number] = line
    return lines


def wide_lines(text: str) -> list[int]:
    """Numbers of lines of prose that are too wide; a single word, as a link is, cannot be broken."""
    return [
        number
        for number, line in prose(text).items()
        if len(line) > MAX_COLUMNS and len(ITEM.sub("", line, count=1).split()) > 1
    ]


@cache
def definitions(path: Path) -> frozenset[str]:
    """Names of classes, functions, constants and attributes that a Python file defines, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {x.id for target in node.targets for x in ast.walk(target) if isinstance(x, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return frozenset(names)


def unknown_paths(text: str) -> list[str]:
    return [path for path in PATH.findall(text) if not (ROOT / path).exists()]


def unknown_names(text: str) -> list[str]:
    """Names that the file does not define, with which they are written, and dotted names that cannot be
    imported."""
    unknown = [
        f"{path}: {name}"
        for path, names in DEFINED_IN.findall(" ".join(text.split()))
        for name in re.findall(r"[\w.]+", names)
        if not (ROOT / path).exists() or not set(name.split(".")) <= definitions(ROOT / path)
    ]
    return unknown + [name for name in DOTTED.findall(text) if not _is_importable(name)]


def _is_importable(name: str) -> bool:
    """Whether modules, then attributes, lead to `name`; a file's name, such as `models.md`, is not meant."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                found = importlib.import_module(".".join(parts[:i]))
            except ModuleNotFoundError:
                return False
        else:
            found = getattr(found, part)
    return True


def glossary(text: str) -> list[tuple[str, str]]:
    """Identifiers and their files, from the rows of the glossary."""
    _, _, part = text.partition("## Glossary")
    rows = takewhile(lambda line: not line.startswith("## "), part.splitlines())
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in rows if line.startswith("|")]
    return [
        (name, file)
        for row in cells
        for file in re.findall(r"`([\w/]+\.py)`", row[-1])
        for name in re.findall(r"`(\w+)`", row[-2])
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_narrow(page: Path) -> None:
    assert wide_lines(page.read_text()) == []


def test_prose_is_narrow_fails() -> None:
    word, wide = "w" * 101, "two words " * 11
    page = f"# {wide}\n| {wide} |\n```\n{wide}\n```\n- {word}\n\n{wide}\n- {wide}\n"
    assert wide_lines(page) == [8, 9]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text()) < MAX_README_CHARACTERS


@pytest.mark.parametrize("page", DESCRIPTIVE, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    assert unknown_paths(page.read_text()) == []


def test_paths_exist_fails() -> None:
    assert unknown_paths("`media/spec.py`, `media/lost.py`, `runs/x.py`, `docs/adr`") == ["media/lost.py"]


@pytest.mark.parametrize("page", NAMING, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_are_defined(page: Path) -> None:
    assert unknown_names(page.read_text()) == []


def test_names_are_defined_fails() -> None:
    text = "`media/spec.py` (`ClipSpec`, `Lost`), `media/lost.py` (`Span`),\n`media.ClipSpec`, `media.Lost.x`"
    assert unknown_names(text) == ["media/spec.py: Lost", "media/lost.py: Span", "media.Lost.x"]


def test_glossary_is_defined() -> None:
    entries = glossary((ROOT / "docs" / "architecture.md").read_text())
    assert len(entries) > 20
    assert [entry for entry in entries if entry[0] not in definitions(ROOT / entry[1])] == []
