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
"""Quantities that are infinite for a training that diverged; others of it are NaN."""


@dataclass(frozen=True)
class Evidence:
    """The outcomes of a design, every cell with every seed."""

    outcomes: tuple[Outcome, ...]
    axes: Axes

    @property
    def seeds(self) -> int:
        """Number of fresh seeds."""
        return len({outcome.seed for outcome in self.outcomes})

    def along(self, arm: str, quantity: str) -> dict[float, list[float]]:
        """A quantity along the key of the arm of λ or of l1, at each value by seed."""
        key = {DECAY: self.axes.decay, L1: self.axes.l1}[arm]
        return {strength: values for (strength,), values in self._table(arm, quantity, (key,)).items()}

    def beside_dropout(self, quantity: str) -> dict[tuple[float, ...], list[float]]:
        """A quantity by λ and dropout."""
        return self._table(DROPOUT, quantity, (self.axes.decay, self.axes.dropout))

    def by_rate(self, quantity: str) -> dict[tuple[float, ...], list[float]]:
        """A quantity by λ and learning rate."""
        return self._table(RATE, quantity, (self.axes.decay, RATE))

    def at_reference(self, quantity: str, relative: bool = False) -> Effect:
        """Change of a quantity from λ = 0 to λ*."""
        return change(self.along(DECAY, quantity), 0.0, self.axes.reference, relative)

    def diverged(self, *arms: str) -> float:
        """Number of outcomes of some arms that diverged."""
        return float(sum(outcome.end == DIVERGED for outcome in self.outcomes if outcome.arm in arms))

    def _table(self, arm: str, quantity: str, keys: tuple[str, ...]) -> dict[tuple[float, ...], list[float]]:
        of_arm = [outcome for outcome in self.outcomes if outcome.arm == arm]
        table: dict[tuple[float, ...], list[float]] = {}
        for outcome in sorted(of_arm, key=lambda outcome: outcome.seed):
            point = tuple(outcome.lr if key == RATE else outcome.strengths.get(key, 0.0) for key in keys)
            table.setdefault(point, []).append(value_of(outcome, quantity))
        return dict(sorted(table.items()))


def value_of(outcome: Outcome, quantity: str) -> float:
    """A metric or a measure of an outcome; NaN if it was not measured, or of a training that diverged.

    >>> outcome = Outcome("l1", 0, 0.01, {"l1": 1e-4}, {}, "finished", {"val_loss": 0.9}, {"zeros": 0.5})
    >>> value_of(outcome, "val_loss"), value_of(outcome, "zeros"), value_of(outcome, "norm")
    (0.9, 0.5, nan)
    """
    if outcome.end == DIVERGED:
        return math.inf if quantity in UNBOUNDED else math.nan
    return outcome.metrics.get(quantity, outcome.measures.get(quantity, math.nan))


def change(table: Table, start: Point, end: Point, relative: bool = False) -> Effect:
    """Change of a quantity between two points, paired by seed; of a relative change the logarithm.

    >>> change({0.0: [4.0, 5.0], 0.1: [3.0, 4.0]}, start=0.0, end=0.1).mean
    -1.0
    """
    pairs = zip(table[start], table[end], strict=True)
    return effect([logarithm(after) - logarithm(before) if relative else after - before for before, after in pairs])


def logarithm(value: float) -> float:
    """The natural logarithm; NaN of 0 and of negative numbers.

    >>> logarithm(math.e), logarithm(0.0)
    (1.0, nan)
    """
    return math.log(value) if value > 0 else math.nan


def chosen_without(table: Table, candidates: Iterable[Point]) -> list[Point]:
    """Candidates with the least mean over the *other* seeds, one for each seed.

    A candidate that was chosen on a seed looks too good on it; here it is judged by a seed that had no say.

    >>> chosen_without({0.0: [1.0, 9.0, 9.0], 0.1: [5.0, 5.0, 5.0]}, candidates=[0.0, 0.1])
    [0.1, 0.0, 0.0]
    """
    points = list(candidates)
    seeds = range(len(table[points[0]]))
    return [min(points, key=lambda point: _mean_without(table[point], seed)) for seed in seeds]


def _mean_without(values: Sequence[float], seed: int) -> float:
    others = [value for number, value in enumerate(values) if number != seed]
    return mean(others) if others else 0.0


def mean(values: Iterable[float]) -> float:
    """The mean of values, +∞ if one of them is infinite or NaN; NaN of none.

    >>> mean([1.0, 3.0]), mean([1.0, math.nan])
    (2.0, inf)
    """
    counted = [math.inf if math.isnan(value) else value for value in values]
    return sum(counted) / len(counted) if counted else math.nan


def finite_mean(values: Iterable[float]) -> float:
    """The mean of the values that are finite; NaN of none.

    >>> finite_mean([1.0, 3.0, math.inf])
    2.0
    """
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def curve(table: Mapping[float, Sequence[float]]) -> Curve:
    """Means with their intervals over the seeds that did not diverge; points without any are left out.

    >>> curve({0.0: [1.0, 1.0], 0.1: [math.inf, math.inf]})
    Curve(x=(0.0,), mean=(1.0,), low=(1.0,), high=(1.0,))
    """
    points = []
    for strength, values in table.items():
        finite = [value for value in values if math.isfinite(value)]
        points += [(strength, *interval(finite))] if finite else []
    x, middle, low, high = zip(*points, strict=True) if points else ((), (), (), ())
    return Curve(x, middle, low, high)
