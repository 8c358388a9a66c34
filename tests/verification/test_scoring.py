"""From a folder of clips to a served bundle by commands alone: fine-tune, evaluate, report, export."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from export.variants import VARIANTS
from models.weights import load_checkpoint, save_checkpoint
from tests.known_graphs import known_graphs
from tests.made_media import moving_frames, tone, write_clip
from tests.training.small_runs import CLIP_SPEC, MODEL
from verification.scored_model import open_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_resamples")]


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
                frames = [
                    frame if label == "low" else 255 - frame for frame in moving_frames(0.8, size=(32, 32))
                ]
                write_clip(
                    folder / split / label / f"{i}.mp4", waveform=tone(0.8, hz=hz + 20 * i), frames=frames
                )
    write_clip(folder / "test" / "low" / "mute.mp4", frames=moving_frames(0.8, size=(32, 32)))
    return folder


@pytest.fixture(scope="module")
def tuned(clips: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`zorro train --from CHECKPOINT --data FOLDER`, and nothing else."""
    run = tmp_path_factory.mktemp("runs") / "clips"
    assert "checkpoint" in _zorro("train", "--from", checkpoint, "--data", clips, "--run", run).stdout
    return run / "checkpoint"


@pytest.mark.exhaustive
def test_a_folder_of_clips_is_all_a_user_needs(tuned: Path, clips: Path, film: Path, tmp_path: Path) -> None:
    manifest = json.loads((tuned / "checkpoint.json").read_text())
    assert [label["id"] for label in manifest["labels"]] == ["high", "low"]
    tables = json.loads(_zorro("evaluate", tuned, "--data", clips, "--split", "test", "--json").stdout)
    assert {name: table["clips"] for name, table in tables.items()} == {
        "audio": 4,
        "video": 5,
        "fused": 4,
        "fusion_by_audio": 4,
        "fusion_by_video": 5,
    }
    assert tables["audio"]["top1"] > 0.5, "tones far apart"
    assert tables["audio"]["unanswered"] == {"mute": 1}
    _zorro("export", tuned, tmp_path / "clips" / "1", "--data", clips, "--variant", "fp32")
    manifest = json.loads((tmp_path / "clips" / "1" / "bundle.json").read_text())
    parity = manifest["variants"]["fp32"]["parity"]["real"]
    assert {(report["graph"], report["clips"]) for report in parity} == {
        ("audio", 4),
        ("video", 5),
        ("fused", 4),
    }
    served = json.loads(
        _zorro("evaluate", tmp_path / "clips" / "1", "--data", clips, "--split", "test", "--json").stdout
    )
    assert served.keys() == {"audio", "video", "fused"}
    assert served["audio"]["top1"] == tables["audio"]["top1"]
    assert json.loads(_zorro("classify", film, "--bundle", tmp_path / "clips" / "1", "--json").stdout)[
        "whole"
    ]["audio"]


