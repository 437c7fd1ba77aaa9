"""The range in which a sweep's λ* lies, and the comparison of two such ranges: pure functions of numbers.

One rule: the λ of all trials that are as good as the winner, as far as seeds can tell, up to the next λ that was tried. Two
sweeps of which these ranges have nothing in common found another λ*.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from wdsearch.analysis.one_standard_error import Losses, best_strength, differences, whole_rows, within_one_error

FEWEST_TRIALS = 8
"""Complete trials below which a sweep has no range of λ*."""
FEWEST_SEEDS = 5
NEAR = 4
"""Best trials whose λ count in any case.

If two sweeps draw the λ of their `NEAR` best alike, all of one lie beyond all of the other in 2 of 70 cases: 2·4!·4!/8!, the
extreme of Mann and Whitney's test (1947).
"""
DEVIATIONS = 1.0
"""Standard deviations of a difference by seeds that a trial may be worse than the winner.

With one, pairs of searches of the same valley by other seeds raise no alarm more often than once in a hundred, and a valley ten
times further is nearly always seen unless noise hides it; with two most of such moves are not seen (`tests/test_trend.py`).
"""
SEEDS, NEIGHBOURS = "seeds", "neighbours"
_MEDIAN = statistics.NormalDist().inv_cdf(0.75)


@dataclass(frozen=True)
class Trial:
    """A complete trial: its λ, its loss (smaller is better) and its coordinates in the searched space, each from 0 to 1."""

    strength: float
    loss: float
    position: tuple[float, ...]


@dataclass(frozen=True)
class Range:
    """The range of λ*. `noise` is the standard deviation of the difference of two trainings by seeds, `source` its origin."""

    low: float
    high: float
    noise: float
    source: str

    def meets(self, other: "Range") -> bool:
        """True if some λ is in both.

        >>> Range(0.1, 1.0, 0.02, SEEDS).meets(Range(0.5, 3.0, 0.02, SEEDS))
        True
        """
        return self.low <= other.high and other.low <= self.high


def plausible(trials: Sequence[Trial], path: Losses | None = None) -> Range | None:
    """The range of λ* of a sweep; None if it has too few trials to say.

    `path` has losses by λ and fresh seed, with all else as in the winner (`wdsearch explain`): it measures the noise, and its λ
    within one standard error of its best count as well. Without one the noise is what nearest neighbours among the better half
    of the trials differ by, in the manner of Rice 1984 (Ann. Statist. 12, 1215) and Gasser et al. 1986 (Biometrika 73, 625); as
    neighbours differ a little in their settings, too, that is rather too much.

    >>> losses = {0.001: 1.4, 0.01: 1.1, 0.1: 0.9, 0.3: 0.89, 1.0: 0.9, 3.0: 1.1, 10.0: 1.4, 30.0: 1.9}
    >>> trials = [Trial(strength, loss, (index / 7,)) for index, (strength, loss) in enumerate(losses.items())]
    >>> best = plausible(trials)
    >>> best.low, best.high, best.source
    (0.001, 10.0, 'neighbours')
    """
    if len(trials) < FEWEST_TRIALS:
        return None
    ranked = sorted(trials, key=lambda trial: trial.loss)
    measured = _noise_of_seeds(path or {})
    noise, source = (measured, SEEDS) if measured is not None else (_noise_of_neighbours(ranked), NEIGHBOURS)
    near = [trial for trial in ranked if trial.loss <= ranked[0].loss + DEVIATIONS * noise]
    good = {trial.strength for trial in (near if len(near) > NEAR else ranked[:NEAR])}
    if measured is not None and path:
        good |= set(within_one_error(path))
    return Range(*_up_to_the_next(good, {trial.strength for trial in trials} | set(path or ())), noise, source)


def _noise_of_neighbours(ranked: Sequence[Trial]) -> float:
    """Noise from differences to nearest neighbours, by medians, which a diverging neighbour does not move."""
    better = ranked[: max(FEWEST_TRIALS, len(ranked) // 2)]
    differences = []
    for trial in better:
        others = [other for other in better if other is not trial]
        nearest = min(others, key=lambda other: math.dist(other.position, trial.position))
        differences.append(abs(trial.loss - nearest.loss))
    return statistics.median(differences) / _MEDIAN


def _noise_of_seeds(path: Losses) -> float | None:
    """Noise from differences to the best λ, paired by seed; the median over the λ. None of too few seeds."""
    whole = whole_rows(path)
    if len(whole) < 2 or len(next(iter(whole.values()))) < FEWEST_SEEDS:
        return None
    best = whole[best_strength(whole)]
    return statistics.median(statistics.stdev(differences(losses, best)) for losses in whole.values() if losses != best)


def _up_to_the_next(good: set[float], tried: set[float]) -> tuple[float, float]:
    """Ends of the good λ, moved to the next that was tried: all between them is as little excluded as the good λ."""
    low, high = min(good), max(good)
    return max((x for x in tried if x < low), default=low), min((x for x in tried if x > high), default=high)
