"""Private folders: gone when their server ends.

Those of a server that crashed are cleaned, those of a live one are not.
"""

import subprocess
import sys
from pathlib import Path

from service.temporary_folders import clean_leftovers, private_folder

CRASH = """
import os, sys
from pathlib import Path
from service.temporary_folders import private_folder

with private_folder(Path(sys.argv[1])) as folder:
    (folder / "upload").write_bytes(b"left")
    os._exit(1)
"""


def test_a_folder_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with private_folder(tmp_path) as folder:
        (folder / "upload").write_bytes(b"x")
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_crashed_server_left_is_cleaned(tmp_path: Path) -> None:
    (tmp_path / "zorro-not-ours").mkdir()  # without a lock: nobody knows whose it is
    subprocess.run([sys.executable, "-c", CRASH, tmp_path], cwd=Path(__file__).parents[2], check=False)
    left = [path for path in tmp_path.iterdir() if path.name != "zorro-not-ours"]
    assert [path.name for path in left[0].iterdir() if path.name != ".lock"] == ["upload"]
    with private_folder(tmp_path) as alive:
        assert clean_leftovers(tmp_path) == left
        assert alive.is_dir()
        assert clean_leftovers(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["zorro-not-ours"]
