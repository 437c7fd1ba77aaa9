"""Outcomes as tables: a quantity by what was varied and by seed; nothing here judges."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy.stats import rankdata

from wdsearch.analysis.design import DECAY, DROPOUT, L1, RATE, Axes
from wdsearch.analysis.effects import Effect, effect, interval
from wdsearch.analysis.outcomes import Curve, Outcome
from wdsearch.trial.result import DIVERGED

Point = TypeVar("Point", bound=Hashable)
Table = Mapping[Point, Sequence[float]]
"""Value of each seed at each point."""

UNBOUNDED = ("val_loss", "train_loss")
"""Quantities that are infinite for a training that diverged; others of it are NaN."""
FAILED = "failed"
"""1 for a training that diverged, or whose network is dead: it gives all rows the same output; 0 for others."""


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

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that outcomes have."""
        return sorted({name for outcome in self.outcomes for name in outcome.metrics})

    @property
    def selecting(self) -> range:
        """Seeds that choose a best point: the even ones."""
        return range(0, self.seeds, 2)

    @property
    def reporting(self) -> range:
        """Seeds that judge what the selecting ones chose, and had no say in it: the odd ones."""
        return range(1, self.seeds, 2)

    def trend(self, arm: str, quantity: str) -> Effect:
        """Spearman's rank correlation of a quantity with λ, over all λ of an arm at which the seed did not fail; by seed.

        Its standard error is that over the seeds, but no smaller than chance alone gives (1/√(n − 1) a seed, as in Page's
        trend test, 1963): of ten seeds that all rise at every step it would be 0.
        """
        table = self.along(arm, quantity)
        correlations = effect([_rank_correlation([table[x][seed] for x in table]) for seed in range(self.seeds)])
        by_chance = 1.0 / math.sqrt(max(1, len(table) - 1) * max(1, correlations.count))
        return replace(correlations, error=max(correlations.error, by_chance))

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
    if quantity == FAILED:
        return float(outcome.end == DIVERGED or outcome.measures.get("dead", 0.0) > 0.0)
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


def _rank_correlation(values: Sequence[float]) -> float:
    """Spearman's correlation of values with their position; 0 of equal ones, NaN of fewer than three finite ones."""
    finite = [(position, value) for position, value in enumerate(values) if math.isfinite(value)]
    if len(finite) < 3:
        return math.nan
    positions, heights = zip(*finite, strict=True)
    return float(np.corrcoef(positions, rankdata(heights))[0, 1]) if len(set(heights)) > 1 else 0.0


def logarithm(value: float) -> float:
    """The natural logarithm; NaN of 0 and of negative numbers.

    >>> logarithm(math.e), logarithm(0.0)
    (1.0, nan)
    """
    return math.log(value) if value > 0 else math.nan


def chosen_by(table: Table, candidates: Iterable[Point], seeds: Iterable[int]) -> Point | None:
    """The candidate with the least mean over some seeds, none of which failed; None if every candidate has one that did.

    What is chosen looks too good on the seeds that chose it: it is judged by others (`selecting`, `reporting`).

    >>> chosen_by({0.0: [1.0, 9.0, 9.0], 0.1: [5.0, 5.0, 5.0]}, candidates=[0.0, 0.1], seeds=[0])
    0.0
    """
    seeds = list(seeds)
    means = {point: mean(table[point][seed] for seed in seeds) for point in candidates}
    whole = {point: value for point, value in means.items() if math.isfinite(value)}
    return min(whole, key=lambda point: whole[point]) if whole else None


def differences(table: Table, start: Point, end: Point, seeds: Iterable[int]) -> Effect:
    """Change between two points over some seeds.

    >>> differences({0.0: [4.0, 5.0], 0.1: [3.0, 4.5]}, start=0.0, end=0.1, seeds=[1]).mean
    -0.5
    """
    return effect([table[end][seed] - table[start][seed] for seed in seeds])


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
