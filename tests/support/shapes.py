"""Shapes of tensors are checked at the first calls of each function in each test file: at all calls it costs a third."""

import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

CONF = BeartypeConf(is_pep484_tower=True, claw_is_pep526=False)
CALLS = 50
_calls: Counter[Callable[..., Any]] = Counter()
_spared: list[Callable[..., Any]] = []


def checked(signature: Callable[..., Any]) -> Callable[..., Any]:
    """Check of a function's arguments or result for jaxtyping; `signature` has its name and types, and does nothing."""
    check = beartype(conf=CONF)(signature)

    @functools.wraps(check)
    def counted(*args: Any, **kwargs: Any) -> Any:
        _calls[check] += 1
        if _calls[check] == CALLS:
            _spare(signature.__module__, signature.__qualname__)
        return check(*args, **kwargs)

    return counted


def check_again() -> None:
    """Count calls from nought."""
    _calls.clear()
    for function in _spared:
        function.__dict__.pop("__no_type_check__", None)
    _spared.clear()


def _spare(module: str, name: str) -> None:
    """Mark a function, and what is around it, as jaxtyping asks for at each call; one within another function is not found."""
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None)
    found = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
    while found is not None:
        found.__no_type_check__ = True
        _spared.append(found)
        found = getattr(found, "__wrapped__", None)
