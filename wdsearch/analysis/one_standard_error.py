"""λ.1se: the strongest regularization that is as good as the best, by paired differences on the same seeds."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

Losses = Mapping[float, Mapping[int, float]]
"""By strength and seed."""


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
    """
    whole = whole_rows(losses)
    if not whole:
        return None
    best = best_strength(whole)
    return OneStandardError(best, max([best, *within_one_error(whole)]))


def whole_rows(losses: Losses) -> Losses:
    """Those strengths that have a finite loss of every seed."""
    seeds = {seed for found in losses.values() for seed in found}
    return {x: y for x, y in losses.items() if seeds and y.keys() == seeds and all(map(math.isfinite, y.values()))}


def best_strength(whole: Losses) -> float:
    """That of the least mean; of equal ones the largest."""
    return min(whole, key=lambda strength: (statistics.fmean(whole[strength].values()), -strength))


def differences(losses: Mapping[int, float], best: Mapping[int, float]) -> list[float]:
    """To the best, seed by seed."""
    return [losses[seed] - best[seed] for seed in sorted(best)]


def within_one_error(whole: Losses) -> list[float]:
    """The strengths whose mean paired difference to the best is within one standard error; none with a single seed."""
    best = whole[best_strength(whole)]
    found = {strength: differences(losses, best) for strength, losses in whole.items()}
    return [x for x, each in found.items() if len(each) > 1 and statistics.fmean(each) <= _standard_error(each)]


def _standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values))
