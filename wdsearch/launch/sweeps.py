"""Begins the sweeps of a family: dated studies of one study file, the winners they begin with, and their workers."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from wdsearch.analysis.trend import is_finished, sweeps_of
from wdsearch.errors import StudyNotFoundError
from wdsearch.launch.engines import LaunchError
from wdsearch.launch.workers import EngineError, engine_of, launch, launched
from wdsearch.messages import counted, shown_time
from wdsearch.search.run import begin
from wdsearch.search.status import study_status
from wdsearch.storage.attributes import FAMILY, FIRED, WARM
from wdsearch.storage.home import Home
from wdsearch.storage.launches import launches_of
from wdsearch.storage.results import best_trial, load_result
from wdsearch.storage.schedule_claims import Fire
from wdsearch.strategies.optuna_private import study_id
from wdsearch.study.load import StudyConfig
from wdsearch.study.space import distributions

LOCAL = "local"
MOST_WINNERS = 4
"""Winners of earlier sweeps that a sweep begins with."""


class Sweeps:
    """Begins the sweeps of a storage, and knows whether they are at work.

    With `here` no workers are started: the calling process is to work itself.
    """

    def __init__(self, home: Home, storage: str | None, here: bool = False) -> None:
        self.home = home
        self.storage = storage
        self.here = here

    def begin(self, config: StudyConfig, claim: Fire) -> str:
        """Begin the sweep of a claim and start its workers, unless they were started and not killed; returns a text on it.

        Raises what `launch` raises, EngineError as well for an engine that starts nothing itself.
        """
        plan = config.schedule
        assert plan is not None
        if self.was_killed(config, claim.study):
            started = launch(
                claim.study, plan.on, plan.workers, plan.options, home=self.home.path, storage=self.storage
            )
            return f"{counted(started.workers, 'worker')} on {started.engine}"
        if self._is_begun(claim.study):
            return "its workers had been started already"
        if engine_of(plan.on).renders and not self.here:
            raise EngineError(f"{plan.on} only writes what others start: wdsearch schedule FILE --emit cronjob")
        warm = self._winners(config, claim)
        attributes = {FAMILY: claim.family, FIRED: shown_time(claim.fire_time), WARM: warm}
        warm_note = f", first with {counted(len(warm), 'earlier winner')}" if warm else ""
        sweep = sweep_of(config, claim.study)
        if self.here:
            begin(sweep, self.home, self.storage, False, attributes)
            return f"in this process{warm_note}"
        started = launch(
            sweep, plan.on, plan.workers, plan.options,
            home=self.home.path, storage=self.storage, progress=False, attributes=attributes,
        )  # fmt: skip
        return f"{counted(started.workers, 'worker')} on {started.engine}{warm_note}"

    def was_killed(self, config: StudyConfig, study: str) -> bool:
        """True if a sweep's workers on this machine were killed before it was done.

        A container's workers die with their scheduler, a machine's with its power; those that were asked to end stay ended.
        """
        if config.schedule is None or config.schedule.on != LOCAL or self.here:
            return False
        try:
            here = any(
                launch_status.launch.node == platform.node()
                for launch_status in launched(study, self.home, self.storage)
            )
        except StudyNotFoundError:
            return False
        if not here or self.at_work(study):
            return False
        status = study_status(study, self.home, self.storage)
        return status.state != "done" and not (status.workers and all(worker.released for worker in status.workers))

    def at_work(self, study: str) -> bool:
        """True if a sweep's workers live, by the storage and whatever the engine says, or wait for their turn.

        Raises LaunchError if nobody lives, there is work left, and an engine does not say whether workers wait.
        """
        try:
            state = study_status(study, self.home, self.storage).state
            launches = launched(study, self.home, self.storage)
        except StudyNotFoundError:
            return False
        if state == "running" or any(launch_status.is_open for launch_status in launches):
            return True
        faults = [launch_status.fault for launch_status in launches if launch_status.fault]
        if faults and state != "done":
            raise LaunchError(f"whether {study} has workers is not known: {faults[0]}")
        return False

    def _is_begun(self, study: str) -> bool:
        """True if workers of a sweep were started by a scheduler that died before it recorded that."""
        try:
            opened, engine = self.home.load_with_engine(study, self.storage)
        except StudyNotFoundError:
            return False
        launches = launches_of(engine, study_id(opened))
        return any(recorded.jobs for recorded in launches) or bool(opened.get_trials(deepcopy=False))

    def _winners(self, config: StudyConfig, claim: Fire) -> list[dict[str, Any]]:
        sweeps = sweeps_of(claim.family, self.home.open(self.storage))
        return winners(sweeps, distributions(config), shown_time(claim.fire_time))


def sweep_of(config: StudyConfig, study: str) -> StudyConfig:
    """The study of one sweep: under a name of its own, and without the schedule.

    >>> from wdsearch.study.load import load_study
    >>> content = {"study": "digits", "data": {"name": "digits"}, "model": {"name": "mlp"}}
    >>> content |= {"space": {"weight_decay": {"low": 0.01, "high": 1.0}}, "schedule": {"cron": "@weekly"}}
    >>> content |= {"budget": {"trials": 8, "epochs": 2}}
    >>> sweep = sweep_of(load_study(content), "digits.20261126T0200Z")
    >>> sweep.study, sweep.schedule
    ('digits.20261126T0200Z', None)
    """
    values = {name: getattr(config, name) for name in StudyConfig.model_fields} | {"study": study, "schedule": None}
    return StudyConfig.model_construct(_fields_set=config.model_fields_set - {"schedule"}, **values)


def winners(sweeps: Sequence[optuna.Study], space: Mapping[str, BaseDistribution], before: str) -> list[dict[str, Any]]:
    """The best trials of the finished sweeps due before a time, the latest first, each once, as far as they lie in the space."""
    best_trials: list[dict[str, Any]] = []
    for study in reversed(sweeps):
        if len(best_trials) == MOST_WINNERS:
            break
        if study.user_attrs.get(FIRED, "") >= before or not is_finished(load_result(study)):
            continue
        best = best_trial(study)
        params = {name: best.params[name] for name in space if name in best.params} if best else {}
        known = [earlier["params"] for earlier in best_trials]
        if best and params not in known and all(_contains(space, name, params) for name in space):
            best_trials.append({"params": params, "from": f"{study.study_name}, trial {best.number}"})
    return best_trials


def _contains(space: Mapping[str, BaseDistribution], name: str, params: Mapping[str, Any]) -> bool:
    if name not in params:
        return False
    try:
        return space[name]._contains(space[name].to_internal_repr(params[name]))
    except ValueError:  # a choice that is no longer offered
        return False
