"""What a regularizer is: a frozen record of functions for one trial, at the points of training where one can act."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from wdsearch.noise import NoiseStream
from wdsearch.tasks import Task
from wdsearch.types import Interval, Params, Range


class Recommendation(NamedTuple):
    """What surrounds a strength where a user puts it into torch."""

    optimizer: str
    clipped: bool = False


@dataclass(frozen=True)
class Regularizer:
    """One way to regularize one trial.

    Every function sees one trial: `vmap` lifts it over a population. A strength is a 0-d tensor, so no function
    may branch on its value. A point of training at which the regularizer does not act holds None.

    The functions, in the order in which training meets them:

    - `augment(inputs, strength, noise) -> inputs`, once per tensor of floating point among the inputs
    - `buffer`: name of the 0-d buffers in the network that hold the strength
    - `loss(value, outputs, targets, strength, task) -> value`, the batch's mean loss as this regularizer changes it
    - `penalty(weights, strength) -> value`, added to the loss; `weights` are the decayed parameters
    - `gradients(gradients, strength) -> gradients`
    - `decay(strength) -> λ` of the optimizer's decoupled decay
    - `prox(weight, step_size, strength) -> weight`, after the optimizer's step, once per decayed parameter;
      `step_size` (elementwise or 0-d) is what the optimizer multiplies a constant gradient by
    - `patience(strength) -> epochs` without a better validation loss after which the trial stops

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
    patience: Callable[[float], float] | None = None
