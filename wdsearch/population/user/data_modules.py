"""Data modules of `lightning` and `pytorch_lightning`, each as the other package knows it."""

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from wdsearch.population.user.framework import framework_of


def data_for(framework: Any, data: Any) -> Any:
    """A trial's own data module for a Trainer of a framework; rows are shared, attributes and generators are its own.

    >>> import lightning as L
    >>> data = L.LightningDataModule()
    >>> own = data_for(L.pytorch, data)
    >>> own is data, type(own) is type(data)
    (False, True)
    """
    own = copy.copy(data._data if isinstance(data, _Adapter) else data)
    own.trainer, own._log_hyperparams = None, False  # hyperparameters of module and data may then have the same names
    for name, value in list(vars(own).items()):
        if isinstance(value, torch.Generator):
            setattr(own, name, value.clone_state())
    return adapted(framework, own)


def adapted(framework: Any, data: Any) -> Any:
    """A data module as a framework knows it: itself, or one whose overridden hooks call those of the other package's.

    >>> import lightning as L
    >>> adapted(L.pytorch, data := L.LightningDataModule()) is data
    True
    """
    if framework is framework_of(data):
        return data
    base = framework.LightningDataModule
    theirs = framework_of(data).LightningDataModule
    hooks = [name for name in dir(base) if not name.startswith("_") and callable(getattr(base, name))]
    overridden = [name for name in hooks if getattr(type(data), name) is not getattr(theirs, name, None)]
    calls = {name: _forwarding(name) for name in overridden if name in _CALLED}
    adapter: Any = type(type(data).__name__, (_Adapter, base), calls | {"_framework": framework.__name__})
    return adapter(data)


_CALLED = {
    "prepare_data", "setup", "teardown", "train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader",
    "transfer_batch_to_device", "on_before_batch_transfer", "on_after_batch_transfer", "on_exception", "state_dict",
    "load_state_dict",
}  # fmt: skip
"""Hooks of a data module that a Trainer calls."""


def _forwarding(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._data.trainer = self.trainer
        return getattr(self._data, name)(*args, **kwargs)

    return call


class _Adapter:
    """Attributes of a data module of the other package."""

    _framework = ""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self._data = data

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_data":
            raise AttributeError(name)
        return getattr(self._data, name)

    def __reduce__(self) -> Any:
        return _rebuilt, (self._framework, self._data)


def _rebuilt(framework: str, data: Any) -> Any:
    return adapted(import_module(framework), data)
