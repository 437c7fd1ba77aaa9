"""Many trials in one transaction, where Optuna takes one for each parameter, report and value of a trial.

The only file that knows the tables of Optuna's relational storage: what it writes, Optuna reads as its own. A trial
that another worker finished meanwhile is left as it is.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import optuna
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

End = tuple[TrialState, Sequence[float] | None]
"""How a trial ends: its state, and the values of the goals if it has any."""
Row = dict[str, Any]
V = TypeVar("V")


def create_trials(study: optuna.Study, templates: Sequence[FrozenTrial]) -> list[int]:
    """Enter trials in training with the templates' parameters and attributes; their ids."""
    storage = _relational(study)
    if storage is None:
        return [study._storage.create_new_trial(study._study_id, template_trial=one) for one in templates]
    with _create_scoped_session(storage.scoped_session) as session:
        models.StudyModel.find_or_raise_by_id(study._study_id, session, for_update=True)
        trials = [_running(study._study_id) for _ in templates]
        session.add_all(trials)
        session.flush()
        first = trials[0].count_past_trials(session) if trials else 0
        for number, trial in enumerate(trials, first):
            trial.number = number
        ids = [int(trial.trial_id) for trial in trials]
        pairs = list(zip(ids, templates, strict=True))
        _insert(session, models.TrialParamModel, (row for pair in pairs for row in _parameters(*pair)))
        _insert(session, models.TrialUserAttributeModel, (row for i, one in pairs for row in _named(i, one.user_attrs)))
        _insert(
            session, models.TrialSystemAttributeModel, (row for i, one in pairs for row in _named(i, one.system_attrs))
        )
    return ids


def report(study: optuna.Study, values: Mapping[int, tuple[int, float]]) -> None:
    """Report an intermediate value of each trial, by its id: (step, value)."""
    model = models.TrialIntermediateValueModel
    with _training(study, values) as (session, found):
        for step in {step for step, _ in found.values()}:
            trials = [trial for trial, (at, _) in found.items() if at == step]
            session.execute(delete(model).where(model.trial_id.in_(trials), model.step == step))
        _insert(session, model, (_reported(trial, step, value) for trial, (step, value) in found.items()))


def set_attribute(study: optuna.Study, key: str, values: Mapping[int, Any]) -> None:
    """Set one user attribute of each trial, by its id."""
    model = models.TrialUserAttributeModel
    with _training(study, values) as (session, found):
        session.execute(delete(model).where(model.trial_id.in_(found), model.key == key))
        _insert(session, model, (row for trial, value in found.items() for row in _named(trial, {key: value})))


def finish(study: optuna.Study, ends: Mapping[int, End]) -> None:
    """End each trial, by its id."""
    model = models.TrialValueModel
    with _training(study, ends) as (session, found):
        session.execute(delete(model).where(model.trial_id.in_(found)))
        _insert(session, model, (row for trial, (_, values) in found.items() for row in _values(trial, values or ())))
        for trial in session.scalars(select(models.TrialModel).where(models.TrialModel.trial_id.in_(found))):
            trial.state, trial.datetime_complete = found[int(trial.trial_id)][0], datetime.now()


# -- rows of Optuna's tables -------------------------------------------------------------------------------------------


def _relational(study: optuna.Study) -> RDBStorage | None:
    storage = study._storage
    found = storage._backend if isinstance(storage, _CachedStorage) else storage
    return found if isinstance(found, RDBStorage) else None


@contextmanager
def _training(study: optuna.Study, values: Mapping[int, V]) -> Iterator[tuple[Session, dict[int, V]]]:
    """A transaction, and what belongs to trials in training, which nobody ends meanwhile."""
    storage, model = _relational(study), models.TrialModel
    assert storage is not None
    training = (model.trial_id.in_(values), model.state == TrialState.RUNNING)
    with _create_scoped_session(storage.scoped_session) as session:
        # a write, for SQLite has no SELECT ... FOR UPDATE
        session.execute(update(model).where(*training).values(state=TrialState.RUNNING))
        yield session, {trial: values[trial] for trial in session.scalars(select(model.trial_id).where(*training))}


def _running(study_id: int) -> models.TrialModel:
    return models.TrialModel(study_id=study_id, number=None, state=TrialState.RUNNING, datetime_start=datetime.now())


def _parameters(trial: int, template: FrozenTrial) -> Iterator[Row]:
    for name, value in template.params.items():
        distribution = template.distributions[name]
        stored = {"param_value": distribution.to_internal_repr(value)}
        yield {"trial_id": trial, "param_name": name, "distribution_json": distribution_to_json(distribution)} | stored


def _named(trial: int, attributes: Mapping[str, Any]) -> Iterator[Row]:
    for key, value in attributes.items():
        yield {"trial_id": trial, "key": key, "value_json": json.dumps(value)}


def _reported(trial: int, step: int, value: float) -> Row:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"trial_id": trial, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def _values(trial: int, values: Sequence[float]) -> Iterator[Row]:
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield {"trial_id": trial, "objective": objective, "value": stored, "value_type": kind}


def _insert(session: Session, model: Any, rows: Iterator[Row]) -> None:
    listed = list(rows)
    if listed:
        session.execute(insert(model), listed)
