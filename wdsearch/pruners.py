"""Pruners that judge a rung by what was reported at it, in whatever order they are asked."""

import math

import numpy as np
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial


class HalvingPruner(BasePruner):
    """Successive halving: of all trials that ever reported at a rung the best 1/`reduction_factor` go on.

    Rungs lie at epochs/η, epochs/η² ..., not below `min_resource` (default: epochs/η²; early rungs favour small decays,
    for a strongly decayed network improves late). Optuna's `SuccessiveHalvingPruner` compares with those judged before,
    so a rung that is judged worst first prunes nothing; here all that reported count (ASHA, Li et al. 1810.05934).
    """

    def __init__(self, epochs: int, min_resource: int | None = None, reduction_factor: int = 3) -> None:
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor is {reduction_factor}; allowed is 2 or more")
        self.reduction_factor = reduction_factor
        self._rungs = _rungs(epochs, min_resource, reduction_factor)

    def rungs(self, number: int) -> list[int]:
        """Ages in epochs at which a trial is judged."""
        return self._rungs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is outside the best 1/η of its rung."""
        step = trial.last_step
        if step is None:
            return False
        values = [value for peer in self._peers(study, trial) if (value := peer.intermediate_values.get(step)) is not None]
        ordered = sorted(values, reverse=study.direction == StudyDirection.MAXIMIZE)
        threshold = ordered[max(1, len(ordered) // self.reduction_factor) - 1]
        value = trial.intermediate_values[step]
        return value < threshold if study.direction == StudyDirection.MAXIMIZE else value > threshold

    def _peers(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False)


class HyperbandPruner(HalvingPruner):
    """Successive halving in brackets that begin at later and later rungs (Li et al. 1603.06560).

    A trial's bracket depends on its number alone, not on the study's name as in Optuna; brackets get trials in the
    proportions of Hyperband's algorithm 1.
    """

    def rungs(self, number: int) -> list[int]:
        """Ages in epochs at which a trial of this number is judged; none in the last bracket."""
        return self._rungs[self.bracket(number) :]

    def bracket(self, number: int) -> int:
        """0 (most pruning) to the number of rungs (none), spread evenly over consecutive numbers."""
        top = len(self._rungs)
        weights = [self.reduction_factor**s / (s + 1) for s in range(top, -1, -1)]
        golden = (number * (math.sqrt(5) - 1) / 2) % 1.0
        return int(np.searchsorted(np.cumsum(weights) / sum(weights), golden, side="right"))

    def _peers(self, study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
        bracket = self.bracket(trial.number)
        return [peer for peer in study.get_trials(deepcopy=False) if self.bracket(peer.number) == bracket]


def rungs(pruner: BasePruner, epochs: int, number: int) -> list[int]:
    """Ages below `epochs` at which a trial reports its value; the pruner is asked at these only."""
    if isinstance(pruner, HalvingPruner):
        return pruner.rungs(number)
    if isinstance(pruner, NopPruner):
        return []
    if isinstance(pruner, MedianPruner | PercentilePruner):
        return list(range(max(1, pruner._n_warmup_steps), epochs, pruner._interval_steps))
    return list(range(1, epochs))


def _rungs(epochs: int, min_resource: int | None, factor: int) -> list[int]:
    least = max(1, round(epochs / factor**2)) if min_resource is None else min_resource
    levels = [round(epochs / factor**k) for k in range(1, 64) if epochs / factor**k >= 0.5]
    return sorted({level for level in levels if level >= least})
