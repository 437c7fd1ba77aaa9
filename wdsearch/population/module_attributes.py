"""What a network keeps in plain attributes of its modules: neither parameter nor buffer, and so in no state dict."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_OF_TORCH = {*vars(nn.Module()), "training"}


def plain_attributes(module: nn.Module) -> dict[str, Any]:
    """Numbers, texts, tensors and collections of them by path; what begins with _ in the outermost module is Lightning's."""
    return {
        f"{path}.{name}": copy.copy(value)
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in _OF_TORCH and not (part is module and name.startswith("_")) and _is_plain(value)
    }


def restore_attributes(module: nn.Module, attributes: Mapping[str, Any]) -> None:
    """Set plain attributes as they were."""
    for place, value in attributes.items():
        path, _, name = place.rpartition(".")
        setattr(module.get_submodule(path), name, copy.copy(value))


def changed_attribute(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Path of one that is another now; None if all are the same."""
    return next((place for place, value in after.items() if not _same(value, before.get(place))), None)


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
