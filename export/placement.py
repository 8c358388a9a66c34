"""A folder that was made aside comes to its place whole, or what stood there stays."""

from pathlib import Path


def put_in_place(folder: Path, out: Path, *, aside: Path) -> None:
    """Put `folder` in the place of `out`; what stood there comes back if that fails."""
    replaces = out.exists()
    if replaces:
        out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        if replaces:
            aside.rename(out)
        raise
