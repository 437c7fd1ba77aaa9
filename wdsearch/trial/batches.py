"""The only file that knows the forms of a batch, and splits it into the network's arguments and the targets."""

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from wdsearch.errors import WdsearchError

Batch = Any
"""`(inputs, targets)`, `(first, second, ..., targets)`, a mapping or object that names its targets, or what users split."""

TARGETS = ("targets", "target", "labels", "label", "label_ids", "y", "classes", "class")
"""Keys under which a mapping, or attributes under which an object, may hold its targets."""
WHOLE = ("batch", "data", "graph", "g", "inputs")
"""Names of a network's only argument that mean an object as a whole, whatever attributes it has."""
REMEDY = "override split in a subclass of RegularizedModule, which gives wdsearch.Inputs and the targets"


class BatchError(WdsearchError):
    """A batch of a form in which the targets cannot be told from the inputs."""

    exit_code = 1


@runtime_checkable
class Cloneable(Protocol):
    """A part of a batch that copies itself: a tensor, or a graph of PyTorch Geometric."""

    def clone(self) -> Any:
        """Copy of its tensors."""


@runtime_checkable
class Movable(Protocol):
    """A part of a batch that Lightning moves between devices: a tensor, or an object that holds some."""

    def to(self, device: Any, /) -> Any:
        """The part on a device."""


class Inputs(NamedTuple):
    """Arguments of a network: tensors, or collections of them, by position and by name.

    >>> import torch
    >>> Inputs((torch.tensor(2.0), torch.tensor(3))).map(lambda x: x / 4).args
    (tensor(0.5000), tensor(3))
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Copy with every tensor of floating point changed; class numbers, masks and texts stay."""

        return Inputs(*changed((self.args, self.kwargs), lambda x: change(x) if x.is_floating_point() else x))


