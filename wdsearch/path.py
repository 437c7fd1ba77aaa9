"""λ.1se: the strongest regularization that is as good as the best, by paired differences on the same seeds."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class OneStandardError:
    """The best strength, and the largest that is within one standard error of it."""

    best: float
    chosen: float


def one_standard_error(losses: Mapping[float, Mapping[int, float]]) -> OneStandardError | None:
    """λ.1se of losses by strength and seed; smaller is better, None if no strength has a finite loss of every seed.

    The largest strength of which the mean paired difference to the best, over the same seeds, is at most one standard error
    of that difference (Breiman et al. 1984, §3.4.3; `lambda.1se` of glmnet, which does not pair). A strength that lacks a
    seed, for it diverged there, is not compared. With a single seed there is no error, and the best is chosen.
    """
    seeds = {seed for found in losses.values() for seed in found}
    whole = {
        strength: found
        for strength, found in losses.items()
        if found.keys() == seeds and all(math.isfinite(loss) for loss in found.values())
    }
    if not seeds or not whole:
        return None
    best = min(whole, key=lambda strength: (statistics.fmean(whole[strength].values()), -strength))
    close = [strength for strength, found in whole.items() if _is_close(found, whole[best])]
    return OneStandardError(best, max([best, *close]))


def _is_close(losses: Mapping[int, float], best: Mapping[int, float]) -> bool:
    differences = [losses[seed] - best[seed] for seed in sorted(best)]
    if len(differences) < 2:
        return False
    return statistics.fmean(differences) <= statistics.stdev(differences) / math.sqrt(len(differences))
