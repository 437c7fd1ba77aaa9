"""The only file that uses names that Optuna keeps private; other files call its functions."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import datetime

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.pruners import PercentilePruner
from optuna.samplers import QMCSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.orm import Session

__all__ = [
    "HookedStorage",
    "PointSampler",
    "Reading",
    "judging_steps",
    "models",
    "relational_storage",
    "session_of",
    "storage_of",
    "study_id",
    "trial_id",
    "trial_times",
]


def study_id(study: Study) -> int:
    """Key of a study in its storage."""
    return study._study_id


def trial_id(trial: Trial | FrozenTrial) -> int:
    """Key of a trial in its storage; its number counts within the study."""
    return trial._trial_id


def storage_of(study: Study) -> BaseStorage:
    """Storage of a study."""
    return study._storage


def relational_storage(study: Study) -> RDBStorage | None:
    """Storage of a study without Optuna's cache around it; None if it has no tables."""
    storage = study._storage
    inner = storage._backend if isinstance(storage, _CachedStorage) else storage
    return inner if isinstance(inner, RDBStorage) else None


@contextmanager
def session_of(storage: RDBStorage) -> Iterator[Session]:
    """Session in a storage's tables, committed at the end, rolled back by an error."""
    with _create_scoped_session(storage.scoped_session) as session:
        yield session


def trial_times(start_utc: datetime | None, complete_utc: datetime | None) -> tuple[datetime | None, datetime | None]:
    """Beginning and end of a trial as Optuna shows them, from its columns."""
    trial = models.TrialModel(_datetime_start_utc=start_utc, _datetime_complete_utc=complete_utc)
    return trial.datetime_start, trial.datetime_complete


def judging_steps(pruner: PercentilePruner, end: int) -> range:
    """Steps from 1 to `end` - 1 at which a median or percentile pruner compares trials."""
    return range(max(1, pruner._n_warmup_steps), end, pruner._interval_steps)


class Reading(Study):
    """Snapshot of a study: its trials, also by number, are read once."""

    def __init__(self, study: Study) -> None:
        self.__dict__.update(study.__dict__)
        self.snapshot = study.get_trials(deepcopy=False)

    def __getitem__(self, number: int) -> FrozenTrial:
        return self.snapshot[number]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self.snapshot if states is None or trial.state in states]


class PointSampler(QMCSampler):
    """Optuna's QMC at a `point` of its sequence.

    Optuna counts the points in the storage, where a worker that is killed in between would shift the sequence.
    """

    point = 0

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self.point


class HookedStorage(RDBStorage):
    """Optuna's storage with an unchanged URL, even with braces in a password; a subclass may override how trials are read."""

    @staticmethod
    def _fill_storage_url_template(template: str) -> str:
        return template

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        return self.read_trials(study_id, states, included_trial_ids, trial_id_greater_than)

    def read_trials(
        self, study: int, states: Container[TrialState] | None, included: set[int], above: int
    ) -> list[FrozenTrial]:
        """Trials of a study by id, in some states or any: those of the ids `included`, and all `above` an id."""
        return super()._get_trials(study, states, included, above)
