"""A study that an earlier version began goes on with this one: finished or killed in training, in SQLite and PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql
import torch
from mlflow import MlflowClient
from support.postgres import Postgres, binaries, running
from support.stored_versions import (
    NODE,
    POSTGRESQL,
    SQLITE,
    StoredVersion,
    home_of,
    libraries,
    numbers_of,
    processor,
    settle_workers,
    stored_versions,
)

import wdsearch

STUDIES = ("adamw", "sgd")
RESUMED = {"0.1.0"}
"""Versions whose checkpoints are gone on from; trials of others train from their start, to the same numbers."""
TRIALS = 10


@dataclass(frozen=True)
class Project:
    """A folder with study files and the state that a version left, laid out on this machine; tests run in it."""

    version: StoredVersion
    engine: sql.Engine
    expected: dict[str, Any]

    def numbers(self, study: str) -> dict[str, Any]:
        """Numbers to which the version brought the study of a file when nobody disturbed it."""
        numbers: dict[str, Any] = self.expected["studies"][study]
        return numbers

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """Rows that the storage holds."""
        with self.engine.begin() as database:
            return [tuple(row) for row in database.execute(sql.text(query), values)]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if binaries() is None:
        pytest.skip("needs PostgreSQL")
    with running() as server:
        yield server


@pytest.fixture(params=[SQLITE, POSTGRESQL])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=stored_versions(), ids=lambda version: version.name)
def project(
    request: pytest.FixtureRequest, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    version, folder = request.param, tmp_path / "project"
    version.unpack(storage, folder)
    url = f"sqlite:///{home_of(folder) / 'optuna.db'}"
    if storage == POSTGRESQL:
        url = request.getfixturevalue("server").create(f"studies{os.urandom(4).hex()}")
        version.restore(url, folder)
        monkeypatch.setenv("WDSEARCH_STORAGE", url)
    monkeypatch.setenv("WDSEARCH_HOME", str(home_of(folder)))
    monkeypatch.chdir(folder)
    engine = sql.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    settle_workers(engine)
    yield Project(version, engine, version.expected())
    engine.dispose()


def command(*words: str, code: int = 0) -> str:
    """Output of `wdsearch`, called in this process; raises AssertionError if it ends with another code."""
    from wdsearch.cli import main

    output = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["wdsearch", *words])
        with redirect_stdout(output), pytest.raises(SystemExit) as ended:
            main()
    assert (ended.value.code or 0) == code, output.getvalue()
    return output.getvalue()


def process(*words: str) -> str:
    """Output of `python -m wdsearch.cli`, as jobs and crontabs call it; raises CalledProcessError if it fails."""
    return subprocess.run(
        [sys.executable, "-m", "wdsearch.cli", *words], check=True, capture_output=True, text=True
    ).stdout


def run(study: str, *overrides: str) -> wdsearch.StudyResult:
    """Search the study of a file, or another one by it."""
    return wdsearch.run(f"{study}.yaml", overrides, progress=False)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """Numbers and words in nested lists and mappings, by where they are."""
    if not isinstance(value, Mapping | list | tuple):
        return {path: value}
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    return {where: leaf for key, item in items for where, leaf in leaves(item, (*path, key)).items()}


def check_numbers(actual: Any, stored: Any, tolerance: float = 0.0) -> None:
    """Raise AssertionError unless all that was stored is there, to the bit or within a relative tolerance.

    A later version may know more of a trial than was stored.
    """
    expected = leaves(stored)
    known = {path: leaf for path, leaf in leaves(actual).items() if path in expected}
    summed_anew = {
        path: leaf for path, leaf in expected.items() if str(path[-1]).endswith("_r2")
    }  # the last bit may differ
    expected |= {path: pytest.approx(leaf, rel=1e-12) for path, leaf in summed_anew.items()}
    if tolerance:
        numbers = {path: leaf for path, leaf in expected.items() if isinstance(leaf, float)}
        expected |= {path: pytest.approx(leaf, rel=tolerance) for path, leaf in numbers.items()}
    assert known == expected


def check_trained(result: wdsearch.StudyResult, project: Project, study: str, asked: int) -> None:
    """Raise AssertionError unless a study came to the numbers of the one that nobody disturbed.

    They are the same to the bit where versions and processor are. Another Optuna may ask for other trials than the first
    `asked`, which the earlier version asked for.
    """
    stored, here = project.numbers(study), libraries()
    same = (here, processor()) == (project.expected["libraries"], project.expected["processor"])
    comparable = TRIALS if here["optuna"] == project.expected["libraries"]["optuna"] else asked
    tolerance = 0.0 if same else 1e-5
    check_numbers(numbers_of(result)[:comparable], stored["trials"][:comparable], tolerance)
    assert result.baseline is not None
    check_numbers(result.baseline.metrics, stored["baseline"], tolerance)


def runs(study: str) -> dict[str, str]:
    """State of each run of a study in MLflow, by its key; raises AssertionError if a key has two."""
    client = MlflowClient(f"sqlite:///{os.environ['WDSEARCH_HOME']}/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    states = [
        (run.data.tags["wdsearch.key"], run.info.status) for run in client.search_runs([experiment.experiment_id])
    ]
    assert len(dict(states)) == len(states)
    return dict(states)


# -- finished ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_a_finished_study_shows_the_numbers_that_it_came_to(project: Project, study: str) -> None:
    stored = project.numbers(study)
    result = wdsearch.load_result(stored["finished"])
    check_numbers(numbers_of(result), stored["trials"])
    check_numbers(wdsearch.recommendation(result), stored["best"])
    status = json.loads(command("status", stored["finished"], "--json"))
    assert (status["state"], status["spent"], status["training"], status["workers"]) == ("done", TRIALS, {}, [])
    check_numbers(status["best"]["values"], stored["trials"][stored["best"]["trial"]]["values"])
    check_numbers(status["baseline"]["metrics"], stored["baseline"])
    check_numbers(json.loads(command("best", stored["finished"], "--format", "json")), stored["best"])
    assert torch.load(result.weights)["trial"] == stored["best"]["trial"]
    names: dict[str, Any] = {}
    exec(command("best", stored["finished"], "--format", "python"), names)
    network = wdsearch.load_best(stored["finished"])
    assert len(names["build_optimizer"](network).param_groups) == 2


@pytest.mark.parametrize("study", STUDIES)
def test_a_finished_study_is_left_alone_and_goes_on_with_a_larger_budget(project: Project, study: str) -> None:
    stored, name = project.numbers(study), project.numbers(study)["finished"]
    slots = project.rows("SELECT * FROM wdsearch_slots ORDER BY study, slot")
    check_numbers(numbers_of(run(study, f"study={name}")), stored["trials"])
    assert project.rows("SELECT * FROM wdsearch_slots ORDER BY study, slot") == slots
    larger = run(study, f"study={name}", f"budget.trials={TRIALS + 2}")
    assert [trial.number for trial in larger.trials] == [*range(TRIALS + 2)]
    check_numbers(numbers_of(larger), stored["trials"])
    status = json.loads(command("status", name, "--json"))
    assert (status["state"], status["spent"], status["undelivered"]) == ("done", TRIALS + 2, 0)


@pytest.mark.parametrize("storage", [SQLITE], indirect=True)
def test_what_was_explained_is_trained_again_for_the_measures_that_it_lacks(project: Project) -> None:
    """Version 0.1 did not measure what some claims are judged by now; the same configurations end as they did."""
    study = wdsearch.load_result("sgd").optuna_study
    before = study.user_attrs["outcomes:0"]
    wdsearch.explain("sgd", seeds=1, progress=False)
    after = wdsearch.load_result("sgd").optuna_study.user_attrs["outcomes.2:0"]
    assert before.keys() == after.keys()
    for name, outcome in before.items():
        assert after[name]["end"] == outcome["end"]
        common = outcome["metrics"].keys() & after[name]["metrics"].keys()
        assert "val_loss" in common or outcome["end"] == "diverged"
        for metric in common:
            assert after[name]["metrics"][metric] == pytest.approx(outcome["metrics"][metric], rel=1e-3, abs=1e-5)
        assert "nonnormality" in after[name]["measures"] or not outcome["measures"]


def test_a_launched_sweep_is_known(project: Project) -> None:
    sweep = project.numbers("adamw")["finished"]
    (launch,) = json.loads(process("status", sweep, "--json"))["launches"]
    assert (launch["engine"], launch["node"], len(launch["jobs"])) == ("local", NODE, 1)
    assert [one["study"] for one in json.loads(command("trend", "adamw", "--json"))["sweeps"]] == [sweep]


@pytest.mark.parametrize(("state", "code"), [("launched", 0), ("failed", 1)])
def test_a_sweep_that_was_due_is_not_begun_again(project: Project, state: str, code: int) -> None:
    """The yearly sweep is made this year's; whoever asks for it again is told how it ended."""
    due = datetime(datetime.now(UTC).year, 1, 1, tzinfo=UTC).timestamp()
    with project.engine.begin() as database:
        database.execute(
            sql.text("UPDATE wdsearch_fires SET fire_time = :due, state = :state"), {"due": due, "state": state}
        )
    command("schedule", "adamw.yaml", "--once", code=code)
    assert project.rows("SELECT fire_time, state, attempts FROM wdsearch_fires") == [(due, state, 1)]
    assert project.rows("SELECT count(*) FROM studies") == [(4,)]


