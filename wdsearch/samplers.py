"""Optuna's samplers and pruners by name, and asking them so that the same study asks the same again."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

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


def ask(
    study: optuna.Study, config: StudyConfig, distributions: dict[str, BaseDistribution], seeds: Sequence[int]
) -> list[Trial]:
    """Ask for a batch of trials, one per seed.

    The sampler is new for each ask, so a restarted worker does not repeat its first draws.
    """
    if not isinstance(build_sampler(config, 0), TPESampler | GPSampler):
        return [_asked_of(study, config, distributions, seed) for seed in seeds]
    shadow = _as_shown_so_far(study, guess_running=isinstance(build_sampler(config, 0), GPSampler))
    return [_running(study, _asked_of(shadow, config, distributions, seed)) for seed in seeds]


def _asked_of(study: optuna.Study, config: StudyConfig, distributions: dict[str, BaseDistribution], seed: int) -> Trial:
    study.sampler = build_sampler(config, seed)
    trial = study.ask(fixed_distributions=distributions)
    if isinstance(study.sampler, GPSampler):
        _lie(study, trial)
    return trial


def _as_shown_so_far(study: optuna.Study, guess_running: bool) -> optuna.Study:
    """A copy of the study in memory in which trials in training count by what they have reported.

    Optuna's TPE takes every running trial for a bad one. Of a population, those that still train are the ones that
    passed their rungs: it would keep away from the best. With `guess_running`, for the Gaussian process, which knows
    finished trials only, what was reported stands for the value.
    """
    shadow = optuna.create_study(directions=study.directions)
    silent = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (TrialState.RUNNING, TrialState.PRUNED) and trial.intermediate_values:
            shadow.add_trial(_as_reported(trial, finished=guess_running))
        elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            shadow.add_trial(trial)
        elif trial.state == TrialState.RUNNING:
            silent.append(trial)
    for trial in silent:
        running = _running(shadow, trial)
        if guess_running:
            _lie(shadow, running)
    return shadow


def _as_reported(trial: FrozenTrial, finished: bool) -> FrozenTrial:
    reported = trial.intermediate_values
    return create_trial(
        state=TrialState.COMPLETE if finished else TrialState.PRUNED,
        value=reported[max(reported)] if finished else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=reported,
    )


def _running(study: optuna.Study, like: Trial | FrozenTrial) -> Trial:
    """A trial in training with the same parameters, in one transaction where `Study.ask` takes one per parameter."""
    template = create_trial(state=TrialState.RUNNING, params=like.params, distributions=like.distributions)
    return Trial(study, study._storage.create_new_trial(study._study_id, template_trial=template))


def _lie(study: optuna.Study, trial: Trial) -> None:
    """Tell the worst value seen for a trial in training, so that a Gaussian process keeps away from it.

    The constant liar of Ginsbourger et al. 2010, section 4.3.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if finished:
        columns = list(zip(*(peer.values for peer in finished), strict=True))
        minimize = (direction == optuna.study.StudyDirection.MINIMIZE for direction in study.directions)
        study.tell(
            trial, [max(column) if down else min(column) for column, down in zip(columns, minimize, strict=True)]
        )
