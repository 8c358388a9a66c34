"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared documents and media: `ZORRO_SHARED`, or `shared` beside the checkout; skips without it."""
    folder = Path(os.environ.get("ZORRO_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared folder; looked for {folder}, or set ZORRO_SHARED")
    return folder
