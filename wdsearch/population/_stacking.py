"""Stacks of the tensors of several trials, and functions of one trial lifted to all of them by vmap."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.func import vmap

from wdsearch.optimizers.stacks import empty_stack, stack_rows
from wdsearch.trial.module import RegularizedModule
from wdsearch.types import Params, States


def stacked_state(modules: Sequence[nn.Module]) -> tuple[Params, Params]:
    """Parameters and buffers of modules with the same names and shapes, stacked; their classes may differ.

    >>> params, buffers = stacked_state([nn.BatchNorm1d(2), nn.BatchNorm1d(2)])
    >>> params["weight"].shape, buffers["running_mean"].shape
    (torch.Size([2, 2]), torch.Size([2, 2]))
    """
    params = [dict(module.named_parameters()) for module in modules]
    buffers = [dict(module.named_buffers()) for module in modules]
    return _stacked(params), _stacked(buffers)


def _stacked(columns: Sequence[Mapping[str, Tensor]]) -> Params:
    return {name: torch.stack([column[name].detach() for column in columns]) for name in columns[0]}


def lift(module: nn.Module, function: Callable[..., Any], in_dims: Any = (0, 0, None)) -> Callable[..., Any]:
    """A function of one module as a function of stacked parameters and buffers and of further arguments.

    Like `torch.func.functional_call`, which looks up the module's tensors at every call; here they are looked up once.
    """
    names = {id(value): name for name, value in chain(module.named_parameters(), module.named_buffers())}
    tables: list[dict[str, Any]] = [table for part in module.modules() for table in (part._parameters, part._buffers)]
    # a tied weight has one name and several slots
    slots = [(table, key, names[id(table[key])]) for table in tables for key in table if table[key] is not None]
    originals = [table[key] for table, key, _ in slots]

    def of_one(params: Params, buffers: Params, *args: Any) -> Any:
        state = params | buffers
        try:
            for table, key, name in slots:
                table[key] = state[name]
            return function(*args)
        finally:
            for (table, key, _), value in zip(slots, originals, strict=True):
                table[key] = value

    return vmap(of_one, in_dims=in_dims, randomness="same")


def names_of_state(module: RegularizedModule) -> dict[str, str]:
    """Names in the stacks by name in a state dict; they differ for tied weights, which are stacked once."""
    names = {id(value): name for name, value in chain(module.named_parameters(), module.named_buffers())}
    return {name: names[id(value)] for name, value in module.state_dict(keep_vars=True).items()}


def rows_of(states: States, rows: Int[Tensor, " rows"], device: torch.device | None = None) -> States:
    """States of some trials' regularizers, on a device."""
    return {
        key: {name: stack_rows(value.to(device or value.device), rows) for name, value in state.items()}
        for key, state in states.items()
    }


def joined(parts: Sequence[Float[Tensor, "_ *shape"]]) -> Float[Tensor, "K *shape"] | None:
    """Concatenated slices of a stack, in their memory layout; None for a parameter that the loss does not depend on."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    return torch.cat(list(parts), out=empty_stack(sum(map(len, parts)), parts[0][0]))


def padded(rows: Shaped[Tensor, "rows *shape"]) -> Shaped[Tensor, "padded *shape"]:
    """A single row duplicated: kernels for one row round differently, so that results would depend on the number of trials."""
    return empty_stack(2, rows[0]).copy_(rows) if len(rows) == 1 else rows
