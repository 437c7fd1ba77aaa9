"""The options of optimizers as keys of a study file."""

import math
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from wdsearch.optimizers import OPTIMIZERS, Option
from wdsearch.study.fields import Number, Switch
from wdsearch.types import Interval

Section = TypeVar("Section", bound=BaseModel)


@cache
def with_optimizers(section: type[Section]) -> type[Section]:
    """A section whose `name` is an optimizer's, with the options of all optimizers; a key left empty is as if absent.

    >>> from wdsearch.study.schema import OptimizerConfig
    >>> with_optimizers(OptimizerConfig)(name="sgd", momentum=0.9).options
    {'momentum': 0.9}
    """
    known: Any = Literal[tuple(OPTIMIZERS)]
    default, about = section.model_fields["name"].default, section.model_fields["name"].description
    fields: dict[str, Any] = {"name": (known, Field(default, description=about))}
    for name, option in options_by_name().items():
        fields[name] = (_annotation(option) | None, Field(None, description=option.about))
    return create_model(section.__name__, __base__=section, __doc__=section.__doc__, **fields)


def options_by_name() -> dict[str, Option]:
    """The options of all optimizers; those of one name are one option.

    >>> options_by_name()["momentum"].default
    0.9
    """
    return {name: option for optimizer in OPTIMIZERS.values() for name, option in optimizer.options.items()}


def _annotation(option: Option) -> Any:
    if isinstance(option.default, bool):
        return Switch
    number = Annotated[Number, Field(**_bounds(option.domain))]
    return tuple[number, number] if isinstance(option.default, tuple) else number


def _bounds(domain: Interval) -> dict[str, float]:
    """An interval in pydantic's words."""
    bounds = {"gt" if domain.low_open else "ge": domain.low, "lt" if domain.high_open else "le": domain.high}
    return {word: bound for word, bound in bounds.items() if math.isfinite(bound)}
