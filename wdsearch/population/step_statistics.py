"""Statistics of the steps of K trials: gradient norms at every step, update sizes at one step in sixteen."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from wdsearch.trial.diagnostics import Steps
from wdsearch.types import Params

EVERY = 16
"""Interval in steps between measured updates, each of which needs a copy of the weights."""


class Record:
    """Growing table with one entry of shape (K, ...) per step."""

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._entries: list[Tensor] = []

    def append(self, entry: Float[Tensor, "K ..."]) -> None:
        """Append the entry of one step."""
        self._entries.append(entry)

    def __len__(self) -> int:
        return sum(map(len, self._blocks)) + len(self._entries)

    def table(self) -> Float[Tensor, "steps ..."]:
        """All entries, of shape (steps, K, ...); before the first step an empty tensor without K."""
        if self._entries:
            self._blocks.append(torch.stack(self._entries))
            self._entries = []
        if len(self._blocks) > 1:
            self._blocks = [torch.cat(self._blocks)]
        return self._blocks[0] if self._blocks else torch.zeros(0)

    def of(self, row: int, *shape: int) -> Float[Tensor, "steps ..."]:
        """Entries of one trial, on the CPU; `shape` is that of one of its entries."""
        own = self.table()[:, row] if len(self) else torch.zeros(0, *shape)
        return own.double().cpu()

    def replace(self, table: Float[Tensor, "steps ..."]) -> None:
        """Replace all entries by those of a table."""
        self._blocks, self._entries = ([table] if len(table) else []), []

    def keep(self, rows: list[int]) -> None:
        """Drop all trials but these rows."""
        if len(self):
            self.replace(self.table()[:, rows])


class Watch:
    """Measures the steps of K trials, whose parameters are stacks of shape (K, ...) by name."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.gradient_norms, self.sizes, self.angles = Record(), Record(), Record()
        self.factors: list[float] = []
        self._seen, self._measured = 0, 0
        self._before: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_step(self, params: Params, gradients: Sequence[Tensor | None]) -> None:
        """Record the gradients' norms, and at every `EVERY`-th step copy the weights."""
        stacks = [gradient for gradient in gradients if gradient is not None]
        if not stacks:
            return
        self.gradient_norms.append(_norm_of_all(stacks))
        if len(self.gradient_norms) % EVERY == EVERY // 2:
            self._before = {name: params[name].detach().clone() for name in self.names}

    @torch.no_grad()
    def after_step(self, params: Params, factor: float) -> None:
        """Measure the update if the weights were copied before it; `factor` is the schedule's at this step."""
        if not self._before:
            return
        pairs = [_update(self._before[name], params[name]) for name in self.names]
        self._before = {}
        if pairs:
            self.sizes.append(torch.stack([size for size, _ in pairs], dim=1))
            self.angles.append(torch.stack([angle for _, angle in pairs], dim=1))
            self.factors.append(factor)

    def steps(self, row: int) -> Steps:
        """Measurements of the steps of one trial."""
        return Steps(
            self.gradient_norms.of(row),
            self.sizes.of(row, len(self.names)),
            self.angles.of(row, len(self.names)),
            torch.tensor(self.factors, dtype=torch.float64),
        )

    @torch.no_grad()
    def trends(self, params: Params) -> dict[str, Float[Tensor, " K"]]:
        """Norm of the watched weights, and largest gradient and mean update since the last call, per trial."""
        measures: dict[str, Tensor] = {}
        if self.names:
            measures["weights/norm"] = _norm_of_all([params[name] for name in self.names])
        if len(self.gradient_norms) > self._seen:
            measures["gradients/largest"] = self.gradient_norms.table()[self._seen :].amax(0)
        if len(self.sizes) > self._measured:
            measures["updates/relative"] = _means(self.sizes.table()[self._measured :])
            measures["updates/rotation"] = _means(self.angles.table()[self._measured :])
        self._seen, self._measured = len(self.gradient_norms), len(self.sizes)
        return measures

    def keep(self, rows: list[int]) -> None:
        """Drop all trials but these rows."""
        for record in (self.gradient_norms, self.sizes, self.angles):
            record.keep(rows)

    def saved(self) -> dict[str, Any]:
        """State between two epochs, in types that `torch.save` accepts."""
        return {
            "tables": [record.table() for record in (self.gradient_norms, self.sizes, self.angles)],
            "factors": list(self.factors),
            "seen": [self._seen, self._measured],
        }

    def restore(self, saved: Mapping[str, Any], rows: list[int], device: torch.device) -> None:
        """Restore a saved state of the trials in `rows`."""
        for record, table in zip((self.gradient_norms, self.sizes, self.angles), saved["tables"], strict=True):
            record.replace(table[:, rows].to(device) if len(table) else table)
        self.factors = list(saved["factors"])
        self._seen, self._measured = saved["seen"]


def _update(
    before: Float[Tensor, "K ..."], after: Float[Tensor, "K ..."]
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """‖Δw‖/‖w‖ and the angle between w and w+Δw, by ‖Δw‖² = (‖w+Δw‖ − ‖w‖)² + 4‖w‖‖w+Δw‖·sin²(angle/2)."""
    old, new = _norms(before).double(), _norms(after).double()
    change = _norms(after - before).double()
    chord = (change.square() - (new - old).square()).clamp(min=0.0) / (4.0 * old * new)
    return change / old, 2.0 * chord.sqrt().clamp(max=1.0).asin()


def _norm_of_all(stacks: Sequence[Tensor]) -> Float[Tensor, " K"]:
    """Euclidean norm of each trial's rows of several stacks together."""
    # added one after another: the order of a sum along an axis depends on K
    return reduce(add, [_norms(stack).square() for stack in stacks]).sqrt()


def _means(table: Float[Tensor, "steps K weights"]) -> Float[Tensor, " K"]:
    """Mean of each trial's values, taken trial by trial, so that its rounding does not depend on K."""
    return torch.stack([table[:, row].contiguous().mean() for row in range(table.shape[1])])


def _norms(stack: Float[Tensor, "K ..."]) -> Float[Tensor, " K"]:
    """Euclidean norm of each row of a stack."""
    rows = _in_memory_order(stack.detach())
    # a single row would be summed in another order
    together = rows.repeat(2, 1) if len(rows) == 1 else rows
    return torch.linalg.vector_norm(together, dim=1)[: len(rows)]


def _in_memory_order(stack: Shaped[Tensor, "K ..."]) -> Shaped[Tensor, "K entries"]:
    """Each row's entries as they lie in memory, without a copy where they lie without gaps."""
    axes = sorted(range(1, stack.ndim), key=stack.stride, reverse=True)
    return stack.permute(0, *axes).reshape(len(stack), -1)
