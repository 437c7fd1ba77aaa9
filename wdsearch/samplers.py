"""Optuna's samplers and pruners by name, and asking them so that the same study asks the same again."""

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from wdsearch.pruners import HalvingPruner, HyperbandPruner
from wdsearch.schema import Choice, StudyConfig

SAMPLERS: dict[str, type[BaseSampler]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
    "qmc": QMCSampler,
    "cmaes": CmaEsSampler,
    "gp": GPSampler,
}
PRUNERS: dict[str, type[BasePruner]] = {
    "none": NopPruner,
    "median": MedianPruner,
    "halving": HalvingPruner,
    "hyperband": HyperbandPruner,
}


# what wdsearch sets itself, and what only Python can say
NOT_OPTIONS = {"seed", "epochs", "constraints_func", "gamma", "weights", "independent_sampler", "source_trials"}


def options_of(made: type[BaseSampler] | type[BasePruner]) -> dict[str, str]:
    """The options that a study file may give, by name, and their annotations."""
    parameters = inspect.signature(made).parameters
    return {
        name: inspect.formatannotation(parameter.annotation).strip("'")
        for name, parameter in parameters.items()
        if name not in NOT_OPTIONS
    }


def build_sampler(config: StudyConfig, seed: int) -> BaseSampler:
    """The study's sampler, seeded for one ask; an own object is taken as it is."""
    chosen = config.search.sampler
    if isinstance(chosen, BaseSampler):
        return chosen
    name, options = (chosen.name, chosen.options) if isinstance(chosen, Choice) else ("tpe", {})
    return make_sampler(name, options, seed % 2**32, config.seed % 2**32)


def make_sampler(name: str, options: Mapping[str, Any], seed: int, study_seed: int) -> BaseSampler:
    """A sampler by name. QMC is one sequence for the whole study, so the study's seed scrambles it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "qmc":
            defaults = {"scramble": True, "independent_sampler": RandomSampler(seed)}
            return QMCSampler(**defaults | dict(options), seed=study_seed)  # type: ignore[arg-type]
        return SAMPLERS[name](**options, seed=seed)  # type: ignore[call-arg]


def build_pruner(config: StudyConfig) -> BasePruner:
    """The study's pruner; with several goals none."""
    chosen = config.search.pruner
    if isinstance(chosen, BasePruner):
        return chosen
    default = "halving" if len(config.objective.goals) == 1 else "none"
    name, options = (chosen.name, chosen.options) if isinstance(chosen, Choice) else (default, {})
    return make_pruner(name, options, config.budget.epochs)


def make_pruner(name: str, options: Mapping[str, Any], epochs: int) -> BasePruner:
    """A pruner by name. The median pruner by default judges every eighth of the training, from the second on."""
    if name in ("halving", "hyperband"):
        return PRUNERS[name](epochs, **options)  # type: ignore[call-arg]
    eighth = max(1, epochs // 8)
    defaults = {"n_warmup_steps": 2 * eighth, "interval_steps": eighth} if name == "median" else {}
    return PRUNERS[name](**defaults | dict(options))


def ask(study: optuna.Study, config: StudyConfig, distributions: dict[str, BaseDistribution], seed: int) -> Trial:
    """Ask for one trial. The sampler is new for each ask, so a restarted worker does not repeat its first draws."""
    study.sampler = build_sampler(config, seed)
    if isinstance(study.sampler, GPSampler):
        study.enqueue_trial(_beside_those_running(study, distributions))
    return study.ask(fixed_distributions=distributions)


def _beside_those_running(study: optuna.Study, distributions: dict[str, BaseDistribution]) -> dict[str, Any]:
    """A Gaussian process's proposal that keeps away from trials in training.

    Optuna's GPSampler ignores them and would ask near-duplicates, so a shadow of the study holds them as finished with
    the worst value seen: the constant liar of Ginsbourger et al. 2010, section 4.3.
    """
    shadow = optuna.create_study(directions=study.directions, sampler=study.sampler)
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    shadow.add_trials(finished)
    if finished:
        columns = list(zip(*(trial.values for trial in finished), strict=True))
        minimize = (direction == optuna.study.StudyDirection.MINIMIZE for direction in study.directions)
        lie = [max(column) if down else min(column) for column, down in zip(columns, minimize, strict=True)]
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            made = optuna.create_trial(params=trial.params, distributions=trial.distributions, values=lie)
            shadow.add_trial(made)
    return shadow.ask(fixed_distributions=distributions).params
