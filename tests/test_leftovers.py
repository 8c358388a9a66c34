"""The check that no test leaves something behind fails the test that does, and no other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LEAKING = """
import os, resource, signal, subprocess, sys, tempfile, threading, time

import pytest

import media.spec
import media.errors

kept = []

def test_thread():
    threading.Thread(target=time.sleep, args=(30,), daemon=True, name="sleeper").start()

def test_process():
    kept.append(subprocess.Popen(["sleep", "30"]))

def test_process_that_has_ended_and_was_not_waited_for():
    kept.append(subprocess.Popen(["true"]))

def test_open_file(tmp_path):
    kept.append(open(tmp_path / "open", "w"))

def test_temporary_file():
    tempfile.mkstemp()

def test_temporary_folder():
    tempfile.mkdtemp()

def test_environment():
    os.environ["ZORRO_PORT"] = "1"

def test_working_directory(tmp_path):
    os.chdir(tmp_path)

def test_path_of_imports(tmp_path):
    sys.path.append(str(tmp_path))

def test_signal_handler():
    signal.signal(signal.SIGUSR1, lambda *_: None)

def test_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))

def test_patched_name():
    media.spec.ClipSpec = None

def test_added_name():
    media.errors.extra = 1

def test_removed_name():
    del media.errors.MediaError

def test_name_of_another():
    os.getppid = lambda: 1

def test_method():
    media.errors.MissingVideo.__str__ = lambda self: "patched"
"""

CLEAN = """
import os, subprocess, tempfile, threading, time
import media.spec

def test_patched(monkeypatch, tmp_path):
    monkeypatch.setattr(media.spec, "ClipSpec", None)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setenv("ZORRO_PORT", "1")
    monkeypatch.chdir(tmp_path)

def test_thread_that_ends_soon():
    threading.Thread(target=time.sleep, args=(0.3,)).start()

def test_process_that_is_waited_for():
    subprocess.run(["true"], check=True)

def test_files(tmp_path):
    (tmp_path / "kept").write_text("")
    with tempfile.TemporaryDirectory():
        pass

def test_module_imported_for_the_first_time():
    import media.video
"""


def run_tests(folder: Path, tests: str, *, grace_seconds: float) -> dict[str, str]:
    """Run these tests with the check, in a process of their own; return what each left behind, or nothing."""
    (folder / "conftest.py").write_text(
        f"import tests.leftovers as leftovers\nleftovers.GRACE_SECONDS = {grace_seconds}\n"
        "from tests.leftovers import nothing_is_left, temporary_folder\n"
    )
    (folder / "test_them.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        "-rpE",
        "--basetemp=made",
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "1000"},
        capture_output=True,
        text=True,
    )
    assert " failed" not in done.stdout, done.stdout
    passed = re.findall(r"^PASSED test_them.py::(\S+)", done.stdout, flags=re.MULTILINE)
    faults = re.findall(r"^ERROR test_them.py::(\S+) - (.+)$", done.stdout, flags=re.MULTILINE)
    assert passed, done.stdout + done.stderr
    return dict.fromkeys(passed, "") | dict(faults)


@pytest.mark.slow
def test_what_is_left_behind_fails_the_test_that_leaves_it(tmp_path: Path) -> None:
    found = run_tests(tmp_path, LEAKING, grace_seconds=0.0)
    expected = {
        "test_thread": "thread sleeper",
        "test_process": "process sleep 30",
        "test_process_that_has_ended_and_was_not_waited_for": "process ",
        "test_open_file": "open file /",
        "test_temporary_file": "open file /",
        "test_temporary_folder": "temporary tmp",
        "test_environment": "environment changed: {b'ZORRO_PORT': b'1'} instead of {}",
        "test_working_directory": "working directory changed: /",
        "test_path_of_imports": "path of imports changed",
        "test_signal_handler": "signal handlers changed: {'SIGUSR1'",
        "test_limit": "limits changed",
        "test_patched_name": "patched media.spec.ClipSpec",
        "test_added_name": "patched media.errors.extra",
        "test_removed_name": "patched media.errors.MediaError",
        "test_name_of_another": "patched os.getppid",
        "test_method": "patched media.errors.MissingVideo.__str__",
    }
    assert found.keys() == expected.keys()
    for name, text in expected.items():
        assert f"left behind: {text}" in found[name], name


def test_what_is_taken_away_again_is_no_fault(tmp_path: Path) -> None:
    assert set(run_tests(tmp_path, CLEAN, grace_seconds=20.0).values()) == {""}
