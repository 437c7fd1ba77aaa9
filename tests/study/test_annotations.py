"""Values that an argument takes, by its annotation alone."""

import doctest
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from wdsearch.study import annotations
from wdsearch.study.annotations import allowed, as_json_schema, fits

WORDS = {
    "int": "a whole number",
    "int | None": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str | None": "text",
    "Sequence[int]": "a list of whole numbers",
    "tuple[float, ...]": "a list of numbers",
    "list[str] | None": "a list of texts",
    "int | Sequence[int]": "a whole number or a list of whole numbers",
}
VALUES: list[Any] = [1, 1.5, True, None, "a", "1", [], [1], [1, 2.5], ["a"], [True], [[1]], {}]
NOT_JUDGED = [
    "",
    "dict[str, int]",
    "Callable[[int], int]",
    "tuple[int, int]",
    "list",
    "list[list[int]]",
    "Literal['a']",
]


@pytest.mark.parametrize("annotation", WORDS)
def test_a_kind_is_said_and_judged_as_its_schema_says(annotation: str) -> None:
    assert allowed(annotation) == WORDS[annotation]
    schema = Draft202012Validator(as_json_schema(annotation))
    assert {repr(value): fits(value, annotation) for value in VALUES} == {
        repr(value): schema.is_valid(value) for value in VALUES
    }


def test_a_list_may_be_a_tuple_in_python() -> None:
    assert fits((8, 8), "Sequence[int]")
    assert fits((0.9, 0.99), "tuple[float, ...]")
    assert not fits(("a",), "list[int]")


@pytest.mark.parametrize("annotation", NOT_JUDGED)
def test_what_says_more_allows_everything(annotation: str) -> None:
    assert all(fits(value, annotation) for value in VALUES)
    assert as_json_schema(annotation) == {}
    assert allowed(annotation) == annotation


def test_the_examples_run() -> None:
    assert doctest.testmod(annotations).failed == 0
