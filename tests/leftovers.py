"""What a test must not leave behind: threads, processes, files, settings of the process and patched names.

`nothing_is_left` compares the process before a test with the process after it, and fails that test. Otherwise
a later test would fail, and which one would be chance. Only where the two differ is there a wait, for what is
about to end by itself.
"""

import functools
import gc
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

Owner = ModuleType | type
Names = tuple[tuple[str, ...], list[object]]

START_SECONDS = 1.0  # for a process to have words
GRACE_SECONDS = 2.0  # for threads and processes that were told to end
LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_"))
SIGNALS = (  # not SIGCHLD, which torch's loaders handle for good
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGALRM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
OURS = tuple(sorted({name.split(".")[0] for name in PACKAGES} | {"benchmarks", "experiments"}))
FOREIGN = (
    "builtins",
    "gc",
    "os",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
)
"""Modules of others that tests patch."""
HIDDEN = re.compile(r"__(warningregistry|abstractmethods|slotnames)__|_abc_impl|__pydantic_.*|_name_sequence")
"""Names that Python and its libraries write as they go."""
KNOWN = (
    "multiprocessing.resource_tracker",  # a process that the first semaphore starts; it ends with this one
    "temporary .ses",  # ONNX Runtime's telemetry, where it is not switched off as make does
    "matplotlib/mpl-data/",  # its fonts, which stay open
    "weights.bin",  # which TensorRT-RTX keeps open where a build was stopped
    "thread tqdm_monitor",  # of progress bars that libraries show; it ends with the process
    "thread AnyIO worker thread",  # of the test client's pool; it ends by itself
)
"""Parts of names of what may be left."""
OF_SHARED_SERVER = ("thread zorro-session-",)  # which the first request starts of a server that tests share


@dataclass(frozen=True, slots=True)
class State:
    """What all tests in one process share."""

    things: frozenset[tuple[str, object]]
    """Threads, child processes, open files and entries of the temporary folder: a name of each, and what
    tells it apart."""
    settings: dict[str, object]
    names: dict[Owner, Names]
    """Names of modules and of their own classes, and the value of each."""

    @classmethod
    def now(cls) -> "State":
        """Return what there is now."""
        owners = [
            owner for name in _watched_modules(len(sys.modules)) for owner in _owners(sys.modules[name])
        ]
        return cls(
            things=frozenset([*_threads(), *_children(), *_open_files(), *_temporary_entries()]),
            settings=_settings(),
            names={owner: (tuple(x := vars(owner)), list(x.values())) for owner in owners},
        )


@functools.lru_cache(maxsize=1)
def _watched_modules(num_imported: int) -> list[str]:
    """Return names of modules; looked for again only when their number has changed."""
    return [x for x in sys.modules if x in FOREIGN or x.partition(".")[0] in OURS]


@functools.cache
def _owners(module: ModuleType) -> list[Owner]:
    """Return the module and its own classes."""
    name, values = module.__name__, vars(module).values()
    return [module, *(x for x in values if isinstance(x, type) and x.__module__ == name)]


def _threads() -> Iterator[tuple[str, object]]:
    for thread in threading.enumerate():
        yield f"thread {thread.name}", thread.ident


def _children() -> Iterator[tuple[str, object]]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return  # there is none, as nearly always
    for thread in os.listdir("/proc/self/task"):
        try:
            children = Path(f"/proc/self/task/{thread}/children").read_text().split()
        except FileNotFoundError:  # the thread has ended since
            continue
        for child in children:
            yield f"process {_command(child)}", int(child)


def _command(process: str) -> str:
    folder = Path("/proc", process)
    try:
        # A process that has just been started has no words for a moment, and one that has ended never again.
        deadline = time.monotonic() + START_SECONDS
        while not (words := (folder / "cmdline").read_bytes()) and time.monotonic() < deadline:
            if "\nState:\tZ" in (folder / "status").read_text():
                return f"{(folder / 'comm').read_text().strip()}, which has ended"
            time.sleep(0.001)
        return words.replace(b"\0", b" ").decode(errors="replace").strip()
    except FileNotFoundError:
        return f"{process}, which has ended since"


def _open_files() -> Iterator[tuple[str, object]]:
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
            yield f"open file {target}", int(descriptor)


def _temporary_entries() -> Iterator[tuple[str, object]]:
    for name in os.listdir(tempfile.gettempdir()):
        yield f"temporary {name}", None


def _settings() -> dict[str, object]:
    # pytest sets one for each test, and OpenMP's libraries set theirs when they are imported.
    changing = (b"PYTEST_CURRENT_TEST", b"KMP_")
    environment = {name: value for name, value in os.environb.items() if not name.startswith(changing)}
    return {
        "environment": environment,
        "working directory": os.getcwd(),
        "path of imports": tuple(sys.path),
        "signal handlers": {number.name: signal.getsignal(number) for number in SIGNALS},
        "limits": [resource.getrlimit(limit) for limit in LIMITS],
    }


def differences(before: State, after: State, known: Sequence[str] = KNOWN) -> list[str]:
    """Return what there is that was not there before, and what is no longer what it was."""
    found = [name for name, _ in after.things - before.things if not any(x in name for x in known)]
    found += [
        f"{name} changed: {_change(value, after.settings[name])}"
        for name, value in before.settings.items()
        if after.settings[name] != value
    ]
    if not _same(before.names, after.names):
        for owner, values in before.names.items():
            changed = _patched(values, after.names.get(owner, ((), [])))
            found += [f"patched {_full_name(owner)}.{name}" for name in changed]
    return sorted(found)


def _change(before: object, after: object) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = dict(before.items() - after.items()), dict(after.items() - before.items())
    return f"{after} instead of {before}"


def _full_name(owner: Owner) -> str:
    return owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"


def _same(before: object, after: object) -> bool:
    """Whether the two are equal: the fastest comparison by far, since it takes a thing for equal to
    itself."""
    try:
        return before == after
    except ValueError:  # two arrays
        return False


def _patched(before: Names, after: Names) -> list[str]:
    """Return the names that are gone or have another value, and new ones but for modules imported since."""
    old, new = dict(zip(*before, strict=True)), dict(zip(*after, strict=True))
    changed = {name for name in old if name not in new or new[name] is not old[name]}
    added = {name for name in new.keys() - old.keys() if not isinstance(new[name], ModuleType)}
    return sorted(name for name in changed | added if not HIDDEN.fullmatch(name))


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for temporary files of these tests alone: the machine's has those of others too."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv(
            "TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("torchinductor"))
        )  # else torch does
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def nothing_is_left(
    temporary_folder: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail a test that leaves something behind.

    It is set up before the test's other fixtures, and ends after them.
    """
    known = (*KNOWN, *(OF_SHARED_SERVER if "client" in request.fixturenames else ()))
    before = State.now()
    yield
    for record in caplog.get_records("call"):
        record.exc_info = None  # its frames hold what they worked on
    left = differences(before, State.now(), known)
    deadline = time.monotonic() + GRACE_SECONDS
    while left and time.monotonic() < deadline:
        gc.collect()  # what hangs in cycles alone: it may be one only after a thread has ended
        time.sleep(0.02)
        left = differences(before, State.now(), known)
    assert not left, f"left behind: {'; '.join(left)}"