@pytest.mark.parametrize("storage", [SQLITE], indirect=True)
def test_a_report_on_a_finished_study_is_written_anew(project: Project) -> None:
    page = Path(command("report", "sgd").strip())
    assert page.is_relative_to(home_of(Path().absolute()))
    assert "sgd" in page.read_text()


# -- killed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("study", STUDIES)
def test_a_killed_study_ends_with_the_numbers_of_the_undisturbed_one(project: Project, study: str) -> None:
    name = f"{study}-killed"
    status = json.loads(command("status", name, "--json"))
    assert status["state"] == "stopped"
    assert 0 < status["spent"] < status["spent"] + len(status["training"]) <= TRIALS
    command("run", f"{study}.yaml", "--set", f"study={name}")
    result = wdsearch.load_result(name)
    check_trained(result, project, study, status["spent"] + len(status["training"]))
    assert torch.load(result.weights)["trial"] == result.best.number
    identity = project.rows("SELECT study_id FROM studies WHERE study_name = :name", name=name)[0][0]
    assert project.rows("SELECT count(*) FROM trials WHERE study_id = :id", id=identity) == [(TRIALS,)]
    assert project.rows("SELECT count(*) FROM wdsearch_slots WHERE study = :id", id=identity) == [(TRIALS + 2,)]
    assert project.rows("SELECT worker FROM wdsearch_workers WHERE study = :id", id=identity) == []
    assert not [*(result.folder / "workers").iterdir()]
    keys = ["study", "baseline", *(f"trial-{number}" for number in range(TRIALS))]
    assert runs(name) == dict.fromkeys(keys, "FINISHED")


