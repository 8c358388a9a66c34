"""Coverage is measured by the tests of `media`, `runtime` and `service` alone.

Measuring makes Python half as slow again, which other tests, such as those that export, pay for nothing.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import coverage
import pytest

MEASURED = tuple(Path(__file__).parent / name for name in ("media", "runtime", "service"))


@contextmanager
def unmeasured() -> Iterator[None]:
    """As long as it lasts, coverage is not measured, if it was."""
    measuring = coverage.Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Set up, run and tear down a test, measured or not."""
    if any(item.path.is_relative_to(folder) for folder in MEASURED):
        return (yield)
    with unmeasured():
        return (yield)