def changed(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Copy of a batch with every tensor changed: of collections, of graphs, and of objects that have `.to`.

    >>> changed({"x": torch.ones(2), "path": ["a", "b"]}, lambda x: x / 4)
    {'x': tensor([0.2500, 0.2500]), 'path': ['a', 'b']}
    """
    return apply_to_collection(batch, (Tensor, Movable), partial(_changed_part, change))


def _changed_part(change: Callable[[Tensor], Tensor], part: Any) -> Any:
    if isinstance(part, Tensor):
        return change(part)
    if isinstance(part, tuple):  # a PackedSequence
        return apply_to_collection(part, Tensor, change)
    twin = copy.copy(part)
    if hasattr(twin, "apply"):  # of a graph
        return twin.apply(change)
    vars(twin).update({name: changed(value, change) for name, value in vars(part).items()})
    return twin


def split_batch(batch: Batch) -> tuple[Inputs, Shaped[Tensor, "batch ..."]]:
    """Inputs and targets of a batch: the last of several tensors, or a mapping's entry or attribute of one of the `TARGETS`.

    The other entries of a mapping are the network's arguments of these names. Raises BatchError.

    >>> import torch
    >>> inputs, targets = split_batch({"x": torch.zeros(2, 3), "label": torch.tensor([0, 1])})
    >>> list(inputs.kwargs), targets
    (['x'], tensor([0, 1]))
    """
    if isinstance(batch, Mapping):
        keys = [key for key in TARGETS if key in batch]
        if len(keys) == 1:
            return Inputs((), {key: value for key, value in batch.items() if key != keys[0]}), batch[keys[0]]
        mistake = f"has {' and '.join(keys) or 'none'} among its keys {', '.join(map(str, batch))}"
        raise BatchError(
            f"a batch that is a mapping holds its targets under one of {', '.join(TARGETS)}; this {mistake}; else {REMEDY}"
        )
    if _holds_targets(batch):
        return Inputs((batch,), {}), next(getattr(batch, key) for key in TARGETS if _has_tensor(batch, key))
    if isinstance(batch, Sequence) and len(batch) >= 2 and isinstance(batch[-1], Tensor):
        return Inputs(tuple(batch[:-1])), batch[-1]
    kinds = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, Sequence) else ""
    text = f"a batch is (inputs, targets), (first, second, ..., targets) or a mapping; this is {type(batch).__name__}"
    raise BatchError(f"{text}{f' of {kinds}' if kinds else ''}; else {REMEDY}")


def _has_tensor(batch: Any, key: str) -> bool:
    return isinstance(getattr(batch, key, None), Tensor)


def _holds_targets(batch: Any) -> bool:
    """True for an object with targets among its attributes that can be moved, as the graphs of PyTorch Geometric."""
    is_collection = isinstance(batch, Mapping | Sequence | Tensor)
    is_movable = isinstance(batch, Movable) or is_dataclass(batch)
    return not is_collection and is_movable and any(_has_tensor(batch, key) for key in TARGETS)


def fitting(inputs: Inputs, forward: Callable[..., Any]) -> Inputs:
    """Those of a mapping's entries that a network's `forward` takes; file names, numbers of rows and the like are left out.

    A single tensor or entry goes to a `forward` with one argument, whatever their names are; of an object go the attributes that
    `forward` names, or the whole. A `forward(**kwargs)` gets all. Raises BatchError, with the keys, if arguments are missing.

    >>> import torch
    >>> inputs = Inputs((), {"image": torch.zeros(2, 3), "path": ["a", "b"]})
    >>> list(fitting(inputs, lambda image: image).kwargs), len(fitting(inputs, lambda x: x).args)
    (['image'], 1)
    """
    whole = inputs.args[0] if len(inputs.args) == 1 and _holds_targets(inputs.args[0]) else None
    if not inputs.kwargs and whole is None:
        return inputs
    parameters = inspect.signature(forward).parameters.values()
    named = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    required = [one.name for one in named if one.default is one.empty]
    if whole is not None:
        return _of_object(inputs, whole, [one.name for one in named], required)
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return inputs
    kwargs = {one.name: inputs.kwargs[one.name] for one in named if one.name in inputs.kwargs}
    missing = [name for name in required if name not in kwargs]
    tensors = [value for value in inputs.kwargs.values() if isinstance(value, Tensor)]
    only = tensors or list(inputs.kwargs.values())
    if len(required) == 1 and missing and len(only) == 1:
        return Inputs((only[0],))
    if missing or not kwargs:
        keys, arguments = ", ".join(map(str, inputs.kwargs)), ", ".join(one.name for one in named)
        text = f"a batch's keys beside its targets are {keys or 'none'}; the network's forward takes {arguments}"
        raise BatchError(f"{text}: name them alike, or {REMEDY}")
    return Inputs(inputs.args, kwargs)


def _of_object(inputs: Inputs, whole: Any, names: list[str], required: list[str]) -> Inputs:
    """Attributes of an object by the names of a network's arguments if it has them all, else the whole."""
    if not required or any(getattr(whole, name, None) is None for name in required):
        return inputs
    if len(required) == 1 and required[0] in WHOLE:
        return inputs
    return Inputs((), {name: value for name in names if (value := getattr(whole, name, None)) is not None})


def own_copy(batch: Batch, network: nn.Module | None = None) -> Batch:
    """Copy of a batch for one call of a network, which may change its inputs in place.

    Graphs are in 64 bits if the network is: a Trainer converts tensors and collections of them only.

    >>> import torch
    >>> batch = {"x": torch.zeros(2), "y": torch.ones(2)}
    >>> own_copy(batch).pop("x").add_(1.0), batch
    (tensor([1., 1.]), {'x': tensor([0., 0.]), 'y': tensor([1., 1.])})
    """
    first = next(network.parameters(), None) if network is not None else None
    part = partial(_own_part, first is not None and first.dtype.to_real() == torch.float64)
    if hasattr(batch, "__dict__") and not isinstance(batch, Mapping | Sequence):
        return part(batch)  # an object of any class, of which the user's split makes the inputs
    return apply_to_collection(batch, (Tensor, Cloneable, Movable), part)


def _own_part(double: bool, part: Any) -> Any:
    twin = part.clone() if isinstance(part, Cloneable) else _changed_part(torch.clone, part)
    return changed(twin, _doubled) if double and not isinstance(twin, Tensor) else twin


def _doubled(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


def rows_of(batch: Batch) -> int:
    """Number of rows of a batch; 0 if its form is unknown.

    >>> import torch
    >>> rows_of((torch.zeros(5, 3), torch.zeros(5))), rows_of("text")
    (5, 0)
    """
    try:
        return len(split_batch(batch)[1])
    except BatchError:
        return 0


def shapes_of(batch: Any) -> str:
    """Shapes of a batch's parts, in words.

    >>> import torch
    >>> shapes_of({"x": torch.zeros(5, 3), "id": "a"})
    'x (5, 3), id str'
    """
    if isinstance(batch, Tensor):
        return f"shape {tuple(batch.shape)}"
    if not isinstance(batch, Mapping | Sequence) or isinstance(batch, str):
        if hasattr(batch, "apply"):
            return str(batch)  # of a graph, which is short
        return f"type {type(batch).__name__}" + (f" with {shapes_of(vars(batch))}" if _holds_targets(batch) else "")
    named = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
    shapes = [(key, tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__) for key, part in named]
    if isinstance(batch, Mapping):
        return ", ".join(f"{key} {shape}" for key, shape in shapes)
    return f"shapes {' and '.join(str(shape) for _, shape in shapes)}"


def first_rows(batch: Batch, most: int) -> Batch:
    """A batch of its first rows; the same object where some part of it has no row for each target, as in graphs.

    >>> import torch
    >>> [len(part) for part in first_rows((torch.zeros(5, 3), torch.zeros(5)), 2)]
    [2, 2]
    """
    rows, parts = rows_of(batch), list[Any]()
    apply_to_collection(batch, (Tensor, Movable), parts.append)
    if rows <= most or not all(isinstance(x, Tensor) and (x.ndim == 0 or len(x) == rows) for x in parts):
        return batch
    return _cut(batch, rows, most)


def _cut(part: Any, rows: int, most: int) -> Any:
    """Part of a batch, cut if it has one entry per row, else the parts in it."""
    if isinstance(part, Tensor):
        return part[:most] if part.ndim else part
    if isinstance(part, Mapping):
        return {key: _cut(value, rows, most) for key, value in part.items()}
    if isinstance(part, list | tuple):
        if len(part) == rows and not any(isinstance(one, Tensor) for one in part):
            return part[:most]
        cut = [_cut(one, rows, most) for one in part]
        return type(part)(*cut) if hasattr(part, "_fields") else type(part)(cut)
    return part


def remedy_of(error: Exception, batch: Batch) -> str:
    """Remedy for an error of a network on a batch, as the end of a message; empty where nothing is known.

    >>> import torch
    >>> remedy_of(RuntimeError("must have the same dtype"), (torch.zeros(1, dtype=torch.float64), torch.zeros(1)))
    "; the rows are float64, as NumPy's are, and the network is not: give them as float32 (.float()), or ..."
    """
    tensors: list[Tensor] = []
    apply_to_collection(batch, Tensor, tensors.append)
    doubles = any(x.dtype == torch.float64 for x in tensors)
    if doubles and re.search(r"dtype|scalar type|Double", str(error)):
        text = "the rows are float64, as NumPy's are, and the network is not"
        return f"; {text}: give them as float32 (.float()), or train all in 64 bits (trainer: {{precision: 64}})"
    return ""
