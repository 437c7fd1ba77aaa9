"""What an argument takes by its annotation, in a study file's words: for faults, lists and editors."""

import inspect
import re
from dataclasses import dataclass
from types import UnionType
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of value: what it is in Python, in words, and in JSON Schema."""

    types: type | UnionType
    words: str
    schema: dict[str, Any]


KINDS = {
    "int": Kind(int, "a whole number", {"type": "integer"}),
    "float": Kind(int | float, "a number", {"type": "number"}),
    "bool": Kind(bool, "true or false", {"type": "boolean"}),
    "str": Kind(str, "text", {"type": "string"}),
}
_LIST = re.compile(r"(?:Sequence|list)\[(\w+)\]|tuple\[(\w+), \.\.\.\]")
_PLURAL = {"int": "whole numbers", "float": "numbers", "bool": "true and false", "str": "texts"}


def annotation_of(parameter: inspect.Parameter) -> str:
    """A parameter's annotation as text, `` if it has none: `int | None`, `Sequence[int]`."""
    if parameter.annotation is parameter.empty:
        return ""
    return re.sub(r"\b(collections\.abc|typing)\.", "", inspect.formatannotation(parameter.annotation)).strip("'")


def fits(value: Any, annotation: str) -> bool:
    """Whether a value is what an annotation says; one that says more than plain kinds and lists of them is not judged."""
    parts = _parts(annotation)
    if not _is_plain(parts) or (value is None and "None" in annotation):
        return True
    return any(_is(value, part) for part in parts)


def allowed(annotation: str) -> str:
    """What an annotation allows, in words."""
    parts = _parts(annotation)
    return " or ".join(_words(part) for part in parts) if _is_plain(parts) else annotation


def as_json_schema(annotation: str) -> dict[str, Any]:
    """What an annotation allows; everything if it is not judged."""
    parts = _parts(annotation)
    if not _is_plain(parts):
        return {}
    schemas = [_schema(part) for part in parts] + ([{"type": "null"}] if "None" in annotation else [])
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _parts(annotation: str) -> list[str]:
    return [part.strip() for part in annotation.split("|") if part.strip() not in ("", "None")]


def _is_plain(parts: list[str]) -> bool:
    return bool(parts) and all((_item(part) or part) in KINDS for part in parts)


def _item(part: str) -> str | None:
    """The kind of a list's items; None for no list."""
    found = _LIST.fullmatch(part)
    return (found[1] or found[2]) if found else None


def _is(value: Any, part: str) -> bool:
    item = _item(part)
    if item is not None:
        return isinstance(value, list | tuple) and all(_is(entry, item) for entry in value)
    return isinstance(value, KINDS[part].types) and isinstance(value, bool) == (part == "bool")


def _words(part: str) -> str:
    item = _item(part)
    return f"a list of {_PLURAL[item]}" if item else KINDS[part].words


def _schema(part: str) -> dict[str, Any]:
    item = _item(part)
    return {"type": "array", "items": KINDS[item].schema} if item else KINDS[part].schema
