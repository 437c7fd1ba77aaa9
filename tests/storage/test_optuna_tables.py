"""Trials written in bulk are read by Optuna as if it had written them itself."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from support import postgres

from wdsearch.storage.database import full_url, open_database
from wdsearch.storage.optuna_tables import create_trials, finish, report, set_attribute
from wdsearch.strategies.optuna_private import relational_storage

DISTRIBUTIONS = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "depth": IntDistribution(1, 5),
    "norm": CategoricalDistribution(["batch", "layer", None]),
}
BACKENDS = [
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.skipif(not postgres.binaries(), reason="no PostgreSQL")),
]


def template(index: int) -> FrozenTrial:
    params = {"lr": 10.0 ** -(1 + index % 3), "depth": 1 + index % 5, "norm": ("batch", "layer", None)[index % 3]}
    attributes = {"user_attrs": {"slot": index}, "system_attrs": {"sampled": {"at": index}}}
    return create_trial(state=TrialState.RUNNING, params=params, distributions=DISTRIBUTIONS, **attributes)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    with postgres.running() as found:
        yield found


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'optuna.db'}"
    name = f"bulk_{abs(hash(request.node.name))}"
    return full_url(request.getfixturevalue("server").create(name))


@pytest.fixture
def study(database: str) -> optuna.Study:
    return optuna.create_study(storage=open_database(database), study_name="x")


def one_by_one(study: optuna.Study) -> None:
    """Trials of the test below, written by Optuna's own means."""
    storage = study._storage
    ids = [storage.create_new_trial(study._study_id, template_trial=template(index)) for index in range(5)]
    for trial, step, value in [(0, 1, 0.5), (1, 1, float("inf")), (0, 1, 0.25), (0, 2, 0.125), (2, 1, float("nan"))]:
        storage.set_trial_intermediate_value(ids[trial], step, value)
    for trial in (0, 1):
        storage.set_trial_user_attr(ids[trial], "result", {"loss": trial})
    storage.set_trial_user_attr(ids[1], "result", "another")
    storage.set_trial_state_values(ids[0], TrialState.COMPLETE, [0.125])
    storage.set_trial_state_values(ids[1], TrialState.PRUNED, [float("inf")])
    storage.set_trial_state_values(ids[3], TrialState.FAIL)


def in_bulk(study: optuna.Study) -> None:
    ids = create_trials(study, [template(index) for index in range(3)])
    ids += create_trials(study, [template(index) for index in range(3, 5)])
    report(study, {ids[0]: (1, 0.5), ids[1]: (1, float("inf"))})
    report(study, {ids[0]: (1, 0.25), ids[2]: (1, float("nan"))})
    report(study, {ids[0]: (2, 0.125)})
    set_attribute(study, "result", {ids[0]: {"loss": 0}, ids[1]: {"loss": 1}})
    set_attribute(study, "result", {ids[1]: "another"})
    ends: dict[int, Any] = {ids[0]: (TrialState.COMPLETE, [0.125]), ids[1]: (TrialState.PRUNED, [float("inf")])}
    finish(study, ends | {ids[3]: (TrialState.FAIL, None)})


def told(trials: list[FrozenTrial]) -> list[dict[str, Any]]:
    kept = ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs")
    found = [{name: getattr(trial, name) for name in kept} for trial in trials]
    for trial, shown in zip(trials, found, strict=True):
        shown["reports"] = {step: str(value) for step, value in trial.intermediate_values.items()}
        shown["times"] = (trial.datetime_start is not None, trial.datetime_complete is not None)
    return found


def test_it_reads_as_what_optuna_writes_one_by_one(database: str, study: optuna.Study) -> None:
    in_bulk(study)
    other = optuna.create_study(storage=open_database(database), study_name="y")
    one_by_one(other)
    anew = optuna.load_study(storage=open_database(database), study_name="x")
    by_optuna = optuna.load_study(storage=optuna.storages.RDBStorage(database), study_name="x")
    assert told(anew.trials) == told(other.trials) == told(study.trials) == told(by_optuna.trials)
    assert [trial.datetime_start for trial in anew.trials] == [trial.datetime_start for trial in by_optuna.trials]
    apart = (study.trials[0].datetime_start - other.trials[0].datetime_start).total_seconds()  # type: ignore[operator]
    assert abs(apart) < 60, "the times are of one clock"


