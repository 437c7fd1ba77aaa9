"""Pydantic's errors in the words of a study file: what was given, what is allowed, what to do."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError

from wdsearch.messages import did_you_mean, shown_path, shown_value
from wdsearch.study.file import Location

# pydantic puts the tried member of a union into the location
_MEMBER = re.compile(r"function-(before|after|plain|wrap)\[.*\]|constrained-.*|literal\[.*\]|int|float")
_ALLOWED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "a mapping",
    "string_too_long": "at most {max_length} characters",
    "string_type": "text (in quotes if it looks like a number)",
    "string_unicode": "text of whole characters",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}
_PATTERNS = {
    "study": "letters, digits and _ - . (not first)",
    "class_path": "package.module.Class",
    "name": "letters, digits and _ -",
}
_WORD = re.compile(r"'([^']*)'")


def _missing(location: Location) -> str:
    path, last = shown_path(location), location[-1]
    if isinstance(last, int):  # all our tuples are pairs
        return f"{path} is missing; {shown_path(location[:-1])} takes two values"
    return f"{path} is missing; add `{last}: ...`"


def invalid_keys(
    error: ValidationError,
    section: Location,
    unknown: Callable[[Location], str],
    missing: Callable[[Location], str] = _missing,
) -> Iterator[tuple[Location, str]]:
    """One fault for each key of a section: what the members of a union allow is joined by `or`.

    `unknown` and `missing` are the texts about a key that is not known, and about one that is needed.

    >>> from pydantic import BaseModel
    >>> class Limits(BaseModel, extra="forbid"):
    ...     cpus: int
    >>> try:
    ...     Limits(cpus="two", gpu=1)
    ... except ValidationError as error:
    ...     [text for _, text in invalid_keys(error, ("limits",), lambda key: f"{key[-1]} is not a limit")]
    ['gpu is not a limit', "limits.cpus is 'two'; allowed is a whole number"]
    """
    wrong: dict[Location, list[Any]] = {}
    for item in error.errors():
        inner = (key for key in item["loc"] if isinstance(key, int) or not _MEMBER.fullmatch(key))
        location = (*section, *inner)
        if item["type"] == "extra_forbidden":
            yield location, unknown(location)
        elif item["type"] == "missing":
            yield location, missing(location)
        else:
            wrong.setdefault(location, []).append(item)
    for location, items in wrong.items():
        yield location, _invalid(location, items)


def _invalid(location: Location, items: list[Any]) -> str:
    """The fault of one value, of which each member of a union may complain."""
    value = items[0]["input"]
    kinds = [_allowed(location, item) for item in items]
    verb = "are" if kinds[0].startswith("letters") else "is"
    words = _WORD.findall(" ".join(item["ctx"]["expected"] for item in items if item["type"] == "literal_error"))
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    return f"{shown_path(location)} is {shown_value(value)}; allowed {verb} {' or '.join(kinds)}{hint}"


def _allowed(location: Location, error: Any) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _PATTERNS[str(location[-1])]
    if kind == "model_type" and context["class_name"] in ("DataConfig", "Source", "Choice"):
        return "a name or a mapping"
    return _ALLOWED[kind].format(**context) if kind in _ALLOWED else error["msg"]
