"""Shared aliases and small frozen records; imports nothing of wdsearch."""

from typing import NamedTuple

from jaxtyping import Float, Shaped
from torch import Tensor

Scalar = Float[Tensor, ""]
"""A 0-d tensor: a number of one trial that a population stacks."""

Params = dict[str, Shaped[Tensor, "..."]]
"""Parameters of one trial's network by name; a population stacks them along a trial axis in front."""

States = dict[str, Params]
"""What each regularizer remembers of the steps so far, by key; a population stacks it as it stacks parameters."""

Strengths = dict[str, Float[Tensor, "..."]]
"""Sampled value of each regularizer by key, 0-d in a trial; a population stacks them."""


class Interval(NamedTuple):
    """Allowed values of a number, as in `[0, 1)`."""

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
    """A range worth searching, in a study file's words."""

    low: float
    high: float
    log: bool = False

    def at(self, share: float) -> float:
        """The value at a share of the way from low to high."""
        return self.low * (self.high / self.low) ** share if self.log else self.low + (self.high - self.low) * share
