"""Workers on a real Slurm: launched, killed, preempted and requeued, with a controller that is restarted."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from endure import STUDY, Server, Tally, examine, judge
from support import postgres, slurm
from support.processes import command

pytestmark = [
    pytest.mark.skipif(bool(slurm.why_not()), reason=slurm.why_not() or "-"),
    pytest.mark.skipif(not postgres.binaries(), reason="PostgreSQL is not installed"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    with slurm.running() as found:
        yield found


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Postgres]:
    with postgres.running() as found:
        yield found


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.up()
    yield server
    server.down()


class User:
    """Someone at the cluster's login node, with a study of this name."""

    def __init__(self, folder: Path, name: str, environment: dict[str, str], trials: int, epochs: int) -> None:
        self.folder, self.name, self.environment = folder, name, environment
        self.study = STUDY | {"study": name, "budget": {"trials": trials, "epochs": epochs}}
        self.study["search"] = {"batch": 4, "sampler": "random", "pruner": "none"}
        (folder / "study.yaml").write_text(json.dumps(self.study))

    def calls(self, *words: str, code: int = 0) -> str:
        """Output of `wdsearch ...`."""
        done = command(*words, folder=self.folder, environment=os.environ | self.environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """`wdsearch status --json`."""
        return dict(json.loads(self.calls("status", self.name, "--json")))

    def awaits(self, met: Callable[[dict[str, Any]], bool], limit_s: float = 600.0) -> dict[str, Any]:
        """Look until it is so."""
        end = time.monotonic() + limit_s
        while not met(found := self.status()):
            assert time.monotonic() < end, f"waited in vain: {found}\n{self.calls('logs', self.name)}"
            time.sleep(1.0)
        return found


@pytest.fixture
def user(
    tmp_path: Path, cluster: slurm.Slurm, database: postgres.Postgres, mlflow: Server, request: pytest.FixtureRequest
) -> User:
    name, trials, epochs = request.param
    environment = {
        "WDSEARCH_STORAGE": database.create(name),
        "WDSEARCH_HOME": str(tmp_path / "home"),
        "MLFLOW_TRACKING_URI": mlflow.uri,
        "OMP_NUM_THREADS": "1",
        "SLURM_MEM_PER_CPU": "100",  # as within a job: srun would refuse that beside a worker's own memory
    }
    return User(tmp_path, name, environment | dict(cluster.environment), trials, epochs)


def has_ended(found: dict[str, Any]) -> bool:
    return all(state == "ended" for launch in found["launches"] for state in launch["jobs"].values())


def check(user: User, mlflow: Server) -> None:
    tally = Tally()
    home, storage = Path(user.environment["WDSEARCH_HOME"]), user.environment["WDSEARCH_STORAGE"]
    examine(home, mlflow.uri, tally, user.study, storage)
    judge(tally)
    assert not tally.faults, (tally.faults, user.calls("logs", user.name, "--tail", "50"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("user", [("array", 8, 4)], indirect=True)
def test_an_array_of_workers_shares_the_budget_exactly(user: User, mlflow: Server) -> None:
    options = ("--on", "slurm", "--workers", "2", "-o", "partition=main", "-o", "time=30", "-o", "memory_gb=2")
    script = user.calls("launch", "study.yaml", *options, "--dry-run")
    for line in ("--array=0-1%2", "--partition=main", "--time=30", "--mem=2048MB", "--requeue", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in script
    assert "postgresql" not in script, "a password would be seen"
    said = user.calls("launch", "study.yaml", *options)
    assert "2 workers of array on slurm" in said
    found = user.awaits(has_ended)
    assert (found["state"], found["spent"]) == ("done", 8)
    assert user.calls("logs", "array").count("Job completed successfully") == 2
    check(user, mlflow)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("user", [("faults", 40, 60)], indirect=True)
def test_a_killed_a_preempted_and_a_requeued_worker_lose_and_double_nothing(
    user: User, mlflow: Server, cluster: slurm.Slurm
) -> None:
    user.calls("launch", "study.yaml", "--on", "slurm", "--workers", "4", "-o", "time=60", "-o", "memory_gb=2")
    user.awaits(lambda found: len([worker for worker in found["workers"] if worker["alive"]]) == 4)
    job = user.status()["launches"][0]["jobs"].popitem()[0].partition("_")[0]
    victims = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "submitit.core._submit" in (process.info["cmdline"] or [])
    ]
    victims[0].send_signal(signal.SIGKILL)
    cluster.stop_controller()
    time.sleep(5)
    cluster.start_controller()
    while cluster.ask("sinfo", "--noheader", "--format=%D").strip() == "":
        time.sleep(0.5)
    before = cluster.ask("squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={job}")
    cluster.ask("sbatch", "--partition=urgent", "--cpus-per-task=2", "--wrap", "sleep 5", "--output=/dev/null")
    preempted = False
    for _ in range(240):  # it has KillWait to end in order
        now = cluster.ask("squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={job}")
        preempted = preempted or "PENDING" in now or "REQUEUED" in now
        if preempted:
            break
        time.sleep(0.5)
    assert preempted, (before, now)
    found = user.awaits(has_ended, 1200)
    assert (found["state"], found["spent"]) == ("done", 40)
    check(user, mlflow)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("user", [("stopped", 4, 2000)], indirect=True)
def test_stop_cancels_the_array_and_the_workers_let_go(user: User) -> None:
    user.calls("launch", "study.yaml", "--on", "slurm", "--workers", "1")
    user.awaits(lambda found: bool(found["training"]))
    user.calls("stop", "stopped")
    user.awaits(has_ended, 60)
    assert user.status()["state"] == "stopped"
    assert "nothing is lost" in user.calls("logs", "stopped")
