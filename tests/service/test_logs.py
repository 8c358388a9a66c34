"""Log lines are JSON, whatever is said and whatever went wrong."""

import json
import logging
from collections.abc import Iterator

import pytest

from service.logs import log_to_stderr


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The logger of the server, left as it was."""
    logger = logging.getLogger("zorro")
    before = logger.handlers, logger.level, logger.propagate
    yield logger
    logger.handlers, logger.level, logger.propagate = before[0], before[1], before[2]


def _lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_json(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    log_to_stderr()  # twice is once
    logging.getLogger("zorro.access").info("request", extra={"fields": {"request_id": "mine", "status": 200}})
    logging.getLogger("zorro.service").error("two\nlines")
    logging.getLogger("zorro.service").debug("not asked for")
    logging.getLogger("zorro.service").info("[1, 2]")
    access, error, listed = _lines(capsys.readouterr().err)
    assert (access["request_id"], access["status"], access["logger"]) == ("mine", 200, "zorro.access")
    assert (error["message"], error["level"]) == ("two\nlines", "error")
    assert str(error["time"]).endswith("+00:00")
    assert listed["message"] == "[1, 2]"


def test_an_exception_stays_on_its_line(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("zorro.service").exception("it failed")
    (line,) = _lines(capsys.readouterr().err)
    assert "ZeroDivisionError" in str(line["exception"])
