"""Searches a study on a real Ray of two nodes, with or without faults, and counts what became of every trial.

    unshare --net --pid --fork --mount-proc --uts --kill-child python tests/faults/on_ray.py FOLDER smoke
    unshare --net --pid --fork --mount-proc --uts --kill-child python tests/faults/on_ray.py FOLDER faults

Ray listens on all interfaces and asks for no login: it is to run where there is no network but the loopback, and where all
ends with this process. `faults` kills a worker and then a whole node by SIGKILL while they train, and the worker that
holds the last trials, and starts another node. The second node has a host name of its own, so its workers are known to be
dead by their silence alone. The last line is what was counted, as JSON.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import psutil
import sqlalchemy as sql
from endure import Server
from mlflow import MlflowClient
from support.postgres import Postgres

from wdsearch.launch.workers import launch, launched, logs, stop
from wdsearch.search.worker import trials_by_slot
from wdsearch.storage.attributes import ERROR
from wdsearch.storage.home import Home
from wdsearch.storage.results import load_result
from wdsearch.study.load import load_study

SMALL = {
    "study": "on-ray",
    "data": {"name": "digits", "init_args": {"batch_size": 256}},
    "model": {"name": "mlp", "init_args": {"hidden": [16]}},
    "space": {"lr": {"low": 1e-3, "high": 1e-1, "log": True}, "weight_decay": {"timescale": [0.5, 10]}},
    "budget": {"trials": 6, "epochs": 3},
    "search": {"batch": 2, "sampler": {"name": "random"}, "pruner": {"name": "none"}},
    "trainer": {"accelerator": "cpu"},
}
LARGE = SMALL | {"budget": {"trials": 40, "epochs": 60}, "search": SMALL["search"] | {"batch": 2}}
PORT, DASHBOARD, CORES = 6379, 8265, 4
TEMPORARY = tempfile.mkdtemp(prefix="ray-")  # short: the paths of its sockets may not be long
STARTED = time.monotonic()


def say(text: str) -> None:
    """A line with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:6.1f}  {text}", flush=True)


def wait_for(met: Callable[[], Any], what: str, seconds: float = 240.0, every: float = 0.1) -> Any:
    """Until met() is true; what it was."""
    end = time.monotonic() + seconds
    while not (found := met()):
        if time.monotonic() > end:
            raise RuntimeError(f"waited in vain: {what}")
        time.sleep(every)
    return found


class Node:
    """One of Ray's nodes, on a machine of its own as far as its host name says."""

    def __init__(self, name: str, folder: Path, cores: int, head: bool) -> None:
        where = (
            ["--head", f"--port={PORT}", "--include-dashboard=true", f"--dashboard-port={DASHBOARD}"] if head else []
        )
        where += ["--dashboard-host=127.0.0.1", f"--temp-dir={TEMPORARY}"] if head else [f"--address=127.0.0.1:{PORT}"]
        shell = f"hostname {name}; exec ray start {' '.join(where)} --node-ip-address=127.0.0.1 --num-cpus={cores} "
        shell += "--object-store-memory=80000000 --disable-usage-stats --block"
        with (folder / f"{name}.log").open("ab") as log:
            command = ["unshare", "--uts", "sh", "-c", shell]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.name = name

    def raylet(self) -> psutil.Process | None:
        """The process that starts the node's workers."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                if process.name() == "raylet":
                    return process
        return None


def answers(port: int) -> bool:
    """True if somebody listens."""
    with socket.socket() as one, suppress(OSError):
        return one.connect_ex(("127.0.0.1", port)) == 0
    return False


def holder(home: Path, worker: str) -> psutil.Process | None:
    """The process that is a worker of the leases: the one that has its lock file open."""
    for process in psutil.process_iter(["pid", "name"]):
        with suppress(psutil.Error, OSError):
            for link in Path(f"/proc/{process.pid}/fd").iterdir():
                if os.readlink(link).endswith(f"/workers/{worker}.lock"):
                    return process
    return None


class Search:
    """A study on the two nodes."""

    def __init__(self, folder: Path, study: dict[str, Any], url: str) -> None:
        self.home, self.study, self.url = Home(folder / "home"), study, url
        self.engine = sql.create_engine(self.home.url(url))

    def done(self) -> int:
        """Trials that have ended."""
        with self.engine.connect() as database:
            return int(
                database.scalar(sql.text("SELECT count(*) FROM trials WHERE state IN ('COMPLETE', 'PRUNED')")) or 0
            )

    def unfinished(self) -> tuple[int, dict[int, str]]:
        """Number of claimed slots, and the workers of those that have not ended."""
        result = load_result(self.study["study"], self.home, self.url)
        ended = {slot for slot, trial in trials_by_slot(result.optuna_study).items() if trial.state.is_finished()}
        with self.engine.connect() as database:
            rows = database.execute(sql.text("SELECT slot, worker FROM wdsearch_slots WHERE slot >= 0")).all()
        return len(rows), {slot: worker for slot, worker in rows if slot not in ended}

    def workers(self) -> list[Any]:
        """Rows of the workers' table."""
        with self.engine.connect() as database:
            return list(database.execute(sql.text("SELECT worker, place, state FROM wdsearch_workers")))

    def kill_last(self) -> bool:
        """SIGKILL the worker that alone holds all that is left to train; False if this is not so now."""
        claimed, left = self.unfinished()
        if claimed < self.study["budget"]["trials"] or len(set(left.values())) != 1:
            return False
        process = holder(self.home.path, next(iter(left.values())))
        if process is None:
            return False
        process.kill()
        say(f"killed process {process.pid}, which held the last {len(left)} trials: {sorted(left)}")
        return True


