"""Stacks: tensors of K trials in one memory layout, whose last vector register is full."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

LANES = 16
"""Entries of a vector register: the last ones of a tensor that do not fill one are rounded by other instructions."""


def empty_stack(count: int, row: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "{count} *shape"]:
    """Uninitialised (count, ...) rows of `row`'s shape, type and memory layout; zeros fill its last vector register."""
    entries = count * row.numel()
    memory = torch.empty(_whole(entries), dtype=row.dtype, device=row.device)
    memory[entries:].zero_()
    return memory.as_strided((count, *row.shape), (row.numel(), *torch.empty_like(row).stride()))


def laid_out_like(
    parameter: Float[Tensor, "K *shape"], gradient: Float[Tensor, "K *shape"]
) -> Float[Tensor, "K *shape"]:
    """The gradient in the parameter's memory layout, its last vector register full."""
    same = gradient.stride() == parameter.stride() and gradient.numel() == _whole(gradient.numel())
    return gradient if same else empty_stack(len(parameter), parameter[0]).copy_(gradient)


def flat(values: Sequence[Tensor]) -> list[Tensor]:
    """Stacks in the order of memory, by which the fused kernel goes whatever the strides, up to whole registers."""
    return [value.as_strided((_whole(value.numel()),), (1,)) for value in values]


def _whole(entries: int) -> int:
    """Entries of as many whole vector registers as hold these."""
    return -(-entries // LANES) * LANES


def stack_rows(value: Shaped[Tensor, "K *shape"], rows: Int[Tensor, " rows"]) -> Shaped[Tensor, "rows *shape"]:
    """Some rows of a stack, in its memory layout."""
    return empty_stack(len(rows), value[0]).copy_(value[rows])


def along_trials(values: Float[Tensor, " K"], like: Float[Tensor, "K ..."]) -> Float[Tensor, "K ..."]:
    """(K,) values shaped to broadcast along the trial axis of `like`, in its type and on its device."""
    return values.to(like).view(-1, *(1,) * (like.ndim - 1))
