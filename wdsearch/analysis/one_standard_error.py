"""λ.1se: the strongest regularization that is as good as the best, as far as the best one's seeds can tell."""

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

    The last of the strengths that follow on the best and have a mean loss of at most the best's plus one standard error of the
    best's (Breiman et al. 1984, §3.4.3; `lambda.1se` of glmnet). It ends at the first that is worse or failed on any seed: what
    lies beyond is no safer choice. With a single seed there is no error, and the best is chosen.

    >>> one_standard_error({0.0: {0: 1.30, 1: 1.22}, 0.1: {0: 0.80, 1: 0.90}, 1.0: {0: 0.90, 1: 0.81}})
    OneStandardError(best=0.1, chosen=1.0)
    """
    whole = whole_rows(losses)
    if not whole:
        return None
    return OneStandardError(best_strength(whole), max(within_one_error(losses)))


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


def within_one_error(losses: Losses) -> list[float]:
    """The best strength and its neighbours on both sides, without a gap, that are within one standard error of it.

    >>> within_one_error({0.0: {0: 1.30, 1: 1.22}, 0.1: {0: 0.80, 1: 0.90}, 1.0: {0: 0.90, 1: 0.81}})
    [0.1, 1.0]
    """
    whole, strengths = whole_rows(losses), sorted(losses)
    best = best_strength(whole)
    limit = statistics.fmean(whole[best].values()) + _standard_error(list(whole[best].values()))
    first = last = strengths.index(best)
    while first > 0 and _is_within(whole, strengths[first - 1], limit):
        first -= 1
    while last + 1 < len(strengths) and _is_within(whole, strengths[last + 1], limit):
        last += 1
    return strengths[first : last + 1]


def _is_within(whole: Losses, strength: float, limit: float) -> bool:
    return strength in whole and statistics.fmean(whole[strength].values()) <= limit


def _standard_error(values: list[float]) -> float:
    """Standard error of a mean; less than nothing for a single value, so that no other strength is as good."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else -math.inf
