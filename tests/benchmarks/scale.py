"""Trials per second through one PostgreSQL: ask, report, tell and track as wdsearch does it, beside plain Optuna.

    python tests/benchmarks/scale.py [--workers 1 4 16] [--trials N] [--sampler random] [--repeats N]

Training is stubbed, here only: every trial costs nothing but its records. Both ask for eight floats, report at the same
epochs (every fourth of sixteen), store one attribute and tell; wdsearch keeps its leases and spools every metric of every
epoch besides. The server is a real one on this machine, its durability on. The workers start together, after their imports
and with their data; rates are those of all workers together, and ratios are taken within a repeat. How fast MLflow takes what
was spooled is measured afterwards.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
import rich
from rich.table import Table
from support import postgres

EPOCHS, FLOATS = 16, 8
REPORTS = (4, 8, 12)
NEVER = {"name": "median", "n_startup_trials": 10**6, "n_warmup_steps": 4, "interval_steps": 4}
FILE = Path(__file__)


def study(trials: int, sampler: str, name: str) -> dict[str, Any]:
    """Eight floats to search, of which the stub trains none."""
    keys = ("lr", "weight_decay", "l2", "l1", "dropout", "input_noise", "label_smoothing", "gradient_clip")
    return {
        "study": name,
        "data": "digits",
        "model": {"name": "mlp", "init_args": {"hidden": [8]}},
        "space": {key: {"low": 1e-3, "high": 1e-1} for key in keys},
        "budget": {"trials": trials, "epochs": EPOCHS},
        "search": {"sampler": sampler, "pruner": NEVER},
    }


# -- workers, each a process -------------------------------------------------------------------------------------------


def own_worker(url: str, name: str, go: Path) -> None:
    """A worker of wdsearch on a stub in place of training."""
    import torch
    from stub import stubbed

    from wdsearch.search import run as search

    def timed(loop: Any, all_of_it: Any = search._search) -> None:
        wait_for(go)
        all_of_it(loop)
        say_ended(go)

    torch.set_num_threads(1)
    with stubbed() as work, patch.object(search, "_search", timed):
        work(name, url)


def plain_worker(url: str, name: str, go: Path) -> None:
    """Optuna's own loop, as its documentation has it."""
    from wdsearch.storage.database import full_url

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials, sampler = (int(part) if part.isdigit() else part for part in name.split("-")[1:3])
    kind = optuna.samplers.RandomSampler if sampler == "random" else optuna.samplers.TPESampler
    opened = optuna.load_study(study_name=name, storage=full_url(url), sampler=kind())
    wait_for(go)
    for _ in range(int(trials)):
        trial = opened.ask()
        for index in range(FLOATS):
            trial.suggest_float(f"x{index}", 1e-3, 1e-1)
        for epoch in REPORTS:
            trial.report(float(trial.number), epoch)
        trial.set_user_attr("result", {"val_loss": float(trial.number)})
        opened.tell(trial, float(trial.number))
    say_ended(go)


def wait_for(go: Path) -> None:
    """Say that this process is ready, and wait for all others to be."""
    (go.parent / f"ready-{os.getpid()}").touch()
    while not go.exists():
        time.sleep(0.01)


def say_ended(go: Path) -> None:
    """Leave the time for the one who measures."""
    (go.parent / f"ended-{os.getpid()}").write_text(str(time.time()))


# -- the benchmark -----------------------------------------------------------------------------------------------------


