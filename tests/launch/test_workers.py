"""Workers started by `wdsearch launch`, as a person starts them; the faults of many are in tests/faults/fleet.py."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import postgres
from support.processes import command, start

from wdsearch.launch.engines import LAUNCHERS
from wdsearch.launch.engines.local import LocalOptions, _started_at
from wdsearch.launch.workers import launch, launched, logs, stop
from wdsearch.search.run import begin
from wdsearch.storage.home import Home
from wdsearch.storage.launches import Launch, record
from wdsearch.storage.results import load_result
from wdsearch.study.load import load_study

needs_postgres = pytest.mark.skipif(not postgres.binaries(), reason="PostgreSQL is not installed")
STUDY = """
study: shared
data: {name: digits, init_args: {batch_size: 256}}
model: {name: mlp, init_args: {hidden: [16]}}
space: {weight_decay: {timescale: [0.1, 10]}, dropout: {low: 0.0, high: 0.5}}
budget: {trials: 8, epochs: EPOCHS}
search: {batch: 2, sampler: random, pruner: none}
"""


def called(*words: str, folder: Path, code: int = 0, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WDSEARCH")}
    done = command(*words, folder=folder, environment=inherited | environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def state(folder: Path, **environment: str) -> dict:
    return json.loads(called("status", "shared", "--json", folder=folder, **environment))


def written(folder: Path, epochs: int) -> str:
    (folder / "shared.yaml").write_text(STUDY.replace("EPOCHS", str(epochs)))
    return "shared.yaml"


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Postgres]:
    with postgres.running() as found:
        yield found


@needs_postgres
def test_launched_workers_share_the_budget_exactly_and_say_what_they_do(
    tmp_path: Path, server: postgres.Postgres
) -> None:
    storage = {"WDSEARCH_STORAGE": server.create("shared")}
    said = called("launch", written(tmp_path, 4), "--workers", "2", folder=tmp_path, **storage)
    assert "2 workers of shared on local" in said
    assert "wdsearch status shared --watch" in said
    called("status", "shared", "--watch", folder=tmp_path, **storage)  # until study and workers have ended
    found = state(tmp_path, **storage)
    assert (found["state"], found["spent"], found["counts"]["running"]) == ("done", 8, 0)
    (launch,) = found["launches"]
    assert list(launch["jobs"].values()) == ["ended", "ended"]
    assert found["undelivered"] == 0
    assert not found["workers"], "both have left"
    logs = called("logs", "shared", folder=tmp_path, **storage)
    assert "8 complete" in logs
    assert logs.count("worker-") == 2
    assert called("work", "shared", folder=tmp_path, **storage).count("best of 8 trials") == 1, "nothing is left to do"


def test_a_job_is_known_though_the_machines_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sleep", "600"])
    try:
        job = f"{process.pid}@{_started_at(psutil.Process(process.pid)):.2f}"
        made_at, booted_at = psutil.Process.create_time, psutil.boot_time()
        monkeypatch.setattr(psutil.Process, "create_time", lambda process: made_at(process) + 3600)
        monkeypatch.setattr(psutil, "boot_time", lambda: booted_at + 3601)
        other = f"{process.pid}@{_started_at(psutil.Process(process.pid)) - 10:.2f}"
        states = LAUNCHERS["local"].states([job, other], LocalOptions())
    finally:
        process.kill()
        process.wait()
    assert states == {job: "running", other: "ended"}


def test_until_the_first_launched_worker_is_at_work_the_study_starts(tmp_path: Path) -> None:
    """A process stands in for a worker that imports torch, or waits in a queue."""
    home, url = tmp_path / "home", f"sqlite:///{tmp_path / 'optuna.db'}"
    begin(load_study(tmp_path / written(tmp_path, 4)), Home(home), url, progress=False)
    places = {"WDSEARCH_HOME": str(home), "WDSEARCH_STORAGE": url}
    assert state(tmp_path, **places)["state"] == "stopped"
    process = subprocess.Popen(["sleep", "600"])
    try:
        job = f"{process.pid}@{_started_at(psutil.Process(process.pid)):.2f}"
        opened, engine = Home(home).load_with_engine("shared", url)
        record(engine, opened._study_id, Launch("local", platform.node(), str(tmp_path), (job,), {}))
        assert state(tmp_path, **places)["state"] == "starting"
        said = called("status", "shared", folder=tmp_path, **places)
        assert "wdsearch status shared --watch" in said
        assert "1 running" in said
        assert "nothing yet in " in called("logs", "shared", folder=tmp_path, **places)
    finally:
        process.kill()
        process.wait()
    assert state(tmp_path, **places)["state"] == "stopped"


@needs_postgres
def test_a_worker_that_starts_while_the_database_is_restarted_waits_for_it(
    tmp_path: Path, server: postgres.Postgres
) -> None:
    study, home, url = load_study(tmp_path / written(tmp_path, 4)), Home(tmp_path / "home"), server.create("restarted")
    begin(study, home, url, progress=False)
    server.stop()
    try:
        worker = start({"study": "shared"}, home.path, storage=url, report=False, begun=True)
        log, limit = tmp_path / "home.log", time.monotonic() + 60
        while not (log.exists() and "the storage does not answer: waiting for it" in log.read_text()):
            assert worker.is_alive()
            assert time.monotonic() < limit
            time.sleep(0.2)
    finally:
        server.start()
    worker.join()
    assert worker.exitcode == 0, log.read_text()
    assert load_result("shared", home, url).counts["complete"] == 8


@pytest.mark.slow
def test_stopped_workers_end_in_order_and_others_go_on(tmp_path: Path) -> None:
    called("launch", written(tmp_path, 400), "--workers", "1", folder=tmp_path)
    while not state(tmp_path)["training"]:
        time.sleep(0.5)
    (pid,) = [int(job.partition("@")[0]) for job in state(tmp_path)["launches"][0]["jobs"]]
    said = called("stop", "shared", folder=tmp_path)
    assert "1 ended" in said
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert "nothing is lost" in called("logs", "shared", folder=tmp_path)
    assert "no launched workers" in called("stop", "shared", folder=tmp_path)
    assert state(tmp_path)["state"] == "stopped"


def test_an_engine_that_does_not_answer_keeps_no_other_from_ending(tmp_path: Path) -> None:
    """With Ray there it is a cluster that is gone, without it there is nobody to ask."""
    home = Home(tmp_path / "home")
    begin(load_study(tmp_path / written(tmp_path, 400)), home, progress=False)
    opened, engine = home.load_with_engine("shared", None)
    record(
        engine,
        opened._study_id,
        Launch("ray", "elsewhere", "folder", ("1",), {"address": "http://127.0.0.1:9"}, made_at=0.0),
    )
    launch("shared", home=home.path, workers=1)
    far, near = launched("shared", home)
    assert "Ray" in far.fault
    assert not far.is_open
    assert near.is_open
    far, near = stop("shared", home)
    assert "Ray" in far.fault
    assert set(near.states.values()) == {"ended"}
    said = logs("shared", home)
    assert f"{far.fault}\n" in said.values()
    assert len(said) == 2


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--on", "slrum"], ["there is no engine 'slrum'; did you mean slurm?"]),
        (["-o", "thread=2"], ["local has no option 'thread'; did you mean threads?"]),
        (["-o", "threads=many"], ["threads is 'many'", "whole number"]),
        (["-o", "threads"], ["-o threads: this is not NAME=VALUE"]),
        (["--on", "slurm"], ["is a file of one machine", "postgresql://", "$MLFLOW_TRACKING_URI is not set"]),
    ],
)
def test_a_wrong_launch_says_what_is_allowed_and_begins_nothing(
    tmp_path: Path, arguments: list[str], texts: list[str]
) -> None:
    said = called("launch", written(tmp_path, 4), *arguments, folder=tmp_path, code=2)
    for text in texts:
        assert text in said
    assert not (tmp_path / ".wdsearch").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_postgres
def test_eight_workers_lose_and_double_nothing_under_kills_restarts_and_outages(tmp_path: Path) -> None:
    from fleet import fleet

    tally = fleet(workers=8, trials=200, kills=50, folder=tmp_path)
    assert not tally.faults, tally.faults
    assert tally.counts["kills"] == 50