def test_clips_to_calibrate_on_make_every_variant_or_a_reason(
    checkpoint: Path, bundle: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What int8 does is tested in tests/export; here the search for layers to leave out ends at once."""
    monkeypatch.setattr("export.quantize.MAX_SHARE_LEFT", 0.0)
    with known_graphs(bundle):
        _zorro("export", checkpoint, tmp_path / "small" / "1", "--data", clips)
    manifest = json.loads((tmp_path / "small" / "1" / "bundle.json").read_text())
    assert manifest["variants"].keys() | manifest["left_out"].keys() == set(VARIANTS)
    assert all(
        "leave int8 out" in reason or "allowed is" in reason for reason in manifest["left_out"].values()
    )


def test_scores_are_printed_and_reported(tuned: Path, clips: Path, tmp_path: Path) -> None:
    printed = _zorro("evaluate", tuned, "--data", clips).stdout
    assert "fusion_by_video" in printed
    assert "top-1" in printed
    _zorro("evaluate", tuned, "--data", clips, "--split", "test", "--report", tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    for words in ("noise", "recall@1", "fused, no sound"):
        assert words in text
    assert list((tmp_path / "report").glob("*.svg"))


def test_what_cannot_be_scored_is_said(tuned: Path, clips: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert (
        "no split 'exam'; there are test, train, val"
        in _zorro("evaluate", tuned, "--data", clips, "--split", "exam", status=1).stderr
    )
    assert (
        "labels that the model does not know"
        in _zorro("evaluate", checkpoint, "--data", clips, status=1).stderr
    )
    assert (
        "neither a recipe nor a checkpoint"
        in _zorro("train", "--data", clips, "--run", tmp_path, status=1).stderr
    )


@pytest.fixture(scope="module")
def pre_trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows no labels."""
    folder = tmp_path_factory.mktemp("contrast")
    (folder / "recipe.toml").write_text(CONTRAST)
    _zorro("train", folder / "recipe.toml", "--data", clips, "--run", folder / "run")
    return folder / "run" / "checkpoint"


CONTRAST = (
    """
pairs = "by_clip"
supervised = false
contrastive_weight = 1.0
num_steps = 2
num_clips = 4
num_workers = 0
"""
    + MODEL
    + CLIP_SPEC
)


def test_a_probe_needs_no_labels_in_the_checkpoint(pre_trained: Path, clips: Path, tmp_path: Path) -> None:
    assert (
        "trained without labels; --probe fits"
        in _zorro("evaluate", pre_trained, "--data", clips, status=1).stderr
    )
    asked = ("evaluate", pre_trained, "--data", clips, "--split", "test", "--probe")
    tables = json.loads(_zorro(*asked, "--json").stdout)
    assert {name: table["clips"] for name, table in tables.items()} == {
        "audio": 4,
        "video": 5,
        "fused": 4,
        "fusion_by_audio": 4,
        "fusion_by_video": 5,
    }
    assert tables["audio"]["top1"] == 1.0, "tones far apart, even to a model that knows nothing"
    assert tables["audio"]["labels"].keys() == {"high", "low"}
    assert tables["audio"]["unanswered"] == {"mute": 1}
    assert {"c", "val", "converged", "top1_interval"} <= tables["fused"].keys()
    assert "100.0% (100.0-100.0)" in _zorro(*asked).stdout
    _zorro("evaluate", pre_trained, "--data", clips, "--split", "test", "--report", tmp_path / "report")
    records = json.loads((tmp_path / "report" / "records.json").read_text())["checkpoint"]
    assert records.keys() == {"retrieval", "probes"}
    assert records["probes"] == tables


def test_a_bundle_is_probed_as_its_checkpoint_is(checkpoint: Path, bundle: Path, clips: Path) -> None:
    """What labels they know does not matter."""
    tables = [
        json.loads(_zorro("evaluate", x, "--data", clips, "--probe", "--json").stdout)
        for x in (checkpoint, bundle)
    ]
    assert tables[1].keys() == {"audio", "video", "fused"}
    assert all(tables[1][name]["val"] == tables[0][name]["val"] for name in tables[1])


@pytest.fixture
def spans_bundle(checkpoint: Path, bundle: Path, tmp_path: Path) -> Path:
    """The bundle that tests share, as if its run had taken files with all their spans for clips."""
    loaded, recipe = load_checkpoint(checkpoint), {"spans": "whole", "multi_label": True}
    trained = tmp_path / "trained"
    save_checkpoint(trained, loaded.model, clip_spec=loaded.clip_spec, labels=loaded.labels, recipe=recipe)
    with known_graphs(bundle):
        _zorro("export", trained, tmp_path / "spans" / "1", "--variant", "fp32")
    assert json.loads((tmp_path / "spans" / "1" / "bundle.json").read_text())["scores"] == "sigmoid"
    return tmp_path / "spans" / "1"


def test_files_of_several_spans_are_scored_as_they_were_learned(
    clips: Path, checkpoint: Path, spans_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = ["path,modality,label,split,start_seconds,end_seconds"]
    for film in sorted(clips.glob("*/*/[0-9].mp4")):
        split, label, name = film.relative_to(clips).parts
        (folder / f"{split}-{label}-{name}").symlink_to(film)
        path = f"{split}-{label}-{name},audio"
        rows += [f"{path},begin,{split},0.0,0.4", f"{path},{label},{split},0.4,0.8"]
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.toml").write_text(
        'spans = "whole"\nmulti_label = true\n' + CONTRAST.replace("false", "true")
    )
    _zorro("train", tmp_path / "recipe.toml", "--data", folder, "--run", tmp_path / "run")

    def probed(target: Path, *options: str) -> dict[str, Any]:
        return json.loads(_zorro("evaluate", target, "--data", folder, "--probe", "--json", *options).stdout)[
            "audio"
        ]

    whole = probed(tmp_path / "run" / "checkpoint")["labels"]
    assert whole == {
        name: {"average_precision": 1.0, "clips": n} for name, n in (("begin", 4), ("high", 2), ("low", 2))
    }
    assert probed(spans_bundle)["labels"] == whole, "a bundle knows what it was trained on"
    assert probed(spans_bundle, "--spans", "each")["clips"] == 8
    assert probed(checkpoint)["clips"] == 8, "of a checkpoint that says nothing each span is a clip"
    assert probed(checkpoint, "--spans", "whole")["clips"] == 4


def test_a_probe_without_labels_or_splits_fails(
    pre_trained: Path, clips: Path, film: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", pre_trained, "--probe", "--data")
    (tmp_path / "few" / "test" / "low").mkdir(parents=True)
    (tmp_path / "few" / "test" / "low" / "film.mp4").symlink_to(film)
    said = _zorro(*asked, tmp_path / "few", "--split", "test", status=1).stderr
    assert "no clip is of the splits ['train', 'val']" in said
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "manifest.csv").write_text(
        f"path,modality,label,split\n{film},both,,train\n{film},both,,val\n"
    )
    assert (
        "none of 2 clips has a label; a probe is fitted to labels"
        in _zorro(*asked, tmp_path / "plain", status=1).stderr
    )
    assert "'half' is not a valid Spans" in _zorro(*asked, clips, "--spans", "half", status=1).stderr


def test_what_is_scored_says_what_its_scores_mean(
    checkpoint: Path, bundle: Path, sigmoid_checkpoint: Path, sigmoid_bundle: Path
) -> None:
    assert [
        open_model(folder).is_sigmoid for folder in (checkpoint, bundle, sigmoid_checkpoint, sigmoid_bundle)
    ] == [
        False,
        False,
        True,
        True,
    ]
