"""Plain attributes of modules, which a state dict lacks: neither parameters nor buffers."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_OF_TORCH = {*vars(nn.Module()), "training"}


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Numbers, strings, tensors and collections of them by path, without the private ones of the outermost module (Lightning's).

    >>> plain_attributes(nn.Sequential(nn.Dropout(0.5)))
    {'0.p': 0.5, '0.inplace': False}
    """
    return {
        f"{path}.{name}": copy.copy(value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in _OF_TORCH and not (part is module and name.startswith("_")) and _is_plain(value)
    }


def restore_attributes(module: nn.Module, attributes: Mapping[str, Any]) -> None:
    """Set plain attributes to saved values.

    >>> network = nn.Sequential(nn.Dropout(0.5))
    >>> restore_attributes(network, {"0.p": 0.25})
    >>> network[0].p
    0.25
    """
    for full_name, value in attributes.items():
        path, _, name = full_name.rpartition(".")
        setattr(module.get_submodule(path), name, copy.copy(value))


def changed_attribute(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Path of the first attribute whose value changed; None if there is none.

    >>> changed_attribute({"0.calls": 1, "0.p": 0.5}, {"0.calls": 2, "0.p": 0.5})
    '0.calls'
    """
    return next((path for path, value in after.items() if not _same(value, before.get(path))), None)


def _is_plain(value: Any) -> bool:
    if isinstance(value, nn.Parameter):
        return False
    if isinstance(value, list | tuple | set):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str | Tensor)


def _same(first: Any, second: Any) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.equal(second)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    return bool(first == second)
