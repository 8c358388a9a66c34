"""What the layout promises: serving without torch, arrows that point one way, functions of few parameters,
names that are ours, settings that fit."""

import ast
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = [name for name in PROJECT["tool"]["setuptools"]["packages"] if "." not in name]
SERVING = ("media", "runtime", "service")
MAX_PARAMETERS = 7

LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"

IMPORT_ALL = """
import importlib, pkgutil, sys

sys.modules["torch"] = None  # from here on, `import torch` raises
for name in {names}:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        importlib.import_module(module.name)
"""


def run_python(code: str, *, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages, to spoil."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.slow
def test_serving_imports_without_torch() -> None:
    done = run_python(IMPORT_ALL.format(names=SERVING) + "import cli.main")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_serving_imports_without_torch_fails(tree: Path) -> None:
    (tree / "media" / "spoiled.py").write_text("import torch\n")
    done = run_python(IMPORT_ALL.format(names=SERVING), folder=tree)
    assert done.returncode == 1
    assert "import of torch halted" in done.stderr


def test_arrows_point_one_way() -> None:
    done = run_python(LINT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("media", "import runtime"),
        ("runtime", "import models"),
        ("runtime", "import torch"),
        ("service", "import export"),
        ("service", "import models"),
        ("models", "import media"),
        ("training", "import runtime"),
        ("export", "import cli"),
    ],
)
def test_arrows_point_one_way_fails(tree: Path, package: str, line: str) -> None:
    (tree / package / "spoiled.py").write_text(line + "\n")
    done = run_python(LINT, folder=tree)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def test_every_package_is_listed() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(PACKAGES) == set(PROJECT["tool"]["importlinter"]["root_packages"])
    assert set(PROJECT["tool"]["coverage"]["run"]["source"]) == set(SERVING)
    assert set(SERVING) <= set(PROJECT["tool"]["mypy"]["packages"])


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> list[str]:
    """Names of the parameters of a function, without the object or class that a method is called on."""
    listed = function.args
    every = [*listed.posonlyargs, *listed.args, listed.vararg, *listed.kwonlyargs, listed.kwarg]
    return [x.arg for x in every if x is not None and x.arg not in ("self", "cls")]


def crowded_functions(root: Path) -> list[str]:
    """Functions with more than `MAX_PARAMETERS`; those of `cli` have one for each option of a command."""
    return [
        f"{path.relative_to(root)}:{node.lineno}"
        for package in PACKAGES
        if package != "cli"
        for path in sorted((root / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if len(parameters(node)) > MAX_PARAMETERS
    ]


def test_no_function_has_more_than_seven_parameters() -> None:
    found = crowded_functions(ROOT)
    assert found == [], "put options that belong together into a frozen dataclass"


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        ("def f(a, b, c, d, e, f, g): ...", False),
        ("def f(a, b, c, d, e, f, g, h): ...", True),
        ("def f(a, /, b, c, d, *, e, f, g, h): ...", True),
        ("async def f(a, b, c, d, e, f, *g, **h): ...", True),
        ("class A:\n    def f(self, a, b, c, d, e, f, g): ...", False),
        ("class A:\n    @classmethod\n    def f(cls, a, b, c, d, e, f, g, h): ...", True),
        ("def f():\n    def g(a, b, c, d, e, f, g, h): ...", True),
        ("f = lambda a, b, c, d, e, f, g, h: None", True),
    ],
)
def test_no_function_has_more_than_seven_parameters_fails(
    line: str, is_refused: bool, tmp_path: Path
) -> None:
    for package in ("cli", "media"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "spoiled.py").write_text(line + "\n")
    assert [x.partition(":")[0] for x in crowded_functions(tmp_path)] == ["media/spoiled.py"] * is_refused


def foreign_owners(names: list[str]) -> dict[str, list[str]]:
    """Distributions other than ours that install a package with one of these names."""
    owners = importlib.metadata.packages_distributions()
    ours = PROJECT["project"]["name"]
    return {name: found for name in names if (found := [x for x in owners.get(name, []) if x != ours])}


