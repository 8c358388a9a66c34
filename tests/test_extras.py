"""Each extra is enough for the packages and commands that it is for: nothing else can be imported here."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributions import PROJECT, ROOT
from tests.isolated_environment import ZORRO, IsolatedEnvironment
from tests.parity_tables import assert_is_parity_table
from tests.training.made_collections import label_folders
from tests.training.small_runs import CLIP_SPEC, MODEL, NUMBERS

pytestmark = pytest.mark.slow
Environment = Callable[..., IsolatedEnvironment]

PACKAGES = {
    "cpu": ("media", "runtime", "service", "cli"),
    "cpu,otel": ("media", "runtime", "service", "cli"),
    "cpu,train": ("media", "runtime", "service", "cli", "models", "datasets", "evaluation", "training"),
    "cpu,train,shards": ("datasets", "training", "cli"),
    "cpu,export": ("media", "runtime", "service", "cli", "models", "export"),
}
"""Packages of which every module can be imported with these extras."""
OF_OTHERS = {"cpu,train": {"datasets.shard_writer"}}
"""Modules of these packages that need an extra more."""
FURTHER = {
    "cpu,train": ("verification.scoring",),
    "cpu,export": ("verification.proof", "verification.export_clips"),
}
"""What else the commands of these extras import."""

IMPORT_ALL = """
import importlib, json
failed = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
print(json.dumps(failed))
"""
TRACE = """
from fastapi import FastAPI
from service.tracing import otlp_exporter, trace_requests, tracer_provider
provider = tracer_provider(otlp_exporter("http://127.0.0.1:9/v1/traces"))
trace_requests(FastAPI(), provider)
provider.shutdown()
"""
RECIPE = NUMBERS + MODEL + CLIP_SPEC
EXPORT_STAGES = ("reading clips", "graphs", "fp32", "fp16", "self-test")
PROGRESS_BAR = re.compile(rf"({'|'.join(EXPORT_STAGES)}) +━+ +(\d+)/(\d+) [-0-9:]+ *")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Environments by their extras; each is made once."""
    made: dict[str, IsolatedEnvironment] = {}

    def with_extras(extras: str) -> IsolatedEnvironment:
        if extras not in made:
            folder = tmp_path_factory.mktemp(extras.replace(",", "-"))
            made[extras] = IsolatedEnvironment(folder, *extras.split(","))
        return made[extras]

    return with_extras


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films or more of each of two labels, in each split."""
    return label_folders(tmp_path_factory.mktemp("films"), films=True, names=("a", "b"))


def modules_of(package: str) -> list[str]:
    """Names of the modules of a package and of those inside it."""
    paths = sorted((ROOT / package).rglob("*.py"))
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in paths]
    return [".".join(x[:-1] if x[-1] == "__init__" else x) for x in parts]


@pytest.mark.parametrize("extras", PACKAGES)
def test_every_module_can_be_imported(extras: str, environment: Environment, tmp_path: Path) -> None:
    modules = {name for package in PACKAGES[extras] for name in modules_of(package)}
    modules |= set(FURTHER.get(extras, ()))
    modules -= OF_OTHERS.get(extras, set())
    failed = json.loads(environment(extras).python(IMPORT_ALL, *sorted(modules), folder=tmp_path))
    assert failed == {}


def test_what_is_not_declared_cannot_be_imported(tmp_path: Path) -> None:
    """An import that pyproject.toml does not cover fails, as here that of a dependency that is left out."""
    (site := tmp_path / "site").mkdir()
    python = IsolatedEnvironment(site, "cpu", without=("av",)).python
    failed = json.loads(python(IMPORT_ALL, "media", "numpy", "onnx", "torch", "pytest", folder=tmp_path))
    assert failed == {name: f"No module named '{name}'" for name in ("onnx", "torch", "pytest")} | {
        "media": "No module named 'av'"
    }


def test_cpu_classifies(environment: Environment, song: Path, tmp_path: Path) -> None:
    zorro = environment("cpu").zorro
    assert PROJECT["version"] in zorro("--version", folder=tmp_path)
    answer = json.loads(zorro("classify", song, "--json", folder=tmp_path))
    assert answer["whole"].keys() == {"audio"}


def test_otel_traces(environment: Environment, tmp_path: Path) -> None:
    environment("cpu,otel").python(TRACE, folder=tmp_path)
    error = environment("cpu").python(TRACE, folder=tmp_path, status=1)
    assert "ModuleNotFoundError: No module named 'opentelemetry.exporter'" in error


def test_train_trains(environment: Environment, films: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    run = tmp_path / "run"
    environment("cpu,train").zorro(
        "train", tmp_path / "recipe.toml", "--data", films, "--run", run, folder=tmp_path
    )
    assert (run / "checkpoint" / "checkpoint.json").exists()


def test_train_evaluates_a_checkpoint(
    environment: Environment, checkpoint: Path, films: Path, tmp_path: Path
) -> None:
    zorro = environment("cpu,train").zorro
    tables = json.loads(zorro("evaluate", checkpoint, "--data", films, "--json", folder=tmp_path))
    assert {tables[stream]["clips"] for stream in ("audio", "video", "fused")} == {4}


def test_shards_writes_shards(environment: Environment, films: Path, tmp_path: Path) -> None:
    arguments = ("data", "shard", films, tmp_path / "shards")
    environment("cpu,train,shards").zorro(*arguments, folder=tmp_path)
    assert list((tmp_path / "shards").rglob("*.tar"))
    error = environment("cpu,train").zorro(*arguments, folder=tmp_path, status=1)
    assert "pip install -c constraints.txt --editable '.[cpu,train,shards]'" in error


def test_export_exports(
    environment: Environment, checkpoint: Path, bundle: Path, films: Path, tmp_path: Path
) -> None:
    """The real command, warnings of torch and all: its files, its progress and its table."""
    out = tmp_path / "small" / "1"
    options = ("--data", films, "--variant", "fp32", "--variant", "fp16")
    export = environment("cpu,export")
    done = export.run(ZORRO, "export", checkpoint, out, *options, folder=tmp_path, columns=80)
    assert done.returncode == 0, done.stderr
    parity = json.loads((out / "bundle.json").read_text())["variants"]["fp32"]["parity"]
    assert {report["clips"] for report in parity["real"]} == {4}

    bars = [PROGRESS_BAR.fullmatch(line) for line in done.stderr.splitlines()]
    assert all(bars), done.stderr
    assert [(bar[1], bar[2] == bar[3]) for bar in bars if bar] == [(stage, True) for stage in EXPORT_STAGES]
    assert_is_parity_table(done.stdout, ("fp16", "fp32"))

    files = {path.name: path.read_bytes() for path in (bundle / "fp32").iterdir()}
    exported_anew = {path.name: path.read_bytes() for path in (out / "fp32").iterdir()}
    assert exported_anew == files, "two exports of the same weights differ"