def count(search: Search, uri: str) -> dict[str, Any]:
    """End of every trial, in Optuna, in the leases and in MLflow."""
    result = load_result(search.study["study"], search.home, search.url)
    trials = result.optuna_study.get_trials(deepcopy=False)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(search.study["study"]).experiment_id], max_results=1000)
    keys = Counter(run.data.tags.get("wdsearch.key", "?") for run in runs)
    return {
        "budget": search.study["budget"]["trials"],
        "optuna": dict(Counter(trial.state.name for trial in trials)),
        "slots_with_two_trials": len(trials) - len(trials_by_slot(result.optuna_study)),
        "errors": [trial.user_attrs.get(ERROR) for trial in trials if trial.state.name == "FAIL"],
        "epochs_of_each": sorted({trial.result.epochs for trial in result.trials}),
        "mlflow": dict(Counter(run.info.status for run in runs)),
        "mlflow_runs_of_trials": sum(key.startswith("trial-") for key in keys),
        "mlflow_doubles": sum(number - 1 for number in keys.values()),
        "workers_left": len(search.workers()),
        "baseline": result.baseline is not None,
        "model": len(client.search_model_versions(f"name='{search.study['study']}'")),
    }


def kill_worker_of(search: Search, machine: str) -> None:
    rows = wait_for(
        lambda: [row for row in search.workers() if row.place.startswith(machine)], f"a worker on {machine}"
    )
    process = wait_for(lambda: holder(search.home.path, rows[0].worker), "its process")
    process.kill()
    say(f"killed process {process.pid}, a worker on {machine}, after {search.done()} trials")


def disturb(search: Search, nodes: list[Node], folder: Path) -> dict[str, Any]:
    """Kill a worker, a node, and the worker that holds the last trials."""
    budget = search.study["budget"]["trials"]
    wait_for(lambda: search.done() >= budget // 8, "the first trials")
    kill_worker_of(search, nodes[0].name)
    wait_for(lambda: search.done() >= budget // 4, "a quarter of the trials")
    raylet = nodes[1].raylet()
    assert raylet is not None
    raylet.kill()
    say(f"killed the raylet of {nodes[1].name}, after {search.done()} trials")
    nodes.append(Node("third", folder, 2, head=False))
    killed = bool(wait_for(search.kill_last, "one worker with the last trials", 400, every=0.05))
    return {"killed_with_the_last": killed}


def end(search: Search) -> None:
    wait_for(
        lambda: not any(one.is_open for one in launched(search.study["study"], search.home, search.url)),
        "the end",
        900,
        0.5,
    )


def be_init() -> None:
    """As the first process of its machine, take leave of orphans, as an init does: Ray waits for those of a stopped job."""
    child = os.fork() if os.getpid() == 1 else 0
    while child:
        ended, status = os.wait()
        if ended == child:
            sys.exit(os.waitstatus_to_exitcode(status))


def main() -> None:
    """Start everything, search, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=["smoke", "faults", "stop"])
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent.parent)
    nodes = [Node("first", folder, 2 if given.kind == "smoke" else CORES, head=True)]
    server, database = Server(folder), Postgres()
    database.start()
    try:
        search_on(given.kind, folder, nodes, server, database)
    finally:
        database.stop()
        shutil.rmtree(database.folder)
        shutil.rmtree(TEMPORARY, ignore_errors=True)


def search_on(kind: str, folder: Path, nodes: list[Node], server: Server, database: Postgres) -> None:
    """With all that is started."""
    server.up()
    os.environ["MLFLOW_TRACKING_URI"] = server.uri
    say("PostgreSQL and MLflow are up")
    wait_for(lambda: answers(DASHBOARD), "Ray's dashboard")
    if kind != "smoke":
        nodes.append(Node("second", folder, 2, head=False))
        wait_for(nodes[1].raylet, "the second node")
        time.sleep(5)
    say("Ray is up")
    search = Search(folder, SMALL if kind == "smoke" else LARGE, database.create("studies"))
    found = run(search, kind, nodes, folder)
    print(json.dumps(found | count(search, server.uri) | {"seconds": round(time.monotonic() - STARTED)}), flush=True)


def run(search: Search, kind: str, nodes: list[Node], folder: Path) -> dict[str, Any]:
    """Launch, disturb, wait for the end; what is to be said beside the counts."""
    name, found = search.study["study"], {}
    file = folder / "study.json"  # JSON is YAML
    file.write_text(json.dumps(search.study))
    load_study(file)
    environment = {"runtime_env": {"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}}}
    started = launch(
        file, "ray", 2 if kind == "smoke" else 4, environment, home=search.home.path, storage=search.url, progress=False
    )
    say(f"launched {started.launch and started.launch.jobs}")
    wait_for(lambda: search.done() > 0, "the first trial")
    say("the first trial has ended")
    try:
        if kind == "faults":
            found = disturb(search, nodes, folder)
        if kind == "stop":
            begun = time.monotonic()
            stop(name, search.home, search.url)
            end(search)
            say(
                f"stopped after {search.done()} trials, in {time.monotonic() - begun:.1f} s; workers: {search.workers()}"
            )
            found = {"stopped_after": search.done(), "released": [row.state for row in search.workers()]}
            launch(name, "ray", 4, environment, home=search.home.path, storage=search.url, progress=False)
        end(search)
        say("all workers have ended")
    finally:
        (folder / "ray-job.log").write_text("\n".join(logs(name, search.home, search.url).values()))
    return found


if __name__ == "__main__":
    be_init()
    main()
