"""Values and small sections of a study file, as pydantic checks them."""

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    model_serializer,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


def _finite(value: Any) -> Any:
    """A number as it was written: no text, no boolean, no NaN, nothing that a float cannot hold."""
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
        return value
    raise PydanticCustomError("allowed", "a finite number")


Bound = Annotated[int | float, BeforeValidator(_finite)]
Number = Annotated[float, BeforeValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**128, strict=True)]
Switch = Annotated[bool, Field(strict=True)]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _regex(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise PydanticCustomError(
            "allowed", "a regular expression of Python ({error})", {"error": str(error)}
        ) from None
    return pattern


Regex = Annotated[str, AfterValidator(_regex)]
Names = Annotated[list[str], BeforeValidator(_several, json_schema_input_type=str | list[str])]


@dataclass(frozen=True)
class OwnOr:
    """Annotates what is written as a section, or as its `name` alone, or comes from Python as an own object."""

    section: type[BaseModel]

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_wrap_validator_function(
            _own_or,
            handler(self.section),
            serialization=core_schema.plain_serializer_function_ser_schema(_dumped, info_arg=True),
            json_schema_input_schema=core_schema.union_schema([core_schema.str_schema(), handler(self.section)]),
        )


def _own_or(value: Any, section: Any) -> Any:
    if isinstance(value, str):
        return section({"name": value})
    written = value is None or isinstance(value, Mapping | BaseModel | list | int | float)
    return section(value) if written else value


def _dumped(value: Any, info: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(exclude_unset=info.exclude_unset)
    return None if value is None else type(value).__name__


def _bits(value: Any) -> Any:
    return 32 if value == "auto" else value


_Bits = Literal[32, 64, "bf16-mixed"]
Precision = Annotated[_Bits, BeforeValidator(_bits, json_schema_input_type=Literal["auto"] | _Bits)]
Rule = Literal["weights", "all"]


class DecayConfig(BaseModel):
    """The parameters that decay: those of a rule, with some, without others, by regular expressions over their names."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
    rule: Rule = "weights"
    """`weights` (no biases, norm scales, embeddings), or `all`."""
    include: list[Regex] = []
    """Parameters that decay as well: regular expressions, found anywhere in a name."""
    exclude: list[Regex] = []
    """Parameters that do not decay, whatever else says so: regular expressions, found anywhere in a name."""

    @model_serializer(mode="wrap")
    def _as_written(self, handler: Callable[[Any], Any]) -> Any:
        """A rule without exceptions is a word."""
        return handler(self) if self.include or self.exclude else self.rule


def ruled(value: Any) -> Any:
    """A word as a rule without exceptions.

    >>> ruled("all"), ruled({"exclude": ["norm"]})
    ({'rule': 'all'}, {'exclude': ['norm']})
    """
    return {"rule": value} if isinstance(value, str) else value


def plain(value: Any) -> Any:
    """A value as JSON can hold it; objects by the names of their types.

    >>> plain({"high": float("inf"), "model": object()})
    {'high': 'inf', 'model': 'object'}
    """
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__
