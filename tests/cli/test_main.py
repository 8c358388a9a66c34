"""The command line: tables, JSON, exit statuses, and what it says where torch is missing."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from service.settings import Settings
from tests.deciding_bundle import deciding_bundle
from tests.known_graphs import known_graphs

ROOT = Path(__file__).parents[2]


def _zorro(*arguments: object, status: int = 0, columns: int = 200) -> Result:
    env = {"COLUMNS": str(columns)}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)
    assert result.exit_code == status, (result.output, result.exception)
    return result


def test_classify_prints_a_table_of_windows_and_the_whole(bundle: Path, film: Path) -> None:
    out = _zorro("classify", film, "--bundle", bundle).stdout
    assert "film.mp4" in out
    assert (
        out.count("fused") == 4
    )  # three windows of 0.64 s in 2 s, the tail of 0.08 s is too short for one, and the whole


def test_classify_as_json_honours_its_options(bundle: Path, film: Path) -> None:
    span = ("--start", 0.5, "--end", 1.5, "--stride", 0.32)
    out = _zorro("classify", film, "--bundle", bundle, "-m", "audio", "--top-k", 2, *span, "--json").stdout
    answer = json.loads(out)
    assert [window["start_seconds"] for window in answer["windows"]] == pytest.approx([0.5, 0.82, 1.14])
    assert answer["whole"].keys() == {"audio"}
    assert len(answer["whole"]["audio"]["labels"]) == 2
    none = json.loads(_zorro("classify", film, "--bundle", bundle, "--threshold", 1, "--json").stdout)
    assert none["whole"]["video"]["labels"] == []


def test_embed_prints_a_table_or_json(bundle: Path, song: Path) -> None:
    assert "16" in _zorro("embed", song, "--bundle", bundle).stdout
    answer = json.loads(_zorro("embed", song, "--bundle", bundle, "--space", "features", "--json").stdout)
    assert len(answer["whole"]["audio"]["embedding"]) == 32


def test_verify_says_that_a_bundle_is_whole(bundle: Path) -> None:
    assert "every byte" in _zorro("bundle", "verify", bundle).stdout.replace("\n", " ")
    assert len(json.loads(_zorro("bundle", "verify", bundle, "--json").stdout)["sha256"]) == 64


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--top-k", "0"], 1, "top_k=0"),
        (["-m", "smell"], 1, "smell"),
        (["--threshold", "nan"], 1, "threshold=nan"),
        (["--start", "99"], 1, "past the end"),
        (["--colour", "red"], 2, "No such option"),
    ],
)
def test_options_that_mean_nothing_fail(
    options: list[str], status: int, message: str, bundle: Path, song: Path
) -> None:
    assert message in _zorro("classify", song, "--bundle", bundle, *options, status=status).stderr


def test_a_clip_that_is_none_fails(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("just text\n" * 50)
    assert "no container" in _zorro("classify", tmp_path / "text.mp4", "--bundle", bundle, status=1).stderr
    _zorro("classify", tmp_path / "absent.mp4", "--bundle", bundle, status=1)


def test_verify_fails_where_there_is_no_bundle(tmp_path: Path) -> None:
    assert "error:" in _zorro("bundle", "verify", tmp_path, status=1).stderr


@pytest.mark.slow
def test_serve_lists_every_setting_with_its_meaning() -> None:
    command = [sys.executable, "-m", "cli.main", "serve", "--help"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"COLUMNS": "500"}
    )
    assert done.returncode == 0
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in done.stdout
        assert str(field.description) in done.stdout


def test_serve_refuses_an_option_that_means_nothing() -> None:
    assert "port" in _zorro("serve", "--port", "abc", status=1).stderr
    assert CliRunner().invoke(app, ["serve", "--nonsense", "3"]).exit_code == 2


def test_serve_fails_without_a_model_repository(tmp_path: Path) -> None:
    assert "model repository" in " ".join(_zorro("serve", "--bundles", tmp_path, status=1).stderr.split())


@pytest.mark.slow
def test_export_writes_a_bundle_that_verifies(checkpoint: Path, bundle: Path, tmp_path: Path) -> None:
    with known_graphs(bundle):
        _zorro("export", checkpoint, tmp_path / "made" / "7")
    _zorro("bundle", "verify", tmp_path / "made" / "7")
    assert "exists" in _zorro("export", checkpoint, tmp_path / "made" / "7", status=1).stderr


def test_train_hands_over_and_shows_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}

    def train(recipe: Path, folder: Path, **options: Any) -> Path:
        called.update(options, recipe=recipe, folder=folder)
        options["on_progress"]("training", 1, 2, {"loss": 0.5})
        return folder / "checkpoint"

    monkeypatch.setattr("training.loop.train", train)
    out = _zorro("train", "some.toml", "--data", tmp_path, "--fresh").stdout
    assert str(Path("runs") / "some" / "checkpoint") in out
    assert (called["data_dir"], called["options"].resume) == (tmp_path, False)


def test_evaluate_prints_tables_or_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = {"accuracy": 0.5, "clips": 4}
    tables = {
        "sounds": {"clips": 4, "top1": 0.5, "top5": 1.0, "calibration_error": 0.1, "labels": {"dog": label}}
    }
    monkeypatch.setattr("verification.scoring.score_split", lambda *_, **__: tables)
    assert "50% of 4" in _zorro("evaluate", tmp_path, "--data", tmp_path).stdout
    assert json.loads(_zorro("evaluate", tmp_path, "--data", tmp_path, "--json").stdout) == tables


def test_evaluate_fails_on_a_folder_that_is_neither(tmp_path: Path) -> None:
    assert "neither" in _zorro("evaluate", tmp_path, "--data", tmp_path, status=1).stderr


def test_without_torch_training_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from cli.main import app; "
        "app(['train', 'x.toml', '--data', '.'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs torch" in done.stderr
    assert "cpu,train,export" in done.stderr


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert version(project["name"]) == project["version"]
    assert _zorro("--version").stdout == f"zorro {project['version']}\n"


def test_the_commands_are_these() -> None:
    out = _zorro("--help").stdout
    for name in ("train", "evaluate", "export", "bundle", "classify", "embed", "serve"):
        assert name in out


@pytest.fixture(scope="module")
def deciding(sigmoid_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose video stream is sure of nothing, and in which two labels have one name."""
    decision = {"known_labels_only": True, "threshold": {"video": 1}}
    piano = {"a": {"label": "Piano", "bridges": ["b"]}, "b": {"label": "Piano", "bridges": ["a"]}}
    return deciding_bundle(sigmoid_bundle, tmp_path_factory.mktemp("deciding"), decision, **piano)


