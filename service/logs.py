"""The server's log: one JSON object per line on standard error."""

import logging
from datetime import UTC, datetime

import orjson


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: its message, or the `fields` of its `extra`, as for requests."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", None) or {"message": record.getMessage()}
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def log_to_stderr() -> None:
    """Write the records of the loggers below `zorro`, from level INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("zorro")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
