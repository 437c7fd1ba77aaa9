"""Recognition of Lightning's classes: `lightning` and `pytorch_lightning` hold the same ones, which do not know each other."""

from importlib import import_module
from types import ModuleType
from typing import Any

PACKAGES = ("lightning", "pytorch_lightning")


def lightning_base(kind: Any, name: str) -> type | None:
    """Lightning's own class of this name, of either package, from which a class derives; None if there is none.

    >>> import lightning as L
    >>> lightning_base(L.Trainer, "LightningModule")
    >>> lightning_base(type("Mine", (L.LightningModule,), {}), "LightningModule").__module__
    'lightning.pytorch.core.module'
    """
    bases = kind.__mro__ if isinstance(kind, type) else ()
    return next((base for base in bases if base.__name__ == name and _package(base) in PACKAGES), None)


def is_lightning_module(value: Any) -> bool:
    """True for an instance of a LightningModule of either package, also within `torch.compile`.

    >>> import lightning as L, torch
    >>> is_lightning_module(L.LightningModule()), is_lightning_module(torch.nn.Linear(2, 1))
    (True, False)
    """
    return lightning_base(type(_uncompiled(value)), "LightningModule") is not None


def is_data_module(value: Any) -> bool:
    """True for an instance of a LightningDataModule of either package.

    >>> import lightning as L
    >>> is_data_module(L.LightningDataModule()), is_data_module(L.LightningModule())
    (True, False)
    """
    return lightning_base(type(value), "LightningDataModule") is not None


def framework_of(value: Any) -> ModuleType:
    """Package that trains a LightningModule or takes a data module: `lightning.pytorch` or `pytorch_lightning`.

    >>> import lightning as L
    >>> framework_of(L.LightningModule()).__name__
    'lightning.pytorch'
    """
    bases = (lightning_base(type(value), name) for name in ("LightningModule", "LightningDataModule"))
    packages = [_package(base) for base in bases if base is not None]
    return import_module("pytorch_lightning" if packages[:1] == ["pytorch_lightning"] else "lightning.pytorch")


def foreign_callbacks(trainer: Any) -> list[str]:
    """Names of a Trainer's callbacks that are of the other package: those that watch a training work all the same.

    >>> import lightning as L
    >>> foreign_callbacks(L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))
    []
    """
    own = _package(type(trainer))
    bases = {type(one).__name__: lightning_base(type(one), "Callback") for one in trainer.callbacks}
    return [name for name, base in bases.items() if base is not None and _package(base) != own]


def _uncompiled(value: Any) -> Any:
    """Module within what `torch.compile` makes of it."""
    return getattr(value, "_orig_mod", value)


def _package(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]
