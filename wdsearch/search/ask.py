"""Asks Optuna for trials so that the same study asks the same again, after a restart too."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from wdsearch.storage.attributes import SLOT, WARM
from wdsearch.storage.optuna_tables import create_trials
from wdsearch.strategies.optuna_private import storage_of, study_id, trial_id
from wdsearch.strategies.pruners import make_pruner
from wdsearch.strategies.samplers import make_sampler
from wdsearch.study.schema import Choice, StudyConfig


def build_sampler(config: StudyConfig, slot: int = 0) -> BaseSampler:
    """The study's sampler, seeded for the ask of one slot; an own object is taken as it is."""
    chosen = config.search.sampler
    if isinstance(chosen, BaseSampler):
        return chosen
    name, options = (chosen.name, chosen.options) if isinstance(chosen, Choice) else ("tpe", {})
    return make_sampler(name, options, config.seed, slot)


def build_pruner(config: StudyConfig) -> BasePruner:
    """The study's pruner; with several goals none."""
    chosen = config.search.pruner
    if isinstance(chosen, BasePruner):
        return chosen
    default = "halving" if len(config.objective.goals) == 1 else "none"
    name, options = (chosen.name, chosen.options) if isinstance(chosen, Choice) else (default, {})
    return make_pruner(name, options, config.budget.epochs)


def ask(
    study: optuna.Study, config: StudyConfig, distributions: dict[str, BaseDistribution], slots: Sequence[int]
) -> list[int]:
    """Ask for a trial for each slot, whose number is the trial's attribute `slot`; the trials' ids.

    The first slots of a study with parameters to begin with take these, whichever worker asks. The sampler is
    asked in a copy of the study in memory and is new for each ask, and all trials enter the storage at once: a worker that
    is killed in between and started again asks as if nothing had happened.
    """
    if not slots:
        return []
    shadow = _shadow(study, build_sampler(config))
    starts: dict[int, Any] = dict(enumerate(study.user_attrs.get(WARM, ())))
    trials = []
    for slot in slots:
        start = starts.get(slot)
        trial = _ask_for_one(shadow, config, distributions, slot, start["params"] if start else None)
        trials.append(_in_training(trial, {SLOT: slot} | ({WARM: start["from"]} if start else {})))
    return create_trials(study, trials)


def _ask_for_one(
    study: optuna.Study,
    config: StudyConfig,
    distributions: dict[str, BaseDistribution],
    slot: int,
    params: Mapping[str, Any] | None,
) -> FrozenTrial:
    """A trial with the sampler's parameters, or with `params`, now in training in the study as well."""
    study.sampler = build_sampler(config, slot)
    if params is None:
        trial = study.ask(fixed_distributions=distributions)
    else:
        fixed = create_trial(state=TrialState.RUNNING, params=dict(params), distributions=distributions)
        trial = Trial(study, create_trials(study, [fixed])[0])
    if isinstance(study.sampler, GPSampler):
        _lie(study, trial)
    return storage_of(study).get_trial(trial_id(trial))


def _shadow(study: optuna.Study, sampler: BaseSampler) -> optuna.Study:
    """A copy of the study in memory; for TPE and GP trials in training count by what they have reported.

    Optuna's TPE takes every running trial for a bad one. Of a population, those that still train are the ones that
    passed their rungs: it would keep away from the best. For the Gaussian process, which knows finished trials only,
    the last reported value stands for the result.
    """
    shadow = optuna.create_study(directions=study.directions)
    gaussian, silent = isinstance(sampler, GPSampler), []
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING and not (_counts_by_reports(sampler) and trial.intermediate_values):
            silent.append(trial)
        elif trial.state in (TrialState.RUNNING, TrialState.PRUNED) and _counts_by_reports(sampler):
            _enter(shadow, _as_reported(trial, finished=gaussian) if trial.intermediate_values else trial)
        elif trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            _enter(shadow, trial)
    for trial in silent:
        number = _enter(shadow, _in_training(trial))
        if gaussian:
            _lie(shadow, Trial(shadow, number))
    return shadow


class _AsItIs:
    """A trial that is copied without its contents: a deep copy of a thousand trials takes half a second."""

    def __init__(self, trial: FrozenTrial) -> None:
        self.trial = trial

    def __deepcopy__(self, memo: object) -> FrozenTrial:
        return copy.copy(self.trial)


def _enter(study: optuna.Study, trial: FrozenTrial) -> int:
    """Take a trial into a study in memory, whose storage changes no trial in place; its id there."""
    template: Any = _AsItIs(trial)
    return storage_of(study).create_new_trial(study_id(study), template_trial=template)


def _counts_by_reports(sampler: BaseSampler) -> bool:
    return isinstance(sampler, TPESampler | GPSampler)


def _as_reported(trial: FrozenTrial, finished: bool) -> FrozenTrial:
    reported = trial.intermediate_values
    return create_trial(
        state=TrialState.COMPLETE if finished else TrialState.PRUNED,
        value=reported[max(reported)] if finished else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=reported,
    )


def _in_training(like: FrozenTrial, attributes: Mapping[str, Any] | None = None) -> FrozenTrial:
    """A trial in training with the same parameters."""
    return create_trial(
        state=TrialState.RUNNING,
        params=like.params,
        distributions=like.distributions,
        user_attrs=dict(attributes or {}),
        system_attrs=like.system_attrs,
    )


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
