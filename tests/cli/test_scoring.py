"""From a folder of clips to a served bundle by commands alone: fine-tune, evaluate, report, export."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.made_media import moving_frames, tone, write_clip


def _zorro(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label folders in split folders: films of two labels, and a mute one."""
    folder = tmp_path_factory.mktemp("clips")
    for split, count in (("train", 4), ("val", 2), ("test", 2)):
        for label, hz in (("low", 200), ("high", 3_000)):
            (folder / split / label).mkdir(parents=True)
            for i in range(count):
                frames = [frame if label == "low" else 255 - frame for frame in moving_frames(0.8, size=(32, 32))]
                write_clip(folder / split / label / f"{i}.mp4", waveform=tone(0.8, hz=hz + 20 * i), frames=frames)
    write_clip(folder / "test" / "low" / "mute.mp4", frames=moving_frames(0.8, size=(32, 32)))
    return folder


@pytest.fixture(scope="module")
def tuned(clips: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`zorro train --from CHECKPOINT --data FOLDER`, and nothing else."""
    run = tmp_path_factory.mktemp("runs") / "clips"
    assert "checkpoint" in _zorro("train", "--from", checkpoint, "--data", clips, "--run", run).stdout
    return run / "checkpoint"


def test_a_folder_of_clips_is_all_a_user_needs(tuned: Path, clips: Path, film: Path, tmp_path: Path) -> None:
    manifest = json.loads((tuned / "checkpoint.json").read_text())
    assert [label["id"] for label in manifest["labels"]] == ["high", "low"]
    tables = json.loads(_zorro("evaluate", tuned, "--data", clips, "--split", "test", "--json").stdout)
    assert {name: table["clips"] for name, table in tables.items()} == {
        "audio": 4, "video": 5, "fused": 4, "fused_by_sound": 4, "fused_by_sight": 5,
    }  # fmt: skip
    assert tables["audio"]["top1"] > 0.5, "tones far apart"
    assert tables["audio"]["unanswered"] == {"mute": 1}
    _zorro("export", tuned, tmp_path / "clips" / "1", "--data", clips)
    manifest = json.loads((tmp_path / "clips" / "1" / "bundle.json").read_text())
    assert manifest["variants"].keys() | manifest["left_out"].keys() == {"fp32", "fp16", "int8-cpu", "int8-qdq"}
    assert all("leave int8 out" in reason or "allowed is" in reason for reason in manifest["left_out"].values())
    parity = manifest["variants"]["fp32"]["parity"]["real"]
    assert {(report["graph"], report["clips"]) for report in parity} == {("audio", 4), ("video", 5), ("fused", 4)}
    served = json.loads(_zorro("evaluate", tmp_path / "clips" / "1", "--data", clips, "--split", "test", "--json").stdout)
    assert served.keys() == {"audio", "video", "fused"}
    assert served["audio"]["top1"] == tables["audio"]["top1"]
    assert json.loads(_zorro("classify", film, "--bundle", tmp_path / "clips" / "1", "--json").stdout)["whole"]["audio"]


def test_scores_are_printed_and_reported(tuned: Path, clips: Path, tmp_path: Path) -> None:
    printed = _zorro("evaluate", tuned, "--data", clips).stdout
    assert "fused_by_sight" in printed
    assert "top-1" in printed
    _zorro("evaluate", tuned, "--data", clips, "--split", "test", "--report", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    for words in ("noise", "recall@1", "fused, no sound"):
        assert words in text
    assert list((tmp_path / "report").glob("*.svg"))


def test_what_cannot_be_scored_is_said(tuned: Path, clips: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert "no split 'exam'; there are test, train, val" in _zorro(
        "evaluate", tuned, "--data", clips, "--split", "exam", status=1
    ).stderr
    assert "labels that the model does not know" in _zorro("evaluate", checkpoint, "--data", clips, status=1).stderr
    assert "neither a recipe nor a checkpoint" in _zorro("train", "--data", clips, "--run", tmp_path, status=1).stderr
