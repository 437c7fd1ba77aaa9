"""λ.1se: the strongest regularization that is as good as the best, by paired differences on the same seeds."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Losses = Mapping[float, Mapping[int, float]]
"""Loss by strength and seed."""


@dataclass(frozen=True)
class OneStandardError:
    """The best strength, and the largest that is within one standard error of it."""

    best: float
    chosen: float


def one_standard_error(losses: Losses) -> OneStandardError | None:
    """λ.1se of losses by strength and seed; smaller is better, None if no strength has a finite loss of every seed.

    The largest strength of which the mean paired difference to the best, over the same seeds, is at most one standard error
    of that difference (Breiman et al. 1984, §3.4.3; `lambda.1se` of glmnet, which does not pair). A strength that lacks a
    seed, for it diverged there, is not compared. With a single seed there is no error, and the best is chosen.

    >>> one_standard_error({0.0: {0: 1.30, 1: 1.22}, 0.1: {0: 0.80, 1: 0.90}, 1.0: {0: 0.90, 1: 0.81}})
    OneStandardError(best=0.1, chosen=1.0)
    """
    whole = whole_rows(losses)
    if not whole:
        return None
    best = best_strength(whole)
    return OneStandardError(best, max([best, *within_one_error(whole)]))


def whole_rows(losses: Losses) -> Losses:
    """The strengths that have a finite loss of every seed.

    >>> whole_rows({0.0: {0: 1.3, 1: 1.2}, 0.1: {0: 0.8}, 9.9: {0: math.inf, 1: 7.0}})
    {0.0: {0: 1.3, 1: 1.2}}
    """
    seeds = {seed for by_seed in losses.values() for seed in by_seed}
    return {
        strength: by_seed
        for strength, by_seed in losses.items()
        if seeds and by_seed.keys() == seeds and all(map(math.isfinite, by_seed.values()))
    }


def best_strength(whole: Losses) -> float:
    """The strength of the least mean loss; of equal ones the largest.

    >>> best_strength({0.0: {0: 1.3, 1: 1.2}, 0.1: {0: 0.8, 1: 0.9}})
    0.1
    """
    return min(whole, key=lambda strength: (statistics.fmean(whole[strength].values()), -strength))


def differences(losses: Mapping[int, float], best: Mapping[int, float]) -> list[float]:
    """Differences of losses to the best strength's, seed by seed.

    >>> differences({0: 3.0, 1: 2.0}, best={0: 1.0, 1: 1.5})
    [2.0, 0.5]
    """
    return [losses[seed] - best[seed] for seed in sorted(best)]


def within_one_error(whole: Losses) -> list[float]:
    """The strengths whose mean paired difference to the best is within one standard error; none with a single seed.

    >>> within_one_error({0.0: {0: 1.30, 1: 1.22}, 0.1: {0: 0.80, 1: 0.90}, 1.0: {0: 0.90, 1: 0.81}})
    [0.1, 1.0]
    """
    best = whole[best_strength(whole)]
    paired = {strength: differences(losses, best) for strength, losses in whole.items()}
    return [
        strength
        for strength, values in paired.items()
        if len(values) > 1 and statistics.fmean(values) <= _standard_error(values)
    ]


def _standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))
