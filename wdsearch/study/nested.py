"""Arguments that are objects: `class_path` and `init_args` within `init_args`, and single keys within mappings."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from wdsearch.errors import BuildError
from wdsearch.study.annotations import annotation_of
from wdsearch.study.import_path import import_path, why_not

KEYS = {"class_path", "init_args"}


def is_nested(value: Any) -> bool:
    """True for a mapping that names a class.

    >>> is_nested({"class_path": "torch.nn.Linear", "init_args": {"in_features": 2}}), is_nested({"lr": 0.1})
    (True, False)
    """
    return isinstance(value, Mapping) and "class_path" in value and set(value) <= KEYS


def instantiated(
    builder: Callable[..., Any], arguments: Mapping[str, Any], folder: Path | None, key: str = "model"
) -> dict[str, Any]:
    """Arguments of a builder, those that name a class replaced by its objects, in lists and mappings as well.

    Optimizers, schedulers, and what the builder annotates as Callable, become functions that wait for their further
    arguments. An argument that is annotated as a mapping stays one. Raises BuildError.

    >>> def build(net, config: dict): ...
    >>> linear = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 1}}
    >>> instantiated(build, {"net": linear, "config": {"lr": 0.1}}, None)
    {'net': Linear(in_features=2, out_features=1, bias=True), 'config': {'lr': 0.1}}
    """
    annotations = _annotations(builder)
    return {
        name: value
        if annotations.get(name, "").split("[")[0].lower().endswith(("dict", "mapping"))
        else _built(f"{key}.init_args.{name}", value, folder, "Callable" in annotations.get(name, ""))
        for name, value in arguments.items()
    }


def with_values(arguments: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with values set, where a key with dots names one within mappings.

    >>> with_values({"config": {"lr": 0.1, "depth": 2}}, {"config.lr": 0.5, "width": 8})
    {'config': {'lr': 0.5, 'depth': 2}, 'width': 8}
    """
    whole = copy.deepcopy(dict(arguments))
    for key, value in values.items():
        *outer, last = key.split(".")
        inner = whole
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return whole


def nested_faults(value: Any, where: str, folder: Path | None) -> Iterator[str]:
    """Faults of the classes that an argument names.

    >>> next(nested_faults({"class_path": "torch.nn.Linea"}, "model.init_args.net", None))
    'model.init_args.net.class_path is torch.nn.Linea; the module torch.nn has no Linea; did you mean Linear? ...'
    """
    if is_nested(value):
        try:
            known = callable(import_path(str(value["class_path"]), folder))
        except (Exception, SystemExit):  # whatever a user's module raises when it is imported
            known = False
        if not known:
            path = str(value["class_path"])
            yield f"{where}.class_path is {path}; {why_not(path, folder)}"
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inner:
        yield from nested_faults(part, f"{where}.{name}", folder)


def _annotations(builder: Callable[..., Any]) -> dict[str, str]:
    try:
        return {name: annotation_of(one) for name, one in inspect.signature(builder).parameters.items()}
    except (TypeError, ValueError):
        return {}


def _built(where: str, value: Any, folder: Path | None, waits: bool = False) -> Any:
    if isinstance(value, list):
        return [_built(f"{where}.{index}", part, folder) for index, part in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    parts = {name: _built(f"{where}.{name}", part, folder) for name, part in value.items() if name != "class_path"}
    if not is_nested(value):
        return parts
    path = str(value["class_path"])
    arguments = parts.get("init_args") or {}
    try:
        kind = import_path(path, folder)
        later = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
        if waits or (inspect.isclass(kind) and issubclass(kind, later)):
            return functools.partial(kind, **arguments)
        return kind(**arguments)
    except Exception as error:  # whatever a user's constructor raises
        shown = ", ".join(f"{name}={argument!r}" for name, argument in arguments.items())
        raise BuildError(f"{where}: {path}({shown}) cannot be built: {type(error).__name__}: {error}") from error
