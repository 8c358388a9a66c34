"""The committed description of the API: `python -m service.openapi > docs/openapi.json`."""

import json
import sys

from .app import create_app
from .settings import Settings


def describe_api() -> str:
    """The app's OpenAPI description as text, the same on every machine; no model is opened."""
    return json.dumps(create_app(Settings()).openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(describe_api())
