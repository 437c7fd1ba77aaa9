"""Cost of an MLflow out of reach to a study: the time of its search beside that of one whose records nobody delivers.

    python tests/benchmarks/outage.py [--repeats N]

In turns: delivery to a file, to a port where nothing answers, and to a server that accepts connections and never answers.
The delivering process starts before, as on the command line, where it imports mlflow while wdsearch imports torch.
Ratios are taken within a repeat, for machines are shared and noisy; medians over the repeats are shown.
"""

import argparse
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import rich
from rich.table import Table

import wdsearch
from wdsearch.search.session import Session
from wdsearch.tracking.mlflow_tracker import MlflowTracker

STUDY = {
    "study": "outage",
    "data": {"name": "mnist1d", "init_args": {"batch_size": 128}},
    "model": {"name": "mlp", "init_args": {"hidden": [256, 256]}},
    "space": {"weight_decay": {"timescale": [0.01, 10]}, "dropout": {"low": 0.0, "high": 0.5}},
    "budget": {"trials": 16, "epochs": 40},  # beyond the time in which nothing is delivered yet
    "search": {"batch": 8, "sampler": "random", "pruner": "none"},
    "trainer": {"accelerator": "cpu"},
}


IMPORTS_S = 6.0  # of torch, lightning and optuna


@contextmanager
def silent_server() -> Iterator[str]:
    """Accepts whatever comes, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def unused() -> str:
    """An address at which nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def searched(uri: str | None, deliver: bool = True) -> float:
    """Seconds of one study's search, without the start before and the wait for MLflow after it."""
    taken: list[float] = []
    search = Session.search

    def timed(session: Session) -> None:
        began = time.perf_counter()
        search(session)
        taken.append(time.perf_counter() - began)

    start, finish = MlflowTracker.start_delivery, MlflowTracker.finish
    Session.search = timed  # type: ignore[method-assign]
    if not deliver:
        MlflowTracker.start_delivery = lambda tracker: None  # type: ignore[method-assign]
    MlflowTracker.finish = lambda tracker, progress=None: finish(tracker, 0.0)  # type: ignore[method-assign, assignment]
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            tracker = MlflowTracker(Path(folder), "outage", uri=uri)
            tracker.start_delivery()
            time.sleep(IMPORTS_S if deliver else 0.0)
            wdsearch.run(STUDY, home=folder, tracker=tracker, progress=False)
            if tracker._process is not None:
                with suppress(ProcessLookupError, ChildProcessError):  # it may have ended
                    os.kill(tracker._process.pid, signal.SIGKILL)  # closed, it was left to go on alone
                    os.waitpid(tracker._process.pid, 0)
    finally:
        Session.search = search  # type: ignore[method-assign]
        MlflowTracker.start_delivery, MlflowTracker.finish = start, finish  # type: ignore[method-assign]
    return taken[0]


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with silent_server() as silent:
        cases: dict[str, Callable[[], float]] = {
            "nobody delivers": lambda: searched(None, deliver=False),
            "delivered to a file": lambda: searched(None),
            "nothing answers": lambda: searched(unused()),
            "accepted, never answered": lambda: searched(silent),
        }
        searched(None, deliver=False)  # imports, first calls
        found: dict[str, list[float]] = {name: [] for name in cases}
        for repeat in range(repeats):
            order = list(cases)[repeat % len(cases) :] + list(cases)[: repeat % len(cases)]
            for name in order:
                found[name].append(cases[name]())
    table = Table("MLflow", "search, s", "beside nobody delivering", title=f"{repeats} repeats, medians")
    for name, seconds in found.items():
        ratios = [own / base for own, base in zip(seconds, found["nobody delivers"], strict=True)]
        table.add_row(name, f"{median(seconds):.2f}", f"{100 * (median(ratios) - 1):+.1f} %")
    rich.print(table)


if __name__ == "__main__":
    main()
