"""The lines of docs/training.md on small folders made in code: each trains, or says what it needs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from models.weights import load_checkpoint
from tests.training.made_collections import label_folders, several_labels, write_film
from tests.training.small_runs import CLIP_SPEC, MODEL, NUMBERS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_resamples")]

TINY = MODEL + CLIP_SPEC


def _zorro(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "80"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


def _train(folder: Path, data: Path, keys: str = "", *, tables: str = TINY, **names: object) -> Result:
    (folder / "recipe.toml").write_text(NUMBERS + keys + tables)
    options = [x for name, value in names.items() if name != "status" for x in (f"--{name}", value)]
    arguments = ("train", folder / "recipe.toml", "--data", data, "--run", folder / "run", *options)
    return _zorro(*arguments, status=int(str(names.get("status", 0))))


def _trained_recipe(folder: Path) -> dict[str, object]:
    return load_checkpoint(folder / "run" / "checkpoint").extra["recipe"]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return label_folders(tmp_path_factory.mktemp("apart"), audio=True, video=True)


def test_a_run_belongs_to_its_data(apart: Path, tmp_path: Path) -> None:
    _train(tmp_path, apart)
    other = label_folders(tmp_path / "other", audio=True, video=True, names=("loud", "quiet"))
    said = _train(tmp_path, other, status=1).stderr.replace("\n", " ")
    assert f"holds a run on {apart.resolve()} (20 clips), got {other.resolve()} (20 clips)" in said
    assert "--run" in said
    assert "nothing is left to train" in _train(tmp_path, apart).stderr.replace("\n    ", " ")


def test_data_that_has_moved_is_the_same_and_data_that_has_changed_is_not(tmp_path: Path) -> None:
    data = label_folders(tmp_path / "data", audio=True)
    _train(tmp_path, data)
    moved = data.rename(tmp_path / "moved")
    _train(tmp_path, moved)
    (moved / "train" / "low" / "2.wav").unlink()
    _train(tmp_path, moved, status=1)
    data.mkdir()
    moved.rename(tmp_path / "data" / "gone")
    assert "holds a run on" in _train(tmp_path, tmp_path / "data" / "gone", status=1).stderr.replace(
        "\n", " "
    )


@pytest.mark.parametrize("kind", ["audio", "video", "films"])
def test_a_recipe_of_defaults_trains_on_one_kind_of_file(kind: str, tmp_path: Path) -> None:
    data = label_folders(tmp_path / "data", **{kind: True})
    _train(tmp_path, data)
    assert _trained_recipe(tmp_path)["pairs"] == ("by_clip" if kind == "films" else "by_label")
    _zorro("evaluate", tmp_path / "run" / "checkpoint", "--data", data)


@pytest.mark.parametrize("audio_only", [False, True])
def test_several_labels_per_clip_need_one_key(audio_only: bool, tmp_path: Path) -> None:
    data = several_labels(tmp_path / "data", audio_only=audio_only)
    said = _train(tmp_path, data, status=1).stderr.replace("\n", " ")
    assert "clips have several labels" in said
    assert "set multi_label = true" in said
    _train(tmp_path, data, "multi_label = true\n")
    tables = json.loads(_zorro("evaluate", tmp_path / "run" / "checkpoint", "--data", data, "--json").stdout)
    assert "map" in tables["audio"]


def test_a_preset_brings_its_clip_spec(tmp_path: Path) -> None:
    from training.model_config import model_config
    from training.recipe import Recipe

    recipe = Recipe(preset="swin-tiny")
    assert recipe.spec.audio_shape == (256, 128)
    assert recipe.spec.video_shape == (8, 224, 224, 3)
    assert model_config(recipe, 3).audio_shape == (256, 128)
    smaller = Recipe(preset="swin-tiny", clip_spec={"frame_size": 96})
    assert smaller.spec.video_shape == (8, 96, 96, 3)
    assert Recipe().spec.audio_shape == (512, 80)
    with pytest.raises(ValueError, match="no preset 'swin-huge'"):
        _ = Recipe(preset="swin-huge").spec
    with pytest.raises(ValueError, match=r"unknown keys \['frame_seize'\] for clip_spec"):
        _ = Recipe(clip_spec={"frame_seize": 3}).spec
    with pytest.raises(ValueError, match=r"unknown keys \['audio_shape', 'depht'\] in \[model\]"):
        model_config(Recipe(model={"depht": 1, "audio_shape": (1, 2)}), 3)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_documented_swin_trains(tmp_path: Path) -> None:
    data = label_folders(tmp_path / "data", audio=True)
    one = NUMBERS.replace("= 4", "= 1").replace("num_pairs = 2", "num_pairs = 0")
    (tmp_path / "recipe.toml").write_text(one + 'preset = "swin-tiny"\n')
    _zorro("train", tmp_path / "recipe.toml", "--data", data, "--run", tmp_path / "run", "--steps", 1)
    assert load_checkpoint(tmp_path / "run" / "checkpoint").model.config.backbone == "swin"


@pytest.mark.parametrize("kind", ["apart", "films"])
def test_a_broken_file_is_named_and_passed_over(kind: str, tmp_path: Path) -> None:
    kinds = {"audio": True, "video": True} if kind == "apart" else {"films": True}
    data = label_folders(tmp_path / "data", **kinds)
    suffix = "wav" if kind == "apart" else "mp4"
    for split in ("train", "val"):
        (data / split / "low" / f"broken.{suffix}").write_bytes(b"nothing to see")
    said = _train(tmp_path, data).stderr
    for split in ("train", "val"):
        assert f"passed over {data / split / 'low'}/broken.{suffix}: unsupported_media" in said
    again = _train(tmp_path, data).stderr
    assert f"train/low/broken.{suffix}: unsupported_media" in again, "named when read from the cache too"
    found = _zorro("data", "check", data, "--json", status=1)
    broken = [x for x in json.loads(found.stdout)["findings"] if x["fault"] == "broken"]
    assert {Path(x["path"]).name for x in broken} == {f"broken.{suffix}"}


def test_nothing_but_broken_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data" / "train" / "low").mkdir(parents=True)
    (tmp_path / "data" / "train" / "low" / "broken.wav").write_bytes(b"nothing")
    said = _train(tmp_path, tmp_path / "data", status=1).stderr.replace("\n", " ")
    assert "none of 1 clips decodes; the first is" in said
    assert "broken.wav" in said


def test_steps_and_preset_are_given_in_place_of_the_recipes(apart: Path, tmp_path: Path) -> None:
    _train(tmp_path, apart, steps=1, preset="vit-small")
    recipe = _trained_recipe(tmp_path)
    assert (recipe["num_steps"], recipe["preset"]) == (1, "vit-small")
    said = _zorro("train", "--data", apart, "--preset", "vit-tiny", "--run", tmp_path / "x", status=1).stderr
    assert "--preset changes a recipe's" in said.replace("\n", " ")


def test_lines_fit_80_columns_and_end_with_what_comes_next(tmp_path: Path) -> None:
    data = label_folders(tmp_path / "d", audio=True, video=True)
    result = _train(tmp_path, data)
    lines = [line for line in result.stderr.splitlines() if "/" not in line]
    assert all(len(line) <= 80 for line in lines), lines
    said = result.stderr.replace("\n    ", " ")
    assert "training 2 steps of 8 clips" in said
    assert "step 1 of 2, " in said
    assert "clips/s, " in said
    assert "losses: fusion " in said
    assert "saved at step 2" in said
    assert f"checkpoint: {tmp_path / 'run' / 'checkpoint'}" in result.stdout
    assert "next: zorro evaluate" in result.stdout


def test_films_of_one_label_folder_train(tmp_path: Path) -> None:
    data = label_folders(tmp_path / "data", films=True)
    write_film(data / "train" / "low" / "more.mp4", hz=300.0)
    _train(tmp_path, data, 'modality = "audio"\n')
    assert _trained_recipe(tmp_path)["pairs"] == "by_clip"
