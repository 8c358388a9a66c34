"""Protobuf's text format, as far as a configuration of Triton needs it; written without a schema."""

from collections.abc import Mapping
from typing import Any

INDENT = "  "
Message = dict[str, Any]
"""Fields by name: dicts are messages, lists are repeated fields, `Word`s are values of enums."""


class Word(str):
    """A value of an enum, which is not quoted."""

    __slots__ = ()


def map_entries(values: Mapping[str, Any]) -> list[Message]:
    """A map field, which is a repeated message of `key` and `value`."""
    return [{"key": key, "value": value} for key, value in values.items()]


def render_text(message: Mapping[str, Any], indent: str = "") -> str:
    """`message` in protobuf's text format, fields in its order; empty lists are left out."""
    return "".join(_field(name, value, indent) for name, value in message.items())


def _field(name: str, value: Any, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{render_text(value, indent + INDENT)}{indent}}}\n"
    if isinstance(value, list):
        if all(isinstance(item, Mapping) for item in value):
            return "".join(_field(name, item, indent) for item in value)
        return f"{indent}{name}: [{', '.join(map(_scalar, value))}]\n"
    return f"{indent}{name}: {_scalar(value)}\n"


def _scalar(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | Word():
            return str(value)
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            return f'"{escaped}"'
        case _:
            raise TypeError(f"{value!r} is {type(value).__name__}; a field is a dict, list, str, int or bool")
