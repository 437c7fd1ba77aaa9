"""The only file that knows the forms of a batch, and splits it into the network's arguments and the targets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Shaped
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from wdsearch.errors import WdsearchError

Batch = Any
"""`(inputs, targets)`, `(first, second, ..., targets)`, a mapping with its targets under one key, or what a user splits."""

TARGETS = ("targets", "target", "labels", "label", "y")
"""Keys under which a mapping may hold its targets."""


class BatchError(WdsearchError):
    """A batch of a form in which the targets cannot be told from the inputs."""

    exit_code = 1


@runtime_checkable
class Cloneable(Protocol):
    """A part of a batch that copies itself: a tensor, or a graph of PyTorch Geometric."""

    def clone(self) -> Any:
        """Copy of its tensors."""


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
        return Inputs(*apply_to_collection(tuple(self), Tensor, lambda x: change(x) if x.is_floating_point() else x))


def split_batch(batch: Batch) -> tuple[Inputs, Shaped[Tensor, "batch ..."]]:
    """Inputs and targets of a batch: the last of several tensors, or a mapping's entry of one of the `TARGETS`.

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
            f"a batch that is a mapping holds its targets under one of {', '.join(TARGETS)}; this {mistake}"
        )
    if isinstance(batch, Sequence) and len(batch) >= 2 and isinstance(batch[-1], Tensor):
        return Inputs(tuple(batch[:-1])), batch[-1]
    kinds = ", ".join(type(part).__name__ for part in batch) if isinstance(batch, Sequence) else ""
    text = f"a batch is (inputs, targets), (first, second, ..., targets) or a mapping; this is {type(batch).__name__}"
    raise BatchError(f"{text} of {kinds}" if kinds else text)


def own_copy(batch: Batch) -> Batch:
    """Copy of a batch for one call of a network, which may change its inputs in place.

    >>> import torch
    >>> batch = {"x": torch.zeros(2), "y": torch.ones(2)}
    >>> own_copy(batch).pop("x").add_(1.0), batch
    (tensor([1., 1.]), {'x': tensor([0., 0.]), 'y': tensor([1., 1.])})
    """
    return apply_to_collection(batch, (Tensor, Cloneable), lambda part: part.clone())


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
    named = batch.items() if isinstance(batch, Mapping) else enumerate(batch)
    shapes = [(key, tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__) for key, part in named]
    if isinstance(batch, Mapping):
        return ", ".join(f"{key} {shape}" for key, shape in shapes)
    return f"shapes {' and '.join(str(shape) for _, shape in shapes)}"