def together(kind: str, url: str, name: str, workers: int, folder: Path) -> float:
    """Seconds from the common start of these workers, when all have loaded their data, until the last has told its last trial."""
    folder.mkdir()
    go = folder / "go"
    command = [sys.executable, str(FILE), "--be", kind, url, name, str(go)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WDSEARCH_HOME": str(folder)}
    processes = [subprocess.Popen(command, env=environment) for _ in range(workers)]
    while len(list(folder.glob("ready-*"))) < workers:
        time.sleep(0.05)
        assert all(process.poll() is None for process in processes), "a worker died"
    began = time.time()
    go.touch()
    codes = [process.wait() for process in processes]
    assert not any(codes), codes
    return max(float(file.read_text()) for file in folder.glob("ended-*")) - began


def measure(
    server: postgres.Postgres, url: str, workers: int, trials: int, sampler: str, folder: Path
) -> dict[str, float]:
    """Trials per second of all workers together, wdsearch's and plain Optuna's; what a trial of each costs the server, in ms."""
    from wdsearch import load_study
    from wdsearch.search.run import begin
    from wdsearch.storage.home import Home

    name = f"own-{workers}-{time.time_ns()}"
    os.environ["WDSEARCH_HOME"] = str(folder / "own")
    begin(load_study(study(trials, sampler, name)), Home(folder / "own" / "home"), url, progress=False)
    spent = [server.processor_s()]
    own = trials / together("own", url, name, workers, folder / "own" / "run")
    spent.append(server.processor_s())
    share = max(1, trials // workers // 4)  # plain Optuna is slower
    plain_name = f"plain-{share}-{sampler}-{workers}-{time.time_ns()}"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from wdsearch.storage.database import full_url

    optuna.create_study(study_name=plain_name, storage=full_url(url))
    plain = share * workers / together("plain", url, plain_name, workers, folder / "plain")
    spent.append(server.processor_s())
    costs = {"own_ms": (spent[1] - spent[0]) / trials, "plain_ms": (spent[2] - spent[1]) / share / workers}
    return {"own": own, "plain": plain} | {name: 1000 * cost for name, cost in costs.items()}


def told(url: str, trials: int, sampler: str, folder: Path) -> tuple[int, float]:
    """Number of records that one worker spools of a study, and that MLflow takes into a local store in a second."""
    from wdsearch import load_study
    from wdsearch.search.run import begin
    from wdsearch.storage.home import Home
    from wdsearch.tracking.delivery import sync

    name = f"told-{time.time_ns()}"
    os.environ["WDSEARCH_HOME"] = str(folder / "own")
    begin(load_study(study(trials, sampler, name)), Home(folder / "own" / "home"), url, progress=False)
    together("own", url, name, 1, folder / "own" / "run")
    began = time.perf_counter()
    records, _ = sync(name, Home(folder / "own" / "run"), url)
    return records, records / (time.perf_counter() - began)


def main() -> None:
    """Measure, and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--trials", type=int, default=960)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--be", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.be:
        kind, url, name, go = given.be
        {"own": own_worker, "plain": plain_worker}[kind](url, name, Path(go))
        return
    table = Table(title=f"trials per second through one PostgreSQL, {given.sampler} sampler")
    for column in ("workers", "wdsearch", "plain Optuna", "ratio", "of a trial: server's ms", "plain"):
        table.add_column(column, justify="right")
    with postgres.running(durable=True) as server, TemporaryDirectory() as folder:
        for workers in given.workers:
            found = []
            for repeat in range(given.repeats):
                place = Path(folder) / f"{workers}-{repeat}"
                place.mkdir()
                (place / "own").mkdir()
                url = server.create(f"scale_{workers}_{repeat}")
                found.append(measure(server, url, workers, given.trials, given.sampler, place))
                rich.print(workers, found[-1])
            middle = {key: median(one[key] for one in found) for key in found[0]}
            ratio = median(one["own"] / one["plain"] for one in found)
            costs = (f"{middle[name]:.1f}" for name in ("own_ms", "plain_ms"))
            table.add_row(str(workers), f"{middle['own']:.0f}", f"{middle['plain']:.0f}", f"{ratio:.1f}", *costs)
        rich.print(table)
        few = given.trials // 4
        records, rate = told(server.create("told"), few, given.sampler, Path(folder) / "told")
        rich.print(f"MLflow takes {rate:.0f} records a second: {rate * few / records:.1f} trials of {EPOCHS} epochs")


if __name__ == "__main__":
    main()
