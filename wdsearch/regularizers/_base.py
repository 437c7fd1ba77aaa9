"""What a regularizer is: a frozen record of functions for one trial, at the points of training where one can act."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from wdsearch.noise import NoiseStream
from wdsearch.tasks import Task
from wdsearch.types import Interval, Params, Range, TorchWords


class Recommendation(NamedTuple):
    """What surrounds a strength where a user puts it into torch; `group` is that of the parameters, `` if they are all."""

    optimizer: TorchWords
    clipped: bool = False
    group: str = ""

    @property
    def weights(self) -> str:
        """On which parameters it acts."""
        return f"the decayed parameters of group {self.group}" if self.group else "the decayed parameters"


@dataclass(frozen=True)
class Regularizer:
    """One way to regularize one trial.

    Every function sees one trial: `vmap` lifts it over a population. A strength is a 0-d tensor, so no function
    may branch on its value. A point of training at which the regularizer does not act holds None.

    The functions, in the order in which training meets them:

    - `augment(inputs, strength, noise) -> inputs`, once per tensor of floating point among the inputs
    - `buffer`: name of the 0-d buffers in the network that hold the strength
    - `loss(value, outputs, targets, strength, task) -> value`, the batch's mean loss as this regularizer changes it
    - `penalty(weights, strength) -> value`, added to the loss; `weights` are the decayed parameters (of its group)
    - `gradients(gradients, strength) -> gradients`
    - `decay(strength) -> λ` of the optimizer's decoupled decay
    - `prox(weight, step_size, strength) -> weight`, after the optimizer's step, once per decayed parameter;
      `step_size` (elementwise or 0-d) is what the optimizer multiplies a constant gradient by
    - `init_state(weights) -> state`: what it remembers from step to step, by name, before the first one; nothing without it
    - `after_step(weights, state, step, strength) -> weights, state`, after all proximal steps; `step` counts from 1 and is the
      same for all trials of a cohort, so that a function may branch on it. It takes the decayed parameters (of its group), or
      with `all_parameters` every one that is trained; `init_state` takes the same
    - `evaluated(weights, state) -> weights` that stand in for those in training wherever the trial is evaluated and judged:
      training and validation losses, best state, diagnosis, files. At most one acts in a trial
    - `patience(strength) -> epochs` without a better validation loss after which the trial stops

    Neither a function nor a state may change in place what it is given. What a regularizer remembers goes with its trial: into
    a population's checkpoint and Lightning's own, and out of the population when the trial leaves.

    `torch(strength, recommendation)` says what to pass to torch, and when torch's value is not equivalent.
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

    @property
    def acts_on(self) -> str | None:
        """What may be divided into groups with strengths of their own: `parameters` or `layers`; None if nothing."""
        if self.buffer is not None:
            return "layers"
        on_decayed = self.penalty or self.decay or self.prox or (self.after_step and not self.all_parameters)
        return "parameters" if on_decayed else None