@pytest.mark.parametrize("storage", [SQLITE], indirect=True)
@pytest.mark.parametrize("study", STUDIES)
def test_a_killed_worker_goes_on_from_its_checkpoint(project: Project, study: str) -> None:
    """Trials that go on from altered weights end with other numbers; trained from their start they would not."""
    (path,) = home_of(Path()).glob(f"studies/{study}-killed/workers/*.pt")
    checkpoint = torch.load(path)
    if project.version.name not in RESUMED or f"torch {libraries()['torch']}," not in checkpoint["made"]:
        pytest.skip("the checkpoint is of another kind, and not used")
    numbers = {number for cohort in checkpoint["cohorts"] for number in cohort["numbers"]}
    torch.save(altered(checkpoint), path)
    trials = dict(enumerate(numbers_of(run(study, f"study={study}-killed"))))
    stored = dict(enumerate(project.numbers(study)["trials"]))
    different = {number for number in stored if trials[number]["metrics"] != stored[number]["metrics"]}
    assert numbers <= different
    assert not different & set(range(min(numbers)))


def altered(value: Any) -> Any:
    """A checkpoint with other weights."""
    if isinstance(value, torch.Tensor):
        return value * 1.01 if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(altered(item) for item in value)
    return {key: altered(item) for key, item in value.items()} if isinstance(value, Mapping) else value


@pytest.mark.slow
@pytest.mark.parametrize("storage", [SQLITE], indirect=True)
def test_the_command_goes_on_with_a_killed_study(project: Project) -> None:
    """As a user does after an upgrade: a process of its own, with its report, its records and its model."""
    process("run", "sgd.yaml", "--set", "study=sgd-killed")
    check_trained(wdsearch.load_result("sgd-killed"), project, "sgd", TRIALS)
