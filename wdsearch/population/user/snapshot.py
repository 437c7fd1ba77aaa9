"""Snapshot of everything a training can reach in Python, restored in place: what ran in between leaves no trace."""

import functools
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset

Restore = Callable[[], None]
ATOMS = (
    int, float, complex, str, bytes, type(None), ModuleType, BuiltinFunctionType, CodeType, FrameType, GeneratorType,
    torch.dtype, torch.device, torch.Size,
)  # fmt: skip
LEFT_ALONE = (DataLoader, Dataset)
LIBRARIES = {"lightning", "lightning_utilities", "numpy", "pytorch_lightning", "torch", "torchmetrics", "wdsearch"}
LIBRARIES |= sys.stdlib_module_names
"""Packages whose classes hold nothing of a training."""
_TOOLS = ("threading", "multiprocessing", "logging", "weakref", "torch._dynamo", "torch._inductor", "torch.fx")
_MISSING = object()


class Snapshot:
    """State of all objects that `roots` refer to, through attributes, containers, closures, methods and classes of users.

    Tensors are cloned; data sets and loaders, and the objects in `apart`, are left alone. What Python cannot look into,
    such as a half-used iterator, is not restored.

    >>> class Model:
    ...     pass
    >>> model = Model()
    >>> model.losses, model.weight = [1.0], torch.ones(2)
    >>> snapshot = Snapshot([model])
    >>> model.losses.append(2.0), model.weight.mul_(3.0), setattr(model, "extra", 1)
    (None, tensor([3., 3.]), None)
    >>> snapshot.restore()
    >>> vars(model)
    {'losses': [1.0], 'weight': tensor([1., 1.])}
    """

    def __init__(self, roots: Iterable[Any], apart: Iterable[Any] = ()) -> None:
        self._restores: list[Restore] = []
        self._apart = list(apart)
        self._reached: dict[int, Any] = {id(value): value for value in self._apart}  # ids stay those of living objects
        waiting = list(roots)
        while waiting:
            value = waiting.pop()
            if not isinstance(value, ATOMS) and id(value) not in self._reached:
                self._reached[id(value)] = value
                waiting.extend(self._record(value))

    @torch.inference_mode()  # tensors born in inference mode cannot be written outside it
    def restore(self) -> None:
        """Set every object to its recorded state."""
        for restore in self._restores:
            restore()

    def _record(self, value: Any) -> list[Any]:
        """Objects that a value refers to, after its own state has been recorded."""
        if isinstance(value, LEFT_ALONE) or str(type(value).__module__).startswith(_TOOLS):
            return []
        if isinstance(value, type):
            return self._of_class(value)
        children = [*self._contents(value), *self._attributes(value), type(value)]
        if isinstance(value, nn.Module):  # those of scripted modules are no attributes
            children += [*value.parameters(recurse=False), *value.buffers(recurse=False)]
        return children

    def _contents(self, value: Any) -> list[Any]:
        """Items of a container, cells of a function, and so on."""
        restore, children = _contents(value)
        if restore is not None:
            self._restores.append(restore)
        return children

    def _attributes(self, value: Any) -> list[Any]:
        """Values of the attributes, those in slots included."""
        children = []
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            restore, items = _contents(attributes)
            assert restore is not None
            self._restores.append(restore)
            children += items
        for owner, name in _slots(type(value)):
            slot = owner.__dict__[name]
            try:
                held = slot.__get__(value)
            except AttributeError:
                continue
            self._restores.append(functools.partial(_set_slot, slot, value, held))
            children.append(held)
        return children

    def _of_class(self, kind: type) -> list[Any]:
        """Data of a user's class, which its instances share."""
        if str(kind.__module__).partition(".")[0] in LIBRARIES:
            return []
        own = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
        data = {name: value for name, value in own.items() if not hasattr(type(value), "__get__")}
        self._restores.append(functools.partial(_set_class, kind, data))
        return [*data.values(), *(base for base in kind.__bases__)]


