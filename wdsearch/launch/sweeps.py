"""The sweeps of a family: dated studies of one study file, the winners they begin with, and their workers."""

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
from wdsearch.optuna_private import study_id
from wdsearch.search.run import begin
from wdsearch.search.status import study_status
from wdsearch.storage.attributes import FAMILY, FIRED, WARM
from wdsearch.storage.home import Home
from wdsearch.storage.launches import launches_of
from wdsearch.storage.results import best_trial, load_result
from wdsearch.storage.schedule_claims import Fire
from wdsearch.study.load import StudyConfig
from wdsearch.study.space import distributions

LOCAL = "local"
MOST_WINNERS = 4
"""Of earlier sweeps that one begins with."""


class Sweeps:
    """The sweeps of a storage: begins them, and says whether they are at work.

    With `here` no workers are started: the process that asks for it works itself.
    """

    def __init__(self, home: Home, storage: str | None, here: bool = False) -> None:
        self.home, self.storage, self.here = home, storage, here

    def begin(self, config: StudyConfig, fire: Fire) -> str:
        """Begin the sweep of a fire and start its workers, unless that was done before and they were not killed; says which.

        Raises what `launch` raises, EngineError as well for an engine that starts nothing itself.
        """
        plan = config.schedule
        assert plan is not None
        if self.was_killed(config, fire.study):
            found = launch(fire.study, plan.on, plan.workers, plan.options, home=self.home.path, storage=self.storage)
            return f"{counted(found.workers, 'worker')} on {found.engine}"
        if self._is_begun(fire.study):
            return "its workers had been started already"
        if engine_of(plan.on).renders and not self.here:
            raise EngineError(f"{plan.on} only writes what others start: wdsearch schedule FILE --emit cronjob")
        warm = self._winners(config, fire)
        attributes = {FAMILY: fire.family, FIRED: shown_time(fire.fire_time), WARM: warm}
        told = f", first with {counted(len(warm), 'earlier winner')}" if warm else ""
        sweep = sweep_of(config, fire.study)
        if self.here:
            begin(sweep, self.home, self.storage, False, attributes)
            return f"in this process{told}"
        found = launch(
            sweep, plan.on, plan.workers, plan.options,
            home=self.home.path, storage=self.storage, progress=False, attributes=attributes,
        )  # fmt: skip
        return f"{counted(found.workers, 'worker')} on {found.engine}{told}"

    def was_killed(self, config: StudyConfig, study: str) -> bool:
        """Whether a sweep's workers on this machine were killed before it was done.

        A container's workers die with their scheduler, a machine's with its power; those that were asked to end stay ended.
        """
        if config.schedule is None or config.schedule.on != LOCAL or self.here:
            return False
        try:
            here = any(one.launch.node == platform.node() for one in launched(study, self.home, self.storage))
        except StudyNotFoundError:
            return False
        if not here or self.at_work(study):
            return False
        found = study_status(study, self.home, self.storage)
        return found.state != "done" and not (found.workers and all(worker.released for worker in found.workers))

    def at_work(self, study: str) -> bool:
        """Whether a sweep's workers live, or wait for their turn; who lives says so in the storage, whatever its engine says.

        Raises LaunchError if nobody lives, there is work left, and an engine does not say whether workers wait.
        """
        try:
            state = study_status(study, self.home, self.storage).state
            launches = launched(study, self.home, self.storage)
        except StudyNotFoundError:
            return False
        if state == "running" or any(one.is_open for one in launches):
            return True
        faults = [one.fault for one in launches if one.fault]
        if faults and state != "done":
            raise LaunchError(f"whether {study} has workers is not known: {faults[0]}")
        return False

    def _is_begun(self, study: str) -> bool:
        """Whether workers of it were started by a scheduler that died before it could say so."""
        try:
            opened, engine = self.home.load_with_engine(study, self.storage)
        except StudyNotFoundError:
            return False
        launches = launches_of(engine, study_id(opened))
        return any(one.jobs for one in launches) or bool(opened.get_trials(deepcopy=False))

    def _winners(self, config: StudyConfig, fire: Fire) -> list[dict[str, Any]]:
        sweeps = sweeps_of(fire.family, self.home.open(self.storage))
        return winners(sweeps, distributions(config), shown_time(fire.fire_time))


def sweep_of(config: StudyConfig, study: str) -> StudyConfig:
    """The study of one sweep: under its own name, and without the schedule."""
    news = {name: getattr(config, name) for name in StudyConfig.model_fields} | {"study": study, "schedule": None}
    return StudyConfig.model_construct(_fields_set=config.model_fields_set - {"schedule"}, **news)


def winners(sweeps: Sequence[optuna.Study], space: Mapping[str, BaseDistribution], before: str) -> list[dict[str, Any]]:
    """The best trials of the finished sweeps due before a time, the latest first, each once, as far as they lie in the space."""
    found: list[dict[str, Any]] = []
    for study in reversed(sweeps):
        if len(found) == MOST_WINNERS:
            break
        if study.user_attrs.get(FIRED, "") >= before or not is_finished(load_result(study)):
            continue
        best = best_trial(study)
        params = {name: best.params[name] for name in space if name in best.params} if best else {}
        known = [one["params"] for one in found]
        if best and params not in known and all(_contains(space, name, params) for name in space):
            found.append({"params": params, "from": f"{study.study_name}, trial {best.number}"})
    return found


def _contains(space: Mapping[str, BaseDistribution], name: str, params: Mapping[str, Any]) -> bool:
    if name not in params:
        return False
    try:
        return space[name]._contains(space[name].to_internal_repr(params[name]))
    except ValueError:  # of choices that there are no more
        return False
