"""The server's log: one JSON object per line on standard error, for people and for collectors alike."""

import logging
from datetime import UTC, datetime

import orjson


class JsonFormatter(logging.Formatter):
    """A record as one line: its message, or what stands in `fields` of its `extra`, as with requests."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", None) or {"message": record.getMessage()}
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, **fields}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def log_to_stderr() -> None:
    """Write what the loggers below `zorro` say, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("zorro")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
