"""Workers that are killed, stopped, slow or many: the study is the one that nobody disturbed, and its budget is exact."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import TrialState
from sqlalchemy import create_engine
from support.killed import EVERY_EPOCH, NEVER, searched, start
from support.studies import STUDY, told
from support.zoo import Counting, Recurrent, ZooData

import wdsearch
from wdsearch.search.run import begin
from wdsearch.search.worker import Work
from wdsearch.storage.attributes import CONCLUDED, RESULT
from wdsearch.storage.home import Home
from wdsearch.storage.leases import MOST_TAKEOVERS, Leases
from wdsearch.storage.optuna_tables import set_attribute
from wdsearch.storage.results import StudyResult, load_result, spent
from wdsearch.study.load import load_study
from wdsearch.trial.result import Result


def statuses(home: Path, study: str) -> Counter[str]:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len({run.data.tags["wdsearch.key"] for run in runs}) == len(runs), "a run is there twice"
    return Counter(run.info.status for run in runs)


def wait_for(met: Callable[[], bool], seconds: float = 60.0) -> None:
    """Until met() is true."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def threads(pid: int | None) -> set[str]:
    """States of a process's threads, as Linux names them; one that is in the kernel stops when it comes back."""
    return {path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}


def stop(process: BaseProcess, database: Path) -> None:
    """Let a process stand still, but not in the middle of a transaction: nobody could write."""
    assert process.pid is not None
    for _ in range(100):
        os.kill(process.pid, signal.SIGSTOP)
        wait_for(lambda: threads(process.pid) == {"T"})
        probe = sqlite3.connect(database, timeout=0.1, isolation_level=None)
        try:
            probe.execute("BEGIN IMMEDIATE")
            probe.execute("ROLLBACK")
            return
        except sqlite3.OperationalError:
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.01)
        finally:
            probe.close()
    pytest.fail("the process never leaves the database alone")


def counts(home: Path, study: str = "small", storage: str | None = None) -> dict[str, int]:
    """State of the study; empty while it is not there yet."""
    try:
        return load_result(study, Home(home), storage).counts
    except Exception:
        return {}


