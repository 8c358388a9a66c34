"""The server's log: one JSON object per line on standard error, for people and for collectors alike."""

import json
import logging
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """A record as one line; a message that is JSON already, as those of requests are, becomes fields of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": record.levelname.lower(), "logger": record.name, **_fields(record.getMessage())}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Write what the loggers below `zorro` say, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("zorro")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _fields(message: str) -> dict[str, object]:
    try:
        fields = json.loads(message)
    except ValueError:
        return {"message": message}
    return fields if isinstance(fields, dict) else {"message": message}