@pytest.mark.slow
def test_classify_says_that_it_is_sure_of_nothing(deciding: Path, film: Path) -> None:
    lines = _zorro("classify", film, "--bundle", deciding, columns=80).stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    (video,) = [line for line in lines if line.split()[:2] == ["video", "all"]]
    assert "nothing it is sure of  perhaps " in video
    (fused,) = [line for line in lines if line.split()[:2] == ["fused", "all"]]
    assert fused.count("Piano") == 1, "one name is shown once"
    shown = _zorro("classify", film, "--bundle", deciding, "--threshold", 0, "--top-k", 1).stdout
    assert "nothing" not in shown


@pytest.mark.slow
def test_classify_as_json_says_how_sure_it_is_if_the_bundle_decides(
    deciding: Path, bundle: Path, film: Path
) -> None:
    answer = json.loads(_zorro("classify", film, "--bundle", deciding, "--json").stdout)
    video = answer["whole"]["video"]
    assert (video["labels"], video["threshold"], video["is_sure"]) == ([], 1.0, False)
    assert video["best_guess"].keys() == {"id", "label", "score"}
    assert [x["label"] for x in answer["whole"]["fused"]["labels"]].count("Piano") == 2
    for other in (["classify", film, "--bundle", bundle], ["embed", film, "--bundle", deciding]):
        answer = json.loads(_zorro(*other, "--json").stdout)
        assert answer["whole"]["audio"].keys() == {"labels", "embedding"}


@pytest.mark.slow
def test_inspect_says_from_where_a_bundle_is_sure(deciding: Path, bundle: Path) -> None:
    told = " ".join(_zorro("bundle", "inspect", deciding).stdout.split())
    assert "sure from audio 0, video 1, fused 0; audio and video know their own labels" in told
    assert "sure from" not in _zorro("bundle", "inspect", bundle).stdout
