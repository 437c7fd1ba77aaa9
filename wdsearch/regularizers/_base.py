"""Definition of a regularizer: a frozen record of functions of one trial, one for each point of training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from wdsearch.noise import NoiseStream
from wdsearch.tasks.task import Task
from wdsearch.types import Interval, Params, Range, Scalar, TorchWords


class Recommendation(NamedTuple):
    """Context of a strength's equivalent in torch; `group` is the group of parameters, empty for all.

    `clipped` is true if gradients are clipped, `decays` if decoupled weight decay acts as well.
    """

    optimizer: TorchWords
    clipped: bool = False
    group: str = ""
    decays: bool = False

    @property
    def weights(self) -> str:
        """Parameters on which the strength acts, in words."""
        return f"the decayed parameters of group {self.group}" if self.group else "the decayed parameters"


@dataclass(frozen=True)
class Regularizer:
    """A regularizer, as functions of one trial.

    A population applies them by `vmap`. A strength is a 0-d tensor, so that no function may branch on its value. A function is
    None where the regularizer does not act.

    The functions, in the order in which training calls them:

    - `augment(inputs, strength, noise) -> inputs`, once per tensor of floating point among the inputs
    - `buffer`: name of the 0-d buffers in the network that hold the strength
    - `loss(value, outputs, targets, strength, task) -> value`, the batch's mean loss as this regularizer changes it
    - `penalty(weights, strength) -> value`, added to the loss; `weights` are the decayed parameters (of its group)
    - `gradients(gradients, strength) -> gradients`
    - `decay(strength) -> λ` of the optimizer's decoupled decay
    - `prox(weight, step_size, strength) -> weight`, after the optimizer's step, once per decayed parameter;
      `step_size` (elementwise or 0-d) is what the optimizer multiplies a constant gradient by
    - `init_state(weights) -> state`: tensors by name that are carried from step to step, before the first one
    - `after_step(weights, state, step, strength) -> weights, state`, after all proximal steps; `step` counts from 1 and is the
      same for all trials of a cohort, so that a function may branch on it. Its `weights`, as those of `init_state`, are the
      decayed parameters (of its group), or with `all_parameters` all that are trained
    - `evaluated(weights, state) -> weights` that replace those in training wherever the trial is evaluated: training and
      validation losses, best state, diagnosis, files. A trial has at most one regularizer with it
    - `patience(strength) -> epochs` without a better validation loss after which the trial stops

    No function may change its arguments in place. The state of a regularizer is part of its trial: it is saved in a
    population's checkpoint and in Lightning's, and dropped when the trial leaves.

    `torch(strength, recommendation)` is the equivalent in torch, with a note where torch's value is not equivalent.
    `code` is its expression in the text of a training in plain torch (`wdsearch.storage.training_text`), with the fields
    `{x}` for the tensor that it takes and `{strength}` for its strength; empty if the text cannot have it.
    """

    key: str
    summary: str
    unit: str
    neutral: float
    domain: Interval
    usual: Range
    torch: Callable[[float, Recommendation], str]
    integer: bool = False
    tasks: tuple[str, ...] = ("classification", "regression")
    augment: Callable[[Tensor, Tensor, NoiseStream], Tensor] | None = None
    buffer: str | None = None
    loss: Callable[[Tensor, Tensor, Tensor, Tensor, Task], Tensor] | None = None
    penalty: Callable[[Params, Tensor], Tensor] | None = None
    gradients: Callable[[Params, Tensor], Params] | None = None
    decay: Callable[[Tensor], Tensor] | None = None
    prox: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    init_state: Callable[[Params], Params] | None = None
    after_step: Callable[[Params, Params, int, Tensor], tuple[Params, Params]] | None = None
    evaluated: Callable[[Params, Params], Params] | None = None
    all_parameters: bool = False
    patience: Callable[[float], float] | None = None
    code: str = ""

    @property
    def acts_on(self) -> str | None:
        """Kind of members that groups can divide: `parameters` or `layers`; None if there are no groups."""
        if self.buffer is not None:
            return "layers"
        on_decayed = self.penalty or self.decay or self.prox or (self.after_step and not self.all_parameters)
        return "parameters" if on_decayed else None


def squared_norm(values: Tensor) -> Scalar:
    """‖v‖² of a tensor, of complex entries by their modulus."""
    return (torch.view_as_real(values) if values.is_complex() else values).square().sum()
