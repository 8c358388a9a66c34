"""Checkpoints in bundles: trained on, exported anew and proven by whoever has the bundle.

Nothing is read unverified.
"""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from export.bundle_writer import ExportOptions, export_checkpoint, seal_bundle
from models.weights import CheckpointError
from runtime.errors import BundleCorrupt
from tests.known_graphs import known_graphs
from tests.made_media import moving_frames, tone, write_clip
from verification.checkpoint_source import open_checkpoint_source
from verification.proof import prove_bundle

pytestmark = pytest.mark.slow


def _zorro(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of two labels in each split."""
    folder = tmp_path_factory.mktemp("clips")
    for split in ("train", "val", "test"):
        for label in "ab":
            (folder / split / label).mkdir(parents=True)
            frames = moving_frames(0.8, size=(32, 32))
            write_clip(
                folder / split / label / "0.mp4",
                waveform=tone(0.8, hz=300 if label == "a" else 900),
                frames=frames,
            )
    return folder


@pytest.fixture(scope="module")
def bare(checkpoint: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a checkpoint."""
    out = tmp_path_factory.mktemp("bare") / "small" / "1"
    with known_graphs(bundle):
        return export_checkpoint(
            checkpoint, out, name="small", version="1", options=ExportOptions(with_checkpoint=False)
        )


def test_a_checkpoint_stands_for_itself_and_a_bundle_for_its_own(checkpoint: Path, bundle: Path) -> None:
    assert open_checkpoint_source(checkpoint).checkpoint == checkpoint
    assert (
        open_checkpoint_source(bundle).checkpoint
        == open_checkpoint_source(bundle / "checkpoint").checkpoint
        == bundle / "checkpoint"
    )
    assert _bytes(bundle / "checkpoint") == _bytes(checkpoint)


def test_a_bundle_is_exported_anew_to_the_last_byte(bundle: Path, tmp_path: Path) -> None:
    """Graphs are equal by tests/test_extras.py; so is all that is written around them."""
    with known_graphs(bundle):
        _zorro("export", bundle, tmp_path / "small" / "1", "--variant", "fp32")
    assert _bytes(tmp_path / "small" / "1") == _bytes(bundle)


def test_card_licence_and_scores_go_on_to_the_new_bundle(
    checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    said = {"about": {"licence": "none"}, "metrics": {"audio": {"clips": 1, "top1": 1.0}}}
    with known_graphs(bundle):
        export_checkpoint(
            checkpoint,
            tmp_path / "a" / "1",
            name="a",
            version="1",
            options=ExportOptions(model_card="# Of a\n", **said),
        )
        _zorro("export", tmp_path / "a" / "1", tmp_path / "b" / "1", "--variant", "fp32", "--no-checkpoint")
    manifest = json.loads((tmp_path / "b" / "1" / "bundle.json").read_text())
    assert {name: manifest[name] for name in said} == said
    assert (tmp_path / "b" / "1" / "MODEL_CARD.md").read_text() == "# Of a\n"
    assert not (tmp_path / "b" / "1" / "checkpoint").exists()


def test_a_bundle_of_another_schema_is_exported_anew(bundle: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "old" / "1"))
    manifest = json.loads((old / "bundle.json").read_text())
    seal_bundle(old, manifest | {"schema_version": 1})
    _zorro("bundle", "verify", old, status=1)
    with known_graphs(bundle):
        _zorro("export", old, tmp_path / "small" / "1", "--variant", "fp32")
    assert _bytes(tmp_path / "small" / "1") == _bytes(bundle)


def test_a_bundle_is_trained_on_scored_and_proven(bundle: Path, clips: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text(
        "pairs = 'by_clip'\nnum_steps = 2\nnum_clips = 2\nbfloat16 = false\nnum_workers = 0\n"
        "[model]\npatch_size = [16, 16]\ntubelet_size = [2, 16, 16]\nembed_dim = 32\ndepth = 2\nnum_heads = "
        "2\n"
        "num_fusion_tokens = 3\nprojection_dim = 16\n"
        "[clip_spec]\nnum_mel_frames = 64\nnum_mel_bins = 32\nframe_size = 32\n"
    )
    _zorro("train", recipe, "--from", bundle, "--data", clips, "--run", tmp_path / "run")
    model = json.loads(_zorro("evaluate", bundle, "--checkpoint", "--data", clips, "--json").stdout)
    graphs = json.loads(_zorro("evaluate", bundle, "--data", clips, "--json").stdout)
    assert model.keys() - graphs.keys() == {"fusion_by_audio", "fusion_by_video"}, (
        "which graphs cannot be asked"
    )
    report = prove_bundle(bundle, None, clips, only_graphs=True)
    assert report["fp32"]["graph"]["fused"]["top1_agreement"] == 1


@pytest.mark.parametrize(
    "command",
    [
        ("train", "--from", "{}", "--data", "{}"),
        ("export", "{}", "{}/new"),
        ("evaluate", "{}", "--checkpoint", "--data", "{}"),
        ("bundle", "prove", "{}", "--data", "{}"),
    ],
)
def test_a_bundle_without_a_checkpoint_says_what_to_do(command: tuple[str, ...], bare: Path) -> None:
    output = _zorro(*(word.format(bare) for word in command), status=1).output
    assert f"{bare} is a bundle without a checkpoint; give the checkpoint it was exported from" in output


@pytest.mark.parametrize("name", ["checkpoint/model.safetensors", "checkpoint/checkpoint.json"])
def test_damaged_bytes_are_not_read(name: str, bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    content = bytearray((copy / name).read_bytes())
    content[-2] ^= 1
    (copy / name).write_bytes(content)
    for target in (copy, copy / "checkpoint"):
        with pytest.raises(BundleCorrupt, match=f"{name} has other bytes"):
            open_checkpoint_source(target)


def test_weights_that_no_hash_covers_are_not_read(bare: Path, checkpoint: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bare, tmp_path / "copy"))
    shutil.copytree(checkpoint, copy / "checkpoint")
    with pytest.raises(CheckpointError, match="is a bundle without a checkpoint"):
        open_checkpoint_source(copy)