def test_what_another_worker_writes_of_trials_in_training_is_seen(database: str, study: optuna.Study) -> None:
    first, second, third = create_trials(study, [template(index) for index in range(3)])
    other = optuna.load_study(storage=open_database(database), study_name="x")

    def alike() -> list[dict[str, Any]]:
        anew = told(optuna.load_study(storage=open_database(database), study_name="x").trials)
        assert told(study.trials) == anew
        return anew

    assert [shown["state"] for shown in alike()] == [TrialState.RUNNING] * 3
    report(other, {first: (1, 0.5), second: (1, 0.25)})
    set_attribute(other, "result", {first: {"loss": 0.5}})
    assert alike()[0]["reports"] == {1: "0.5"}
    optuna.trial.Trial(other, second).set_constraint("gap", 0.5)
    finish(other, {first: (TrialState.COMPLETE, [0.5]), second: (TrialState.PRUNED, [0.25])})
    create_trials(other, [template(3)])
    assert [shown["state"].name for shown in alike()] == ["COMPLETE", "PRUNED", "RUNNING", "RUNNING"]
    report(study, {third: (2, 0.125)})
    assert alike()[2]["reports"] == {2: "0.125"}


def test_what_another_worker_finished_stays_as_it_is(study: optuna.Study) -> None:
    (trial,) = create_trials(study, [template(0)])
    finish(study, {trial: (TrialState.COMPLETE, [0.25])})
    before = told(study.trials)
    report(study, {trial: (9, 9.0)})
    set_attribute(study, "result", {trial: "late"})
    finish(study, {trial: (TrialState.PRUNED, [9.0])})
    assert told(study.trials) == before


def test_workers_that_create_at_once_get_numbers_without_gaps_or_doubles(database: str, study: optuna.Study) -> None:
    """Half of them by Optuna's own means."""
    together = Barrier(4)

    def create(bulk: bool) -> None:
        own = optuna.load_study(storage=open_database(database), study_name="x")
        together.wait()
        for index in range(8):
            if bulk:
                create_trials(own, [template(index), template(index + 1)])
            else:
                own._storage.create_new_trial(own._study_id, template_trial=template(index))

    threads = [Thread(target=create, args=(bulk,)) for bulk in (True, False, True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [trial.number for trial in study.trials] == list(range(48))


@pytest.mark.parametrize("act", ["create", "report", "attribute", "finish"])
def test_a_batch_is_one_transaction_whatever_its_size(study: optuna.Study, act: str) -> None:
    ids = create_trials(study, [template(index) for index in range(16)])
    acts: dict[str, Callable[[], Any]] = {
        "create": lambda: create_trials(study, [template(index) for index in range(16)]),
        "report": lambda: report(study, dict.fromkeys(ids, (1, 0.5))),
        "attribute": lambda: set_attribute(study, "result", {trial: {"loss": 0.5} for trial in ids}),
        "finish": lambda: finish(study, {trial: (TrialState.COMPLETE, [0.5]) for trial in ids}),
    }
    commits: list[Any] = []

    def count(connection: Any) -> None:
        commits.append(connection)

    storage = relational_storage(study)
    assert storage is not None
    event.listen(storage.engine, "commit", count)
    acts[act]()
    assert len(commits) == 1


@pytest.mark.skipif(not postgres.binaries(), reason="no PostgreSQL")
def test_a_database_that_knows_of_no_encoding_keeps_texts(server: postgres.Postgres) -> None:
    url = full_url(server.create("ascii", "--encoding=SQL_ASCII", "--template=template0", "--locale=C"))
    study = optuna.create_study(storage=open_database(url), study_name="Größe")
    study.set_user_attr("key", "λ")
    assert optuna.load_study(storage=open_database(url), study_name="Größe").user_attrs == {"key": "λ"}