def test_names_are_ours() -> None:
    assert foreign_owners(PACKAGES) == {}
    origins = {name: getattr(importlib.util.find_spec(name), "origin", None) for name in PACKAGES}
    assert origins == {name: str(ROOT / name / "__init__.py") for name in PACKAGES}


def test_names_are_ours_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "intruder-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: intruder\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("media\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert foreign_owners(PACKAGES) == {"media": ["intruder"]}


def requirements(extra: str | None = None) -> set[str]:
    listed = (
        PROJECT["project"]["optional-dependencies"][extra] if extra else PROJECT["project"]["dependencies"]
    )
    return {match[0] for line in listed if (match := re.match(r"[A-Za-z0-9_-]+", line))}


def test_serving_requirements_are_bare() -> None:
    assert not requirements() & {"torch", "onnx", "onnxruntime", "onnxruntime-gpu"}
    assert requirements("cpu") == {"onnxruntime"}
    assert requirements("gpu") == {"onnxruntime-gpu"}
    for extra in ("train", "export"):
        assert "torch==2.13.0" in PROJECT["project"]["optional-dependencies"][extra]


def test_every_third_party_import_is_required() -> None:
    """What a package imports at its top is in the extras that it is installed with."""
    extras = {
        "models": ["train"],
        "datasets": ["train", "shards"],
        "evaluation": ["train"],
        "training": ["train", "shards", "teachers"],
        "export": ["export", "cpu"],
    }
    for package in PACKAGES:
        allowed = requirements().union(*(requirements(extra) for extra in extras.get(package, ["cpu"])))
        unlisted = {name for name in third_party_imports(ROOT / package) if name not in allowed}
        assert not unlisted, f"{package} imports {unlisted}: add them to pyproject.toml"


# Names under which distributions are imported, where the two differ; starlette comes with fastapi.
DISTRIBUTION = {
    "ai_edge_litert": "ai-edge-litert",
    "google": "protobuf", "opentelemetry": "opentelemetry-api", "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "python_multipart": "python-multipart", "sklearn": "scikit-learn", "starlette": "fastapi",
}  # fmt: skip


def third_party_imports(folder: Path) -> set[str]:
    names = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return {DISTRIBUTION.get(name, name) for name in names - set(sys.stdlib_module_names) - set(PACKAGES)}


def test_every_asset_is_packaged() -> None:
    patterns: dict[str, list[str]] = PROJECT["tool"]["setuptools"]["package-data"]
    for package in PACKAGES:
        files = [p.relative_to(ROOT / package) for p in (ROOT / package).rglob("*") if p.is_file()]
        assets = [str(p) for p in files if p.suffix not in (".py", ".pyc") and "__pycache__" not in p.parts]
        missing = [x for x in assets if not any(fnmatch(x, pattern) for pattern in patterns.get(package, []))]
        assert not missing, f"add to [tool.setuptools.package-data]: {package}/{missing}"


def make_targets() -> dict[str, Any]:
    """Targets of the Makefile with the comment above each; None without one."""
    text = (ROOT / "Makefile").read_text()
    helps = dict(re.findall(r"^# ([a-z-]+): (.+)\n\1:", text, flags=re.MULTILINE))
    return {name: helps.get(name) for name in re.findall(r"^([a-z][a-z-]*):", text, flags=re.MULTILINE)}


def test_make_targets_are_explained() -> None:
    targets = make_targets()
    assert [name for name, line in targets.items() if line is None] == []
    assert next(iter(targets)) == "help"
    assert set(targets) >= {"serve", "test", "lint", "train", "export", "bench"}
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(targets)


def test_image_is_without_torch_and_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM \S+ AS cpu$", text, flags=re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", text, flags=re.MULTILINE)
    assert "torch" not in re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    assert "HEALTHCHECK" in text
