"""Runs studies under random SIGKILLs, database locks and server outages, and counts what became of every trial.

    python tests/faults/endure.py --kills 50 --outages 10

Studies are searched one after another, by one and by two workers in turn, until both numbers are reached. A study of one
worker must be, to the bit, the one that nobody disturbed. A trial whose workers die too often is given up, and another one takes
its part of the budget; that is counted, and no fault. Ends with 1 if anything was lost, doubled or left running.
"""

import argparse
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.processes import start
from support.shortened import copy_store

STUDY = {
    "study": "endured",
    "data": {"name": "digits", "init_args": {"batch_size": 64}},
    "model": {"name": "mlp", "init_args": {"hidden": [32]}},
    "space": {
        "lr": {"low": 1e-3, "high": 1e-1, "log": True},
        "weight_decay": {"timescale": [0.5, 10], "off": True},
        "dropout": {"low": 0.0, "high": 0.6},
        "early_stopping": {"low": 3, "high": 10, "off": True},
    },
    "budget": {"trials": 60, "epochs": 12},
    "search": {"batch": 8, "sampler": {"name": "tpe", "n_startup_trials": 16}},
    "trainer": {"accelerator": "cpu"},
    "seed": 1,
}
OFTEN = {"search.worker.CHECKPOINT_S": 2.0}


class Server:
    """An MLflow server that can be taken away."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.process: subprocess.Popen[bytes] | None = None

    def up(self) -> None:
        """Start it, and wait until it answers."""
        copy_store(f"sqlite:///{self.folder / 'server.db'}")
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "server.log").open("ab") as log:
            without_jobs = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=without_jobs, start_new_session=True)
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return
            time.sleep(0.5)
        raise RuntimeError("the MLflow server did not come up within two minutes")

    def down(self) -> None:
        """Kill it with all its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Tally:
    """Faults that happened, and the ends of the trials."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def expect(self, met: bool, text: str) -> None:
        """Note a fault."""
        if not met:
            self.faults.append(text)


def lock_now_and_then(home: Path, stopped: threading.Event, tally: Tally, chance: random.Random) -> None:
    """Hold Optuna's database for one to four seconds, again and again."""
    while not stopped.wait(chance.uniform(2, 8)):
        with suppress(sqlite3.OperationalError):
            database = sqlite3.connect(f"file:{home / 'optuna.db'}?mode=rw", uri=True, timeout=5, isolation_level=None)
            database.execute("BEGIN EXCLUSIVE")
            tally.counts["locks"] += 1
            stopped.wait(chance.uniform(1, 4))
            database.execute("ROLLBACK")
            database.close()


def outages(server: Server, stopped: threading.Event, tally: Tally, chance: random.Random) -> None:
    """Kill the server and start it again, or let it hang."""
    while not stopped.wait(chance.uniform(5, 15)):
        tally.counts["outages"] += 1
        if chance.random() < 0.5 and server.process is not None:
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.killpg(server.process.pid, number)
                stopped.wait(chance.uniform(2, 8))
        else:
            server.down()
            stopped.wait(chance.uniform(1, 8))
            server.up()


def search(home: Path, workers: int, kills: int, chance: random.Random, tally: Tally) -> None:
    """Run the study until it is done; processes are killed up to `kills` times, each a few seconds after its start."""
    running = {index: start(STUDY, home, constants=OFTEN) for index in range(workers)}
    deadline = time.monotonic() + 900
    while running and time.monotonic() < deadline:
        index = chance.choice(list(running))
        running[index].join(chance.uniform(2, 9) / workers)
        for place, process in list(running.items()):
            if process.exitcode is not None:
                if process.exitcode == 0:
                    del running[place]
                else:
                    tally.expect(process.exitcode == -9, f"a worker ended with {process.exitcode}; see {home}.log")
                    running[place] = start(STUDY, home, constants=OFTEN)
        if index in running and kills > 0:
            running[index].kill()
            running[index].join()
            kills -= 1
            tally.counts["kills"] += 1
            running[index] = start(STUDY, home, constants=OFTEN)
    for process in running.values():
        process.kill()
    tally.expect(not running, "the study did not end within a quarter of an hour")


def examine(
    home: Path, uri: str, tally: Tally, study: Mapping[str, Any] = STUDY, storage: str | None = None
) -> list[Any]:
    """Count trials and MLflow runs; what each trial was told."""
    from wdsearch.storage.home import Home
    from wdsearch.storage.results import load_result

    result = load_result(study["study"], Home(home), storage)
    trials = result.optuna_study.get_trials(deepcopy=False)
    slots = Counter(trial.user_attrs["slot"] for trial in trials if trial.state.name != "FAIL")
    finished = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    budget = study["budget"]["trials"]
    tally.counts["studies"] += 1
    tally.counts["asked"] += len(trials)
    tally.counts["finished"] += len(finished)
    reasons = [trial.user_attrs.get("error", "no reason") for trial in trials if trial.state.name == "FAIL"]
    tally.counts["given up"] += sum("worker" in reason for reason in reasons)
    tally.counts["failed"] += sum("worker" not in reason for reason in reasons)
    tally.counts["lost"] += max(0, budget - len(finished))
    tally.counts["doubled"] += sum(slots.values()) - len(slots) + max(0, len(finished) - budget)
    tally.counts["running in optuna"] += result.counts["running"]
    for key, steps, status in mlflow_runs(uri, tally, study):
        number = int(key.removeprefix("trial-")) if key.startswith("trial-") else None
        tally.counts["running in mlflow"] += status == "RUNNING"
        if number is not None and trials[number].state.name == "FAIL":
            continue
        epochs = trials[number].user_attrs["result"]["epochs"] if number is not None else result.baseline.epochs
        tally.counts["epochs lost"] += len(set(range(1, epochs + 1)) - set(steps))
        tally.counts["epochs doubled"] += len(steps) - len(set(steps))
    return [(t.number, t.params, t.state.name, t.values, t.intermediate_values, t.user_attrs) for t in trials]


