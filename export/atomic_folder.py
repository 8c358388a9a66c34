"""A folder that was made aside comes to its place whole, or what stood there stays."""

from pathlib import Path


def replace_folder(folder: Path, out: Path, *, aside: Path) -> None:
    """Put `folder` in the place of `out`; what stood there comes back if that fails."""
    try:
        if out.exists():
            out.rename(aside)
        folder.rename(out)
    except BaseException:
        if aside.exists() and not out.exists():
            aside.rename(out)
        raise
