"""Stacks: tensors of K trials in one memory layout, padded to whole vector registers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

LANES = 16
"""Entries of a vector register; other instructions, which round differently, handle a register that is not full."""


def empty_stack(count: int, row: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "{count} *shape"]:
    """Uninitialised (count, ...) rows of `row`'s shape, dtype and memory layout; zeros fill the last vector register.

    >>> stack = empty_stack(2, torch.ones(3))
    >>> tuple(stack.shape), len(stack.untyped_storage()) // 4  # float32
    ((2, 3), 16)
    """
    entries = count * row.numel()
    memory = torch.empty(_whole(entries), dtype=row.dtype, device=row.device)
    memory[entries:].zero_()
    return memory.as_strided((count, *row.shape), (row.numel(), *torch.empty_like(row).stride()))


def laid_out_like(
    parameter: Float[Tensor, "K *shape"], gradient: Float[Tensor, "K *shape"]
) -> Float[Tensor, "K *shape"]:
    """Gradient in the parameter's memory layout, padded to whole vector registers.

    >>> parameter = empty_stack(2, torch.ones(3, 4))
    >>> laid_out_like(parameter, torch.ones(2, 4, 3).transpose(1, 2)).stride()
    (12, 4, 1)
    """
    same = gradient.stride() == parameter.stride() and gradient.numel() == _whole(gradient.numel())
    return gradient if same else empty_stack(len(parameter), parameter[0]).copy_(gradient)


def flat(values: Sequence[Tensor]) -> list[Tensor]:
    """Stacks as vectors in the order of memory with their padding, as the fused kernel traverses them.

    >>> [len(vector) for vector in flat([empty_stack(2, torch.ones(3))])]
    [16]
    """
    return [value.as_strided((_whole(value.numel()),), (1,)) for value in values]


def _whole(entries: int) -> int:
    """Number of entries, rounded up to whole vector registers."""
    return -(-entries // LANES) * LANES


def stack_rows(value: Shaped[Tensor, "K *shape"], rows: Int[Tensor, " rows"]) -> Shaped[Tensor, "rows *shape"]:
    """Rows of a stack, in its memory layout.

    >>> stack_rows(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2, 0]))
    tensor([3., 1.])
    """
    return empty_stack(len(rows), value[0]).copy_(value[rows])


def along_trials(values: Float[Tensor, " K"], like: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
    """Values of shape (K,) reshaped to broadcast along the trial axis of `like`, in its dtype and on its device.

    >>> along_trials(torch.tensor([1.0, 2.0]), torch.ones(2, 3, 4)).shape
    torch.Size([2, 1, 1])
    """
    return values.to(like).view(-1, *(1,) * (like.ndim - 1))
