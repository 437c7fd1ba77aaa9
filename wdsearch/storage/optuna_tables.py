"""Many trials in one transaction, where Optuna takes one for each parameter, report and value of a trial.

The only file that knows the tables of Optuna's relational storage: what it writes, Optuna reads as its own, and it reads
what Optuna does, without an object for every cell. A trial that another worker finished meanwhile is left as it is.
"""

import copy
import json
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.orm import Session

from wdsearch.strategies.optuna_private import (
    HookedStorage,
    models,
    relational_storage,
    session_of,
    storage_of,
    study_id,
    trial_times,
)

End = tuple[TrialState, Sequence[float] | None]
"""End of a trial: its state, and the values of the goals if it has any."""
Row = dict[str, Any]
V = TypeVar("V")


def create_trials(study: optuna.Study, templates: Sequence[FrozenTrial]) -> list[int]:
    """Enter trials in training with the templates' parameters and attributes; their ids.

    >>> study = optuna.create_study(storage=Storage("sqlite:///:memory:"))
    >>> ids = create_trials(study, [optuna.trial.create_trial(state=TrialState.RUNNING) for _ in range(2)])
    >>> [(trial.number, trial.state.name) for trial in study.trials]
    [(0, 'RUNNING'), (1, 'RUNNING')]
    """
    storage = relational_storage(study)
    if storage is None:
        return [storage_of(study).create_new_trial(study_id(study), template_trial=one) for one in templates]
    with session_of(storage) as session:
        models.StudyModel.find_or_raise_by_id(study_id(study), session, for_update=True)
        trials = [_running(study_id(study)) for _ in templates]
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
    """Report an intermediate value of each trial, by its id: (step, value).

    >>> study = optuna.create_study(storage=Storage("sqlite:///:memory:"))
    >>> ids = create_trials(study, [optuna.trial.create_trial(state=TrialState.RUNNING) for _ in range(2)])
    >>> report(study, {ids[0]: (1, 0.5), ids[1]: (1, 0.4)})
    >>> [trial.intermediate_values for trial in study.trials]
    [{1: 0.5}, {1: 0.4}]
    """
    model = models.TrialIntermediateValueModel
    with _training(study, values) as (session, running):
        for step in {step for step, _ in running.values()}:
            trials = [trial for trial, (at, _) in running.items() if at == step]
            session.execute(delete(model).where(model.trial_id.in_(trials), model.step == step))
        _insert(session, model, (_reported(trial, step, value) for trial, (step, value) in running.items()))


def set_attribute(study: optuna.Study, key: str, values: Mapping[int, Any]) -> None:
    """Set one user attribute of each trial, by its id.

    >>> study = optuna.create_study(storage=Storage("sqlite:///:memory:"))
    >>> ids = create_trials(study, [optuna.trial.create_trial(state=TrialState.RUNNING) for _ in range(2)])
    >>> set_attribute(study, "age", dict.fromkeys(ids, 9))
    >>> [trial.user_attrs for trial in study.trials]
    [{'age': 9}, {'age': 9}]
    """
    model = models.TrialUserAttributeModel
    with _training(study, values) as (session, running):
        session.execute(delete(model).where(model.trial_id.in_(running), model.key == key))
        _insert(session, model, (row for trial, value in running.items() for row in _named(trial, {key: value})))


def finish(study: optuna.Study, ends: Mapping[int, End]) -> None:
    """End each trial, by its id.

    >>> study = optuna.create_study(storage=Storage("sqlite:///:memory:"))
    >>> ids = create_trials(study, [optuna.trial.create_trial(state=TrialState.RUNNING) for _ in range(2)])
    >>> finish(study, {ids[0]: (TrialState.COMPLETE, [0.4]), ids[1]: (TrialState.PRUNED, None)})
    >>> [(trial.state.name, trial.values) for trial in study.trials]
    [('COMPLETE', [0.4]), ('PRUNED', None)]
    """
    model = models.TrialValueModel
    with _training(study, ends) as (session, running):
        session.execute(delete(model).where(model.trial_id.in_(running)))
        _insert(session, model, (row for trial, (_, values) in running.items() for row in _values(trial, values or ())))
        for trial in session.scalars(select(models.TrialModel).where(models.TrialModel.trial_id.in_(running))):
            trial.state, trial.datetime_complete = running[int(trial.trial_id)][0], datetime.now()


