"""The project keeps its promises to a reader: docs say what the code does, and the shipped bundle opens."""

from pathlib import Path

import pytest

from runtime import Zorro
from service.errors import PROBLEMS
from service.options import CLASSIFY, EMBED
from service.settings import Settings

ROOT = Path(__file__).parents[1]


def test_the_shipped_bundle_proves_itself_here() -> None:
    model = Zorro.open(ROOT / "bundles" / "sights-sounds" / "1")
    report = model.self_test()
    assert max(report.max_abs_error.values()) < report.tolerance
    assert len(model.bundle.labels) == 30


def test_the_shipped_bundle_is_small() -> None:
    files = [path for path in (ROOT / "bundles" / "sights-sounds").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 30_000_000


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("errors.md", list(PROBLEMS)),
        ("settings.md", [f"ZORRO_{name.upper()}" for name in Settings.model_fields]),
        ("api.md", sorted(CLASSIFY.keys() | EMBED.keys())),
    ],
)
def test_docs_name_everything(page: str, words: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert [word for word in words if f"`{word}`" not in text] == []


def test_real_clips_are_recognised(shared_dir: Path) -> None:
    model = Zorro.open(ROOT / "bundles" / "sights-sounds" / "1")
    folder = shared_dir / "data" / "sights_sounds"
    dog = model.classify(folder / "audio" / "esc10_4-182395-A.ogg").whole["audio"].labels[0]
    assert dog.id == "dog"
