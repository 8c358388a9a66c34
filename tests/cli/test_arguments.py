"""The default bundle is found from any working directory, or the message says what to give."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.arguments import bundle_or_default, model_repositories, open_variant
from cli.main import app
from runtime.errors import BundleNotFound, InvalidOption

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without bundles, and no ZORRO_BUNDLES."""
    monkeypatch.delenv("ZORRO_BUNDLES", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _place(repository: Path) -> Path:
    """A default bundle in a model repository; only its manifest is looked for."""
    folder = repository / "everyday" / "1"
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_text("{}")
    return folder


def test_the_default_bundle_is_that_of_the_checkout() -> None:
    assert bundle_or_default(None) == ROOT / "bundles" / "everyday" / "1"


def test_bundles_of_the_working_directory_go_first(elsewhere: Path) -> None:
    here = _place(elsewhere / "bundles")
    assert bundle_or_default(None).resolve() == here.resolve()


def test_a_configured_model_repository_is_the_only_one(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _place(elsewhere / "bundles")
    monkeypatch.setenv("ZORRO_BUNDLES", str(elsewhere / "other"))
    assert model_repositories() == [elsewhere / "other"]
    with pytest.raises(BundleNotFound, match=r"other/everyday/1; give a folder NAME/VERSION"):
        bundle_or_default(None)
    assert bundle_or_default(_place(elsewhere / "other").parent) == elsewhere / "other" / "everyday"


def test_without_a_default_bundle_the_message_says_what_to_give(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.arguments.__file__", str(elsewhere / "site-packages" / "cli" / "arguments.py"))
    for command in (
        ["classify", "clip.wav"],
        ["embed", "clip.wav"],
        ["bundle", "verify"],
        ["bundle", "inspect"],
    ):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1, result.stderr
        assert "no bundle was given" in result.stderr
        assert "ZORRO_BUNDLES" in result.stderr


def test_a_command_takes_the_default_bundle_from_anywhere(song: Path) -> None:
    result = CliRunner().invoke(app, ["classify", str(song), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["whole"].keys() == {"audio"}


def test_a_variant_is_opened_by_its_name(bundle: Path) -> None:
    opened, chosen = open_variant(bundle, None)
    assert (opened.name, chosen.name) == ("small", "fp32")
    with pytest.raises(InvalidOption, match="variant='fp16'"):
        open_variant(bundle, "fp16")


def test_serve_takes_its_bundles_from_the_same_places(elsewhere: Path, bundle: Path) -> None:
    from cli.serve import _read_settings

    assert _read_settings([]).bundles == ROOT / "bundles"
    shutil.copytree(bundle.parents[1], elsewhere / "bundles")
    assert _read_settings([]).bundles == Path("bundles")
    assert _read_settings(["--bundles", "given"]).bundles == Path("given")