def finished(home: Path, study: str = "small", storage: str | None = None) -> int:
    return spent(counts(home, study, storage) or {"complete": 0, "pruned": 0, "diverged": 0})


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The study that nobody disturbed."""
    return searched(tmp_path_factory.mktemp("calm") / "home")


@pytest.mark.parametrize(
    ("kills", "constants"),
    [
        pytest.param([29, 36], NEVER, marks=pytest.mark.slow, id="from the start"),
        pytest.param([37, 42], EVERY_EPOCH, id="from checkpoints"),
    ],
)
def test_a_study_killed_again_and_again_is_bitwise_the_undisturbed_one(
    calm: StudyResult, tmp_path: Path, kills: list[int], constants: dict[str, float]
) -> None:
    """Before the odd and after the even ones of its writes."""
    home = tmp_path / "home"
    study = searched(home, kills * 6, constants=constants)
    assert told(study) == told(calm)
    assert study.baseline == calm.baseline
    saved, expected = (torch.load(result.weights) for result in (study, calm))
    assert saved["trial"] == expected["trial"]
    assert all(torch.equal(value, expected["state_dict"][name]) for name, value in saved["state_dict"].items())
    assert statuses(home, "small") == {"FINISHED": 16}
    assert list((study.folder / "workers").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("model", [Recurrent, Counting], ids=["GRU", "plain attribute"])
def test_trials_trained_one_after_another_go_on_from_their_checkpoint(tmp_path: Path, model: type) -> None:
    space = {key: STUDY["space"][key] for key in ("lr", "dropout", "early_stopping")}
    study = STUDY | {"study": "looped", "data": ZooData(), "model": model, "space": space}
    expected = searched(tmp_path / "calm", study=study)
    study_again = searched(tmp_path / "home", [61] * 12, study, constants=EVERY_EPOCH)
    assert told(study_again) == told(expected)
    assert study_again.baseline == expected.baseline


@pytest.mark.slow
@pytest.mark.parametrize("model", [None, Counting], ids=["fused", "one after another"])
def test_averages_go_on_from_their_checkpoint(tmp_path: Path, model: type | None) -> None:
    space = {"lr": STUDY["space"]["lr"], "ema": {"choices": [0.5, 0.9, 0.99], "off": True}, "early_stopping": 3}
    study = STUDY | {"study": "averaged", "space": space} | ({"data": ZooData(), "model": model} if model else {})
    expected = searched(tmp_path / "calm", study=study)
    study_again = searched(tmp_path / "home", [61] * 12, study, constants=EVERY_EPOCH)
    assert told(study_again) == told(expected)
    assert study_again.baseline == expected.baseline
    weights, calm_weights = (torch.load(result.weights)["state_dict"] for result in (study_again, expected))
    assert all(torch.equal(value, calm_weights[name]) for name, value in weights.items())


def other_device(checkpoint: Path) -> None:
    found = torch.load(checkpoint, weights_only=True)
    torch.save(found | {"made": found["made"].replace("cpu", "cuda")}, checkpoint)


@pytest.mark.parametrize(
    "spoil",
    [lambda path: path.write_bytes(path.read_bytes()[:1000]), pytest.param(other_device, marks=pytest.mark.slow)],
    ids=["cut", "other"],
)
def test_a_checkpoint_that_cannot_be_used_costs_only_time(
    calm: StudyResult, tmp_path: Path, spoil: Callable[[Path], Any]
) -> None:
    home = tmp_path / "home"
    killed = start(STUDY, home, 70, constants=EVERY_EPOCH)
    killed.join()
    checkpoints = list((home / "studies" / "small" / "workers").glob("*.pt"))
    assert len(checkpoints) == 1
    spoil(checkpoints[0])
    assert told(searched(home)) == told(calm)


def test_two_workers_share_the_budget_and_a_stopped_one_loses_nothing(tmp_path: Path) -> None:
    home, study = tmp_path / "home", STUDY | {"budget": {"trials": 30, "epochs": 8}}
    slow = start(study, home)
    wait_for(lambda: finished(home) >= 1)
    stop(slow, home / "optuna.db")
    quick = start(study, home)
    wait_for(lambda: finished(home) >= 20)
    time.sleep(3.0)
    assert quick.is_alive(), "it waits for the trials of the stopped one"
    os.kill(slow.pid, signal.SIGCONT)
    for process in (slow, quick):
        process.join()
        assert process.exitcode == 0
    found = load_result("small", Home(home))
    assert spent(found.counts) == len(found.trials) == 30
    assert sorted(trial.user_attrs["slot"] for trial in found.optuna_study.trials) == list(range(30))
    assert statuses(home, "small") == {"FINISHED": 32}


def test_a_worker_taken_for_dead_ends_its_trials_beside_the_one_that_took_them(tmp_path: Path) -> None:
    """Two machines that see each other's beats alone, and one stands still for longer than the grace."""
    study = STUDY | {"budget": {"trials": 12, "epochs": 8}}
    storage, constants = (
        f"sqlite:///{tmp_path / 'shared.db'}",
        {"storage.leases.GRACE_S": 2.0, "storage.leases.BEAT_S": 0.2},
    )
    slow = start(study, tmp_path / "far", storage=storage, constants=constants)
    wait_for(lambda: finished(tmp_path / "near", storage=storage) >= 1)
    stop(slow, tmp_path / "shared.db")
    try:
        quick = start(study, tmp_path / "near", storage=storage, constants=constants)
        quick.join()
        assert quick.exitcode == 0, (tmp_path / "near.log").read_text()
        done = load_result("small", Home(tmp_path / "near"), storage)
        assert spent(done.counts) == 12
        assert done.counts["running"] == 0
    finally:
        os.kill(slow.pid, signal.SIGCONT)
    slow.join()
    assert slow.exitcode == 0, (tmp_path / "far.log").read_text()
    late, told_before = (
        load_result("small", Home(tmp_path / "near"), storage),
        {trial[0]: trial for trial in told(done)},
    )
    assert {trial[0]: trial for trial in told(late) if trial[0] in told_before} == told_before, "nothing was told twice"
    assert spent(late.counts) == 12
    assert late.counts["running"] == 0


def test_what_a_killed_worker_had_settled_is_known_to_the_sampler_that_it_asks_next(tmp_path: Path) -> None:
    """Killed after it settled the end of six trials, and before Optuna was told of it."""
    asked = []
    for killed in (False, True):
        home, config = Home(tmp_path / str(killed)), load_study(STUDY)
        begin(config, home, progress=False)
        study, engine = home.load_with_engine("small")
        work = Work(config, study, Leases(engine, study._study_id, tmp_path / f"{killed}.workers"), rate_sum=1.0)
        work.resume()
        assert work.gather()
        results = {
            work.running.pop(number).trial: Result("finished", 8, {"val_loss": 1.0 / (number + 1)}, 0.01, {}, {})
            for number in range(6)
        }
        set_attribute(study, RESULT, {trial: result.as_dict() for trial, result in results.items()})
        work.tick = 8
        work.leases.settle(8)
        if killed:
            work.leases._stopped.set()
            work.leases._lock.close()
            work = Work(config, study, Leases(engine, study._study_id, tmp_path / f"{killed}.workers"), rate_sum=1.0)
            work.resume()
        else:
            work.tell(results)
            work.look()
            work.ask()
        work.leases.release()
        asked.append([trial.params for trial in study.trials[8:]])
    assert len(asked[0]) == 4
    assert asked[1] == asked[0]


