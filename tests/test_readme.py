"""The README and the pages are tested: Python runs, commands parse, links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main
from fastapi.routing import APIRoute

from cli.main import app as cli_app
from service.app import create_app
from service.clip_form import FIELDS
from service.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = "\n".join(page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))))
"""The README and all pages about the present."""


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    return [line for block in code_blocks(text, "sh") for line in block.splitlines() if line.strip()]


def commands(text: str, program: str) -> list[list[str]]:
    split = [shlex.split(line) for line in shell_lines(text)]
    return [words[1:] for words in split if words[0] == program]


def check_zorro(words: list[str]) -> None:
    """Parse a command line as `zorro` would, without running it."""
    command = typer.main.get_command(cli_app)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            raise ValueError(f"zorro has no command {words[:1]}; there are {list(command.commands)}")
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context("zorro", list(words))
    except Exception as error:  # typer brings a click of its own, whose classes are not public
        raise ValueError(f"zorro {command.name} {words}: {error}") from error


@pytest.mark.parametrize("block", code_blocks(README, "python"))
def test_python_runs(
    block: str,
    bundle: Path,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(bundle, tmp_path / "bundles" / "everyday" / "1")
    shutil.copy(film, tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


@pytest.mark.parametrize("words", commands(GUIDES, "zorro"), ids=" ".join)
def test_zorro_commands_parse(words: list[str]) -> None:
    check_zorro(words)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("classify clip.mp4 --loud", "No such option: --loud"),
        ("guess clip.mp4", "no command"),
        ("bundle", "no command"),
        ("classify", "clip"),
    ],
)
def test_zorro_commands_parse_fails(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_zorro(line.split())


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for words in commands(GUIDES, "make"):
        assert re.search(rf"^{words[0]}:", makefile, flags=re.MULTILINE), words
        for name in (word.split("=")[0] for word in words[1:]):
            assert re.search(rf"^{name} \??=", makefile, flags=re.MULTILINE), name


def test_curl_calls_routes_that_exist() -> None:
    paths = {route.path for route in create_app(Settings()).routes if isinstance(route, APIRoute)}
    calls = commands(README, "curl")
    assert calls
    for words in calls:
        assert re.sub(r"^http://[^/]+", "", words[-1]) in paths, words
        fields = {words[i + 1].split("=")[0] for i, word in enumerate(words) if word == "-F"}
        assert fields <= {"file"} | {field.name for known in FIELDS.values() for field in known}


def broken_links(page: Path) -> list[str]:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    return [link for link in links if not (page.parent / link).exists()]


def test_links_lead_somewhere() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    assert {page.name: broken for page in pages if (broken := broken_links(page))} == {}


def test_links_lead_somewhere_fails(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("[there](page.md) [nowhere](lost.md#part) [web](https://example.org)")
    assert broken_links(tmp_path / "page.md") == ["lost.md"]
