"""Outcomes as tables: a quantity by what was varied and by seed; nothing here judges."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wdsearch.analysis.bootstrap import Effect, effect, interval
from wdsearch.analysis.design import DECAY, DROPOUT, L1, RATE, Axes
from wdsearch.analysis.outcomes import Curve, Outcome
from wdsearch.trial.result import DIVERGED

Point = TypeVar("Point", bound=Hashable)
Table = Mapping[Point, Sequence[float]]
"""Value of each seed at each point."""

UNBOUNDED = ("val_loss", "train_loss", "gradient_norm_max")
"""What is infinite for a training that diverged; other quantities of it are NaN."""


@dataclass(frozen=True)
class Evidence:
    """The outcomes of a design, every cell with every seed."""

    outcomes: tuple[Outcome, ...]
    axes: Axes

    @property
    def seeds(self) -> int:
        """How many fresh seeds there are."""
        return len({outcome.seed for outcome in self.outcomes})

    def along(self, arm: str, quantity: str) -> dict[float, list[float]]:
        """A quantity along the key of the arm of λ or of l1, at each value by seed."""
        key = {DECAY: self.axes.decay, L1: self.axes.l1}[arm]
        return {x: found for (x,), found in self._table(arm, quantity, (key,)).items()}

    def beside_dropout(self, quantity: str) -> dict[tuple[float, ...], list[float]]:
        """A quantity by λ and dropout."""
        return self._table(DROPOUT, quantity, (self.axes.decay, self.axes.dropout))

    def by_rate(self, quantity: str) -> dict[tuple[float, ...], list[float]]:
        """A quantity by λ and learning rate."""
        return self._table(RATE, quantity, (self.axes.decay, RATE))

    def at_reference(self, quantity: str, relative: bool = False) -> Effect:
        """What a quantity changes by from λ = 0 to λ*."""
        return change(self.along(DECAY, quantity), 0.0, self.axes.reference, relative)

    def diverged(self, *arms: str) -> float:
        """How many outcomes of some arms diverged."""
        return float(sum(outcome.end == DIVERGED for outcome in self.outcomes if outcome.arm in arms))

    def _table(self, arm: str, quantity: str, keys: tuple[str, ...]) -> dict[tuple[float, ...], list[float]]:
        found: dict[tuple[float, ...], list[float]] = {}
        for outcome in sorted((one for one in self.outcomes if one.arm == arm), key=lambda one: one.seed):
            place = tuple(outcome.lr if key == RATE else outcome.strengths.get(key, 0.0) for key in keys)
            found.setdefault(place, []).append(value_of(outcome, quantity))
        return dict(sorted(found.items()))


def value_of(outcome: Outcome, quantity: str) -> float:
    """A metric or a measure; NaN if it was not measured, or of a training that diverged."""
    if outcome.end == DIVERGED:
        return math.inf if quantity in UNBOUNDED else math.nan
    return outcome.metrics.get(quantity, outcome.measures.get(quantity, math.nan))


def change(table: Table, start: Point, end: Point, relative: bool = False) -> Effect:
    """What a quantity changes by between two points, paired by seed; of a relative change the logarithm."""
    pairs = zip(table[start], table[end], strict=True)
    return effect([logarithm(after) - logarithm(before) if relative else after - before for before, after in pairs])


def logarithm(value: float) -> float:
    """NaN of what has none."""
    return math.log(value) if value > 0 else math.nan


def chosen_without(table: Table, candidates: Iterable[Point]) -> list[Point]:
    """For each seed the candidate with the least mean over the *other* seeds.

    What was chosen on a seed looks too good on it; here it is judged by a seed that had no say.
    """
    points = list(candidates)
    seeds = range(len(table[points[0]]))
    return [min(points, key=lambda point: _mean_without(table[point], seed)) for seed in seeds]


def _mean_without(values: Sequence[float], seed: int) -> float:
    others = [value for number, value in enumerate(values) if number != seed]
    return mean(others) if others else 0.0


def mean(values: Iterable[float]) -> float:
    """Their mean; +∞ if one is or is NaN, NaN without any."""
    found = [math.inf if math.isnan(value) else value for value in values]
    return sum(found) / len(found) if found else math.nan


def finite_mean(values: Iterable[float]) -> float:
    """The mean of those that are finite; NaN without any."""
    found = [value for value in values if math.isfinite(value)]
    return sum(found) / len(found) if found else math.nan


def curve(table: Mapping[float, Sequence[float]]) -> Curve:
    """Means with their intervals over the seeds that did not diverge; points without any are left out."""
    finite = {x: [value for value in values if math.isfinite(value)] for x, values in table.items()}
    points = [(x, *interval(values)) for x, values in finite.items() if values]
    x, middle, low, high = zip(*points, strict=True) if points else ((), (), (), ())
    return Curve(x, middle, low, high)
