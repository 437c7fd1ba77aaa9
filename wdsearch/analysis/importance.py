"""Importance of the searched keys, from a study's complete trials."""

import math
import warnings

from optuna.study import StudyDirection
from optuna.trial import TrialState

from wdsearch.storage.results import StudyResult

FEWEST = 50
"""Complete trials that an importance is computed from at least: of fewer it is mostly noise."""


def importances(result: StudyResult) -> dict[str, float]:
    """Importance of each searched key for a complete trial being among the best, as shares of 1; the largest first.

    PED-ANOVA (Watanabe et al. 2304.10255), by the first goal: 0.1 s for 1,000 trials, for which fANOVA takes 75 s. Empty with
    too few trials.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # takes a second

    study = result.optuna_study
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(complete) < FEWEST:
        return {}
    sign = -1.0 if study.directions[0] == StudyDirection.MAXIMIZE else 1.0  # with a target it minimizes
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best_share(len(complete)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shares = get_param_importances(study, evaluator=evaluator, target=lambda trial: sign * trial.values[0])
        except (ValueError, RuntimeError, ZeroDivisionError):  # nothing that differs between the trials
            return {}
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return {key: float(share) for key, share in ranked if math.isfinite(share)}


def best_share(trials: int) -> float:
    """Share of the trials that count as the best: a tenth, more of few, for PED-ANOVA wants five.

    >>> best_share(1000), best_share(20)
    (0.1, 0.25)
    """
    return min(0.5, max(0.1, 5 / trials))