class Storage(HookedStorage):
    """Optuna's storage, which reads trials some times faster.

    Optuna reads trials in training again at each look, and there are as many as all workers train. Of those that this storage
    has shown before it reads only what may change: they were entered with all their parameters.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_training: dict[int, FrozenTrial] = {}

    def read_trials(
        self, study: int, states: Container[TrialState] | None, included: set[int], above: int
    ) -> list[FrozenTrial]:
        """Trials of a study by id, in some states or any: those of the ids `included`, and all `above` an id."""
        trial = models.TrialModel
        newer = trial.trial_id > above
        of_study = (trial.study_id == study, or_(newer, trial.trial_id.in_(included)))
        with session_of(self) as session:
            models.StudyModel.find_or_raise_by_id(study, session)
            rows = session.execute(select(*trial.__table__.columns).where(*of_study).order_by(trial.trial_id)).all()
            training = {row.trial_id for row in rows if row.state == TrialState.RUNNING}
            known = {trial_id: self._in_training[trial_id] for trial_id in training & self._in_training.keys()}
            others = (*of_study, trial.trial_id.not_in(known)) if known else of_study
            cells = {
                model: _cells(session, model, of_study if model in _CHANGING else others) for model in _CELLS if rows
            }
        trials = {row.trial_id: _frozen(row, cells, known.get(row.trial_id)) for row in rows}
        self._in_training = {trial_id: trials[trial_id] for trial_id in training}
        return [trials[row.trial_id] for row in rows if states is None or row.state in states]


_CELLS: dict[type, tuple[str, ...]] = {
    models.TrialParamModel: ("param_name", "param_value", "distribution_json"),
    models.TrialValueModel: ("objective", "value", "value_type"),
    models.TrialUserAttributeModel: ("key", "value_json"),
    models.TrialSystemAttributeModel: ("key", "value_json"),
    models.TrialIntermediateValueModel: ("step", "intermediate_value", "intermediate_value_type"),
}


_CHANGING = (models.TrialUserAttributeModel, models.TrialIntermediateValueModel)
"""Tables that are written while a trial is in training."""


def _cells(session: Session, model: Any, conditions: Sequence[Any]) -> dict[int, list[Any]]:
    """The rows of a table beside that of trials, by trial, in the order in which they were written."""
    columns, key = [getattr(model, name) for name in _CELLS[model]], next(iter(model.__table__.primary_key))
    cells_of: dict[int, list[Any]] = defaultdict(list)
    for trial, *cells in session.execute(
        select(model.trial_id, *columns).join(models.TrialModel).where(*conditions).order_by(key)
    ):
        cells_of[trial].append(cells)
    return cells_of


def _frozen(row: Any, cells: Mapping[type, Mapping[int, list[Any]]], known: FrozenTrial | None) -> FrozenTrial:
    """A trial from its cells; one that is `known` with what may have changed."""

    def of(model: type) -> list[Any]:
        return cells[model].get(row.trial_id, [])

    reports = models.TrialIntermediateValueModel
    attributes = {key: json.loads(text) for key, text in of(models.TrialUserAttributeModel)}
    reported = {step: reports.stored_repr_to_intermediate_value(*stored) for step, *stored in of(reports)}
    if known is not None:
        trial = copy.copy(known)
        trial.user_attrs, trial.intermediate_values = attributes, reported
        return trial
    start, complete = trial_times(row.datetime_start, row.datetime_complete)
    params = [(name, value, _distribution(text)) for name, value, text in of(models.TrialParamModel)]
    values = models.TrialValueModel
    return FrozenTrial(
        number=row.number,
        state=row.state,
        value=None,
        values=[values.stored_repr_to_value(*stored) for _, *stored in sorted(of(values), key=lambda cell: cell[0])]
        or None,
        datetime_start=start,
        datetime_complete=complete,
        params={name: distribution.to_external_repr(value) for name, value, distribution in params},
        distributions={name: distribution for name, _, distribution in params},
        user_attrs=attributes,
        system_attrs={key: json.loads(text) for key, text in of(models.TrialSystemAttributeModel)},
        intermediate_values=reported,
        trial_id=row.trial_id,
    )


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


# -- rows of Optuna's tables -------------------------------------------------------------------------------------------


@contextmanager
def _training(study: optuna.Study, values: Mapping[int, V]) -> Iterator[tuple[Session, dict[int, V]]]:
    """A transaction, and what belongs to trials in training, which nobody ends meanwhile."""
    storage, model = relational_storage(study), models.TrialModel
    assert storage is not None
    training = (model.trial_id.in_(values), model.state == TrialState.RUNNING)
    with session_of(storage) as session:
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
