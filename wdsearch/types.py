"""Types that all packages share; this file imports nothing of wdsearch."""

from typing import NamedTuple

from jaxtyping import Float, Shaped
from torch import Tensor

Scalar = Float[Tensor, ""]
"""A 0-d tensor: a number of one trial, which a population stacks."""

Params = dict[str, Shaped[Tensor, "..."]]
"""Parameters of one trial's network by name; a population stacks them along a trial axis in front."""

States = dict[str, Params]
"""State of each regularizer by key; a population stacks states like parameters."""

Strengths = dict[str, Float[Tensor, "..."]]
"""Sampled value of each regularizer by key, 0-d in a trial; a population stacks them."""


class TorchWords(NamedTuple):
    """An optimizer's class, decays and step size as written in torch, for recommendations.

    `name` is its class in torch.optim; `decoupled` and `coupled` are calls with this kind of decay and `{}` for torch's λ, None
    if there is none; `step_size` is its factor of a constant gradient, in words and as `step_size_code`, the lines of a Python
    function of `state`, the optimizer's of a parameter after a step, and `group`, its parameter group; empty if there is none.
    """

    name: str
    decoupled: str | None
    coupled: str
    step_size: str
    step_size_code: str = ""

    def is_own(self, call: str) -> bool:
        """True for a call of this optimizer's class, false for that of a substitute."""
        return call.startswith(f"torch.optim.{self.name}(")


class Interval(NamedTuple):
    """Allowed values of a number.

    >>> rates = Interval(0, 1, high_open=True)
    >>> str(rates), 0 in rates, 1 in rates
    ('[0, 1)', True, False)
    """

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float) or value != value:
            return False
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        low, high = (f"{bound:g}".replace("inf", "∞") for bound in (self.low, self.high))
        return f"{'(' if self.low_open else '['}{low}, {high}{')' if self.high_open else ']'}"


class Range(NamedTuple):
    """A range worth searching, with the keys of a study file.

    >>> round(Range(0.01, 100, log=True).at(0.5), 9), Range(0, 4).at(0.25)
    (1.0, 1.0)
    """

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """Value at a share of the way from low to high, on a log scale if `log`."""
        return self.low * (self.high / self.low) ** share if self.log else self.low + (self.high - self.low) * share
