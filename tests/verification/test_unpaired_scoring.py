"""Scores and reports of collections whose clips do not all hold sound and picture."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.training.made_collections import label_folders, several_labels

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_resamples")]


def _zorro(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds and pictures in label folders, and a broken sound."""
    folder = label_folders(tmp_path_factory.mktemp("apart"), audio=True, video=True, names=("a", "b"))
    (folder / "test" / "a" / "broken.wav").write_bytes(b"no sound")
    return folder


def test_a_collection_of_files_apart_has_a_report(checkpoint: Path, apart: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", checkpoint, "--data", apart, "--split", "test")
    tables = json.loads(_zorro(*evaluate, "--json").stdout)
    assert {name: table["clips"] for name, table in tables.items()} == {
        "sounds": 4,
        "sights": 4,
        "pairs_fused": 8,
        "pairs_audio": 8,
        "pairs_video": 8,
        "noisy_sound_audio": 8,
        "noisy_sound_fused": 8,
        "noise_for_picture_video": 8,
        "noise_for_picture_fused": 8,
    }
    _zorro(*evaluate, "--report", tmp_path / "report")
    records = json.loads((tmp_path / "report" / "records.json").read_text())[checkpoint.name]["unpaired"]
    assert records["tables"] == tables
    assert records["failures"] == [{"file": "broken.wav", "reason": "unsupported_media"}]
    text = (tmp_path / "report" / "report.md").read_text()
    for words in ("pairs with noise over the sound, by both", "9 items", "broken.wav (unsupported_media)"):
        assert words in text
    assert len(list((tmp_path / "report").glob("unpaired-*.svg"))) == 1


def test_a_collection_that_does_not_decode_has_none(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a" / "broken.wav").write_bytes(b"no sound")
    said = _zorro(
        "evaluate", checkpoint, "--data", tmp_path, "--split", "test", "--report", tmp_path / "r", status=1
    ).stderr
    assert "none of 1 files decodes; the first is" in said
    assert "broken.wav: unsupported_media" in said


@pytest.mark.parametrize("kind", ["audio", "video"])
def test_a_collection_of_one_modality_has_a_report(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    folder = label_folders(tmp_path / "data", **{kind: True}, names=("a", "b"))
    _zorro("evaluate", checkpoint, "--data", folder, "--report", tmp_path / "report")
    records = json.loads((tmp_path / "report" / "records.json").read_text())[checkpoint.name]
    assert records["unpaired"]["tables"].keys() == {{"audio": "sounds", "video": "sights"}[kind]}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds of one or two labels."""
    return several_labels(tmp_path_factory.mktemp("several"), audio_only=True, names=("a", "b", "c"))


@pytest.mark.parametrize("kind", ["sigmoid_checkpoint", "sigmoid_bundle"])
def test_sounds_of_several_labels_are_scored(
    kind: str, several: Path, request: pytest.FixtureRequest
) -> None:
    target = request.getfixturevalue(kind)
    tables = json.loads(_zorro("evaluate", target, "--data", several, "--json").stdout)
    assert tables["audio"]["clips"] == 4
    assert 0 < tables["audio"]["map"] <= 1
    assert tables["video"] == {"clips": 0, "unanswered": {"without_picture": 4}}


def test_sounds_of_several_labels_have_a_report(
    sigmoid_checkpoint: Path, several: Path, tmp_path: Path
) -> None:
    _zorro("evaluate", sigmoid_checkpoint, "--data", several, "--report", tmp_path / "report")
    records = json.loads((tmp_path / "report" / "records.json").read_text())[sigmoid_checkpoint.name]
    assert records.keys() == {"scores", "corrupted"}, "retrieval needs clips that have sound and picture"
    assert records["corrupted"]["corruptions"].keys() == {"noise", "babble"}


def test_what_has_no_labels_has_nothing_to_report(checkpoint: Path, apart: Path, tmp_path: Path) -> None:
    from models.weights import load_checkpoint, save_checkpoint

    loaded = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "plain", loaded.model, clip_spec=loaded.clip_spec, labels=[])
    folder = label_folders(tmp_path / "data", audio=True, names=("a", "b"))
    for path in [*(folder / "train").rglob("*.wav")]:
        path.unlink()
    said = _zorro(
        "evaluate", tmp_path / "plain", "--data", folder, "--report", tmp_path / "r", status=1
    ).stderr
    assert "nothing to report" in said