def _contents(value: Any) -> tuple[Restore | None, list[Any]]:
    """Function that restores a value's contents, if it can change, and the objects in it."""
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, dict):
        return functools.partial(_set_dict, value, dict(value)), [*value.keys(), *value.values()]
    if isinstance(value, list | deque | bytearray):
        return functools.partial(_set_sequence, value, list(value)), list(value)
    if isinstance(value, set):
        return functools.partial(_set_set, value, set(value)), list(value)
    if isinstance(value, CellType):
        return _cell(value)
    if isinstance(value, np.ndarray):
        return functools.partial(np.copyto, value, value.copy()) if value.flags.writeable else None, []
    return _generator(value), _immutable(value)


def _immutable(value: Any) -> list[Any]:
    """Objects within a tuple, a frozen set, a method, a partial or a function."""
    if isinstance(value, tuple | frozenset):
        return list(value)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, FunctionType):
        return [*(value.__closure__ or ()), value.__defaults__, value.__kwdefaults__]
    return []


def _generator(value: Any) -> Restore | None:
    """Function that rewinds a random generator; None for anything else."""
    if isinstance(value, torch.Generator):
        return functools.partial(_rewind, value, value.get_state())
    if isinstance(value, random.Random):
        return functools.partial(value.setstate, value.getstate())
    if isinstance(value, np.random.RandomState):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return functools.partial(setattr, bits, "state", bits.state)
    return None


def _rewind(generator: torch.Generator, state: Tensor) -> None:
    generator.set_state(state)


def _tensor(value: Tensor) -> tuple[Restore | None, list[Any]]:
    gradient = value.grad if value.is_leaf else None
    overlaps = any(step == 0 and size > 1 for step, size in zip(_strides(value), value.shape, strict=False))
    if is_lazy(value) or overlaps:
        return None, []
    storage = value.detach()
    return functools.partial(_set_tensor, value, storage, storage.clone(), gradient), [gradient]


def _strides(value: Tensor) -> tuple[int, ...]:
    return value.stride() if value.layout == torch.strided else ()


def _set_tensor(value: Tensor, storage: Tensor, content: Tensor, gradient: Tensor | None) -> None:
    if value.layout != torch.strided:
        value.data = content
    else:
        if value.data_ptr() != storage.data_ptr() or value.shape != storage.shape:
            value.data = storage
        storage.data.copy_(content)  # by `data`: autograd does not count it as a change
    if value.is_leaf and value.grad is not gradient:
        value.grad = gradient


def _set_dict(value: dict[Any, Any], items: dict[Any, Any]) -> None:
    kind: Any = OrderedDict if isinstance(value, OrderedDict) else dict  # a subclass may do more when an item is set
    if len(value) != len(items) or any(kind.get(value, key, _MISSING) is not item for key, item in items.items()):
        kind.clear(value)
        kind.update(value, items)


def _set_sequence(value: Any, items: list[Any]) -> None:
    if len(value) == len(items) and all(one is other for one, other in zip(value, items, strict=True)):
        return
    if isinstance(value, list):
        list.__setitem__(value, slice(None), items)
    else:
        value.clear()
        value.extend(items)


def _set_set(value: set[Any], items: set[Any]) -> None:
    if value != items:
        set.clear(value)
        set.update(value, items)


def _cell(value: CellType) -> tuple[Restore | None, list[Any]]:
    try:
        content = value.cell_contents
    except ValueError:  # empty so far
        return None, []
    return functools.partial(setattr, value, "cell_contents", content), [content]


def _slots(kind: type) -> Iterator[tuple[type, str]]:
    for owner in kind.__mro__:
        names = owner.__dict__.get("__slots__", ()) if owner.__module__ != "builtins" else ()
        for name in [names] if isinstance(names, str) else names:
            if hasattr(owner.__dict__.get(name), "__set__"):
                yield owner, name


def _set_slot(slot: Any, value: Any, held: Any) -> None:
    if slot.__get__(value) is not held:
        slot.__set__(value, held)


def _set_class(kind: type, data: dict[str, Any]) -> None:
    for name, value in data.items():
        if vars(kind).get(name, _MISSING) is not value:
            setattr(kind, name, value)
