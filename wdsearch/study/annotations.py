"""Values that an argument takes by its annotation, in a study file's words: for faults, lists and editors.

Judged are plain kinds and lists of them; an annotation that says more allows everything.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from wdsearch.messages import nearest, shown_path, shown_value

_NAMES = {"int": int, "float": float, "bool": bool, "str": str, "list": list, "Sequence": Sequence, "None": None}
_WORDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
_PLURALS = {"integer": "whole numbers", "number": "numbers", "boolean": "true and false", "string": "texts"}
_TUPLE = re.compile(r"tuple\[(\w+), \.\.\.\]")


def annotation_of(parameter: inspect.Parameter) -> str:
    """A parameter's annotation as text, `` if it has none: `int | None`, `Sequence[int]`.

    >>> def mlp(hidden: Sequence[int] = (64,)): ...
    >>> annotation_of(inspect.signature(mlp).parameters["hidden"])
    'Sequence[int]'
    """
    if parameter.annotation is parameter.empty:
        return ""
    return re.sub(r"\b(collections\.abc|typing)\.", "", inspect.formatannotation(parameter.annotation)).strip("'")


def keyword_only(builder: Callable[..., Any]) -> dict[str, str]:
    """Annotations of a builder's keyword-only arguments.

    >>> def build(path, *, folder: str, limit: int = 3): ...
    >>> keyword_only(build)
    {'folder': 'str', 'limit': 'int'}
    """
    parameters = inspect.signature(builder).parameters.values()
    return {p.name: annotation_of(p) for p in parameters if p.kind is p.KEYWORD_ONLY}


def option_faults(
    section: tuple[str, ...], owner: str, options: Mapping[str, Any], known: Mapping[str, str]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Faults of the options beside a name in a section, each with its key; `known` are the owner's options and their annotations.

    >>> dict(option_faults(("tracking",), "jsonl", {"foldr": "records"}, {"folder": "str"}))
    {('tracking', 'foldr'): 'tracking.foldr is not an option of jsonl; did you mean folder? known: folder'}
    """
    for name, value in options.items():
        location = (*section, name)
        if name not in known:
            yield location, f"{shown_path(location)} is not an option of {owner}{nearest(name, known)}"
        elif not fits(value, known[name]):
            yield location, f"{shown_path(location)} is {shown_value(value)}; allowed is {allowed(known[name])}"


def fits(value: Any, annotation: str) -> bool:
    """Test of a value against an annotation.

    >>> fits(3, "float"), fits(True, "int"), fits([8, 8], "Sequence[int]"), fits("?", "Callable[[int], int]")
    (True, False, True, True)
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return True
    try:
        adapter.validate_python(list(value) if isinstance(value, tuple) else value)
    except ValidationError:
        return False
    return True


def allowed(annotation: str) -> str:
    """Words for what an annotation allows.

    >>> allowed("int | None"), allowed("tuple[float, ...]")
    ('a whole number', 'a list of numbers')
    """
    kinds = [_words(kind) for kind in _kinds(as_json_schema(annotation)) if kind != {"type": "null"}]
    return " or ".join(kinds) or annotation


def as_json_schema(annotation: str) -> dict[str, Any]:
    """Schema of what an annotation allows; an empty one allows everything.

    >>> as_json_schema("float | None")
    {'anyOf': [{'type': 'number'}, {'type': 'null'}]}
    """
    adapter = _adapter(annotation)
    schema: dict[str, Any] = {} if adapter is None else adapter.json_schema()
    return schema


@cache
def _adapter(annotation: str) -> Any:
    """Pydantic's TypeAdapter of an annotation; None if it is not judged."""
    plain = _TUPLE.sub(r"list[\1]", annotation)
    if not plain or not set(re.findall(r"[^\s|\[\]]+", plain)) <= _NAMES.keys():
        return None
    adapter: Any = TypeAdapter(eval(plain, dict(_NAMES)), config=ConfigDict(strict=True))  # of names in the table alone
    known = all(_is_known(kind) for kind in _kinds(adapter.json_schema()))
    return adapter if known else None


def _kinds(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return list(schema.get("anyOf", [schema] if schema else []))


def _is_known(kind: dict[str, Any]) -> bool:
    return kind["type"] in ("null", *_WORDS) or kind.get("items", {}).get("type") in _WORDS


def _words(kind: dict[str, Any]) -> str:
    return f"a list of {_PLURALS[kind['items']['type']]}" if kind["type"] == "array" else _WORDS[kind["type"]]