def judge(tally: Tally) -> None:
    """Every count that must be zero is."""
    for name in ("lost", "doubled", "failed", "running in optuna", "running in mlflow", "runs doubled", "runs lost"):
        tally.expect(not tally.counts[name], f"{tally.counts[name]} {name}")
    for name in ("epochs lost", "epochs doubled"):
        tally.expect(not tally.counts[name], f"{tally.counts[name]} {name}")


def mlflow_runs(uri: str, tally: Tally, study: Mapping[str, Any] = STUDY) -> list[tuple[str, list[int], str]]:
    """Key, epochs and status of every trial's run; the study is renamed afterwards, to make room for the next."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study["study"])
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    keys = Counter(run.data.tags["wdsearch.key"] for run in runs)
    tally.counts["runs in mlflow"] += len(runs)
    tally.counts["runs doubled"] += sum(keys.values()) - len(keys)
    tally.counts["runs lost"] += max(0, study["budget"]["trials"] + 2 - len(keys))
    found = []
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "loss/val")
        if run.data.tags["wdsearch.key"] != "study":
            found.append((run.data.tags["wdsearch.key"], [metric.step for metric in history], run.info.status))
        tally.counts["running in mlflow"] += run.data.tags["wdsearch.key"] == "study" and run.info.status == "RUNNING"
    client.rename_experiment(experiment.experiment_id, f"done-{time.time()}")
    return found


def endure(kills: int, wanted_outages: int, folder: Path, seed: int = 0, per_study: int = 12) -> Tally:
    """Search study after study until there were so many kills and outages."""
    server = Server(folder)
    with patch.dict(os.environ, MLFLOW_TRACKING_URI=server.uri):
        return _endure(server, kills, wanted_outages, folder, seed, per_study)


def _endure(server: Server, kills: int, wanted_outages: int, folder: Path, seed: int, per_study: int) -> Tally:
    from wdsearch.tracking.delivery import deliver

    tally, chance, stopped = Tally(), random.Random(seed), threading.Event()
    server.up()
    search(folder / "calm", 1, 0, chance, Tally())
    deliver(folder / "calm" / "spool" / f"{STUDY['study']}.db")
    calm = examine(folder / "calm", server.uri, Tally())
    disturber = threading.Thread(target=outages, args=(server, stopped, tally, random.Random(seed + 1)))
    if wanted_outages:
        disturber.start()
    try:
        while tally.counts["kills"] < kills or tally.counts["outages"] < wanted_outages:
            workers = 1 + tally.counts["studies"] % 2
            home, quiet = folder / f"study-{tally.counts['studies']}", threading.Event()
            locker = threading.Thread(target=lock_now_and_then, args=(home, quiet, tally, random.Random(seed + 2)))
            locker.start()
            search(home, workers, per_study, chance, tally)
            quiet.set()
            locker.join()
            if tally.counts["outages"] >= wanted_outages:
                stopped.set()
            while disturber.is_alive() and stopped.is_set():
                disturber.join()
            left = deliver(home / "spool" / f"{STUDY['study']}.db")
            tally.expect(left == 0, f"{left} records were not delivered")
            found = examine_patiently(home, server, tally)
            tally.expect(workers > 1 or found == calm, f"the study in {home} is not the undisturbed one")
            print(workers, "workers:", dict(tally.counts), *tally.faults, flush=True)
    finally:
        stopped.set()
        if disturber.is_alive():
            disturber.join()
        server.down()
    judge(tally)
    return tally


def examine_patiently(home: Path, server: Server, tally: Tally) -> list[Any]:
    """`examine` once more if the server went away meanwhile."""
    while True:
        before = tally.counts.copy()
        try:
            return examine(home, server.uri, tally)
        except Exception as error:
            if "connect" not in str(error).lower() and "api request" not in str(error).lower():
                raise
            tally.counts = before | Counter(outages=tally.counts["outages"])
            time.sleep(2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--outages", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = endure(given.kills, given.outages, Path(place), given.seed)
    for name, count in sorted(found.counts.items()):
        print(f"{name:20} {count}")
    print("\n".join(found.faults) or "nothing lost, nothing doubled, nothing left running")
    sys.exit(1 if found.faults else 0)