@pytest.mark.parametrize("end", ["finished", "pruned", "failed"])
def test_the_first_of_two_workers_that_tell_counts(tmp_path: Path, end: str) -> None:
    database = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = optuna.create_study(storage=database)
    work = Work(load_study(STUDY), study, Leases(create_engine(database), 1, tmp_path), rate_sum=1.0)
    trial = study.ask()._trial_id
    work.look()
    optuna.storages.RDBStorage(database).set_trial_state_values(trial, TrialState.COMPLETE, [0.25])
    if end == "failed":
        work.fail(trial, "its worker died")
    else:
        work.tell({trial: Result(end, 8, {"val_loss": 0.5}, 0.01, {}, {})})
    assert (study.trials[0].state, study.trials[0].values) == (TrialState.COMPLETE, [0.25])


def test_who_comes_while_another_makes_the_studys_end_waits_and_opens_no_run_again(tmp_path: Path) -> None:
    result = wdsearch.run(STUDY, home=tmp_path, progress=False)
    study, engine = Home(tmp_path).load_with_engine("small")
    study.set_user_attr(CONCLUDED, None)
    other = Leases(engine, study._study_id, result.folder / "workers")
    other.join()
    assert other.claim_conclusion()

    def conclude() -> None:
        time.sleep(3.0)
        study.set_user_attr(CONCLUDED, 14)
        other.finish()

    thread, began, known = threading.Thread(target=conclude), time.monotonic(), runs(tmp_path, "small")
    thread.start()
    assert told(wdsearch.run(STUDY, home=tmp_path, progress=False)) == told(result)
    assert time.monotonic() - began > 3.0
    thread.join()
    assert runs(tmp_path, "small") == known
    assert {status for status, _ in known.values()} == {"FINISHED"}


def runs(home: Path, study: str) -> dict[str, tuple[str, int]]:
    """Each run's status and end by its key."""
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return {run.data.tags["wdsearch.key"]: (run.info.status, run.info.end_time) for run in found}


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_signal_ends_a_study_in_order_and_the_same_command_continues_it(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "{study: long, data: {name: digits, init_args: {batch_size: 512}}, model: {name: mlp, init_args: {hidden: [16]}},"
        " space: {weight_decay: {low: 0.01, high: 10}, dropout: {low: 0.0, high: 0.5}}, budget: {trials: 4, epochs: 500},"
        " search: {batch: 2, sampler: random, pruner: none}}"
    )
    home = tmp_path / ".wdsearch"
    command = [sys.executable, "-m", "wdsearch.cli", "run", str(file), "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: counts(home, "long").get("running") == 4)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "0 of 4 trials are done" in errors
    assert "nothing is lost" in errors
    assert "Traceback" not in errors
    assert set(statuses(home, "long")) == {"KILLED"}
    if number == signal.SIGTERM:
        return
    done = subprocess.run([*command, "--set", "trainer.population=4"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = load_result("long", Home(home))
    assert spent(found.counts) == len(found.optuna_study.trials) == 4
    assert statuses(home, "long") == {"FINISHED": 6}


class Deadly(torch.nn.Module):
    """A network that takes its process with it if it is 7 wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.layer = width, torch.nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.width == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(inputs)


@pytest.mark.slow
def test_trials_whose_workers_keep_dying_fail_with_the_reason_and_others_take_their_place(tmp_path: Path) -> None:
    study = STUDY | {
        "model": {"class_path": f"{__name__}.Deadly", "init_args": {"width": 3}},
        "space": {"weight_decay": {"low": 0.01, "high": 1.0}, "model.width": {"choices": [3, 4, 5, 7]}},
        "search": {"batch": 1, "sampler": "random", "pruner": "none"},
        "budget": {"trials": 4, "epochs": 2},
    }
    for _ in range(60):
        process = start(study, tmp_path / "home")
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, (tmp_path / "home.log").read_text()
    found = load_result("small", Home(tmp_path / "home"))
    assert spent(found.counts) == 4
    failed = [trial for trial in found.optuna_study.trials if trial.state.name == "FAIL"]
    assert failed
    assert 7 in {trial.params["model.width"] for trial in failed}
    assert 7 not in {trial.params["model.width"] for trial in found.optuna_study.trials if trial not in failed}
    for trial in failed:
        assert f"its worker died {MOST_TAKEOVERS + 1} times" in trial.user_attrs["error"]


@pytest.mark.slow
def test_random_kills_locks_and_outages_lose_and_double_nothing(tmp_path: Path) -> None:
    """The short form of `python tests/faults/endure.py`."""
    from endure import endure

    tally = endure(kills=3, wanted_outages=1, folder=tmp_path, per_study=3)
    assert tally.faults == []
    assert tally.counts["kills"] >= 3
    assert tally.counts["outages"] >= 1
