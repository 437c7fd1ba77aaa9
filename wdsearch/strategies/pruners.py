"""Pruners whose judgement of a rung depends on the values reported at it, not on the order of the trials."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.pruners import BasePruner, MedianPruner, NopPruner, PercentilePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from wdsearch.strategies.optuna_private import judging_steps


class HalvingPruner(BasePruner):
    """Successive halving: of all trials that ever reported at a rung the best 1/`reduction_factor` go on.

    Rungs lie at epochs/2, epochs/4 ..., not below `min_resource` (default: a quarter of the epochs). They are late on
    purpose, for a strongly decayed network improves late: an early rung favours small decays. Optuna's
    `SuccessiveHalvingPruner` compares with the trials judged before, so a rung that is judged worst first prunes nothing;
    here all trials that reported count (ASHA, Li et al. 1810.05934, algorithm 2).

    >>> HalvingPruner(epochs=40).rungs(number=0)
    [10, 20]
    """

    def __init__(self, epochs: int, min_resource: int | None = None, reduction_factor: int = 3) -> None:
        if reduction_factor < 2:
            raise ValueError(f"reduction_factor is {reduction_factor}; allowed is 2 or more")
        self.reduction_factor = reduction_factor
        self._rungs = _rungs(epochs, max(1, round(epochs / 4)) if min_resource is None else min_resource)

    def rungs(self, number: int) -> list[int]:
        """Ages in epochs at which a trial is judged."""
        return self._rungs

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """True if the trial is outside the best 1/η of its rung."""
        return self.outside(trial, study.get_trials(deepcopy=False), study.direction)

    def outside(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], direction: StudyDirection) -> bool:
        """True if a trial is outside the best 1/η of those of `trials` that reported at its last step."""
        step = trial.last_step
        if step is None:
            return False
        sign = -1.0 if direction == StudyDirection.MAXIMIZE else 1.0
        values = sorted(sign * peer.intermediate_values[step] for peer in self._peers(trial, trials, step))
        return sign * trial.intermediate_values[step] > values[max(1, len(values) // self.reduction_factor) - 1]

    def _peers(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], step: int) -> list[FrozenTrial]:
        return [peer for peer in trials if step in peer.intermediate_values]


class HyperbandPruner(HalvingPruner):
    """Successive halving in brackets that begin at later and later rungs (Li et al. 1603.06560).

    A trial's bracket depends on its number alone, not on the study's name as in Optuna; brackets get trials in the
    proportions of Hyperband's algorithm 1.

    >>> pruner = HyperbandPruner(epochs=40)
    >>> [pruner.rungs(number) for number in range(3)]
    [[10, 20], [20], [10, 20]]
    """

    def rungs(self, number: int) -> list[int]:
        """Ages in epochs at which a trial of this number is judged; none in the last bracket."""
        return self._rungs[self.bracket(number) :]

    def bracket(self, number: int) -> int:
        """Bracket of a trial, 0 (most pruning) to the number of rungs (none), spread evenly over consecutive numbers."""
        top = len(self._rungs)
        weights = [self.reduction_factor**s / (s + 1) for s in range(top, -1, -1)]
        golden = (number * (math.sqrt(5) - 1) / 2) % 1.0
        return int(np.searchsorted(np.cumsum(weights) / sum(weights), golden, side="right"))

    def _peers(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], step: int) -> list[FrozenTrial]:
        bracket = self.bracket(trial.number)
        return [peer for peer in super()._peers(trial, trials, step) if self.bracket(peer.number) == bracket]


def rungs(pruner: BasePruner, epochs: int, number: int) -> list[int]:
    """Ages below `epochs` at which a trial reports its value; the pruner is asked at these only.

    >>> rungs(NopPruner(), 40, 0), rungs(MedianPruner(n_warmup_steps=10, interval_steps=10), 40, 0)
    ([], [10, 20, 30])
    """
    if isinstance(pruner, HalvingPruner):
        return pruner.rungs(number)
    if isinstance(pruner, NopPruner):
        return []
    if isinstance(pruner, MedianPruner | PercentilePruner):
        return list(judging_steps(pruner, epochs))
    return list(range(1, epochs))


def _rungs(epochs: int, least: int) -> list[int]:
    halves = {round(epochs / 2**k) for k in range(1, 64)}
    return sorted(rung for rung in halves if max(1, least) <= rung < epochs)


PRUNERS: dict[str, type[BasePruner]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "halving": HalvingPruner,
    "hyperband": HyperbandPruner,
}


def make_pruner(name: str, options: Mapping[str, Any], epochs: int) -> BasePruner:
    """Build a pruner by name. The median pruner by default judges every eighth of the training, from the second on.

    >>> rungs(make_pruner("median", {}, epochs=40), 40, number=0)
    [10, 15, 20, 25, 30, 35]
    """
    if name in ("halving", "hyperband"):
        return PRUNERS[name](epochs, **options)  # type: ignore[call-arg]
    eighth = max(1, epochs // 8)
    defaults = {"n_warmup_steps": 2 * eighth, "interval_steps": eighth} if name == "median" else {}
    return PRUNERS[name](**defaults | dict(options))
