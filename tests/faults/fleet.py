"""Eight workers on one PostgreSQL under random SIGKILLs, restarts of the database and outages of MLflow, and what became of it.

    python tests/faults/fleet.py --workers 8 --trials 200 --kills 50

A killed worker is replaced by a new one. Meanwhile the database is restarted in order and crashed in turn, and the MLflow
server is killed and started again. Ends with 1 if anything was lost, doubled or left running.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))

from endure import STUDY, Server, Tally, examine, judge
from support import postgres
from support.processes import start

from wdsearch.search.run import begin
from wdsearch.storage.home import Home
from wdsearch.study.load import load_study

LONGEST_S = 3000.0


def fleet(workers: int, trials: int, kills: int, folder: Path, seed: int = 0) -> Tally:
    """Search one study with so many workers and kills."""
    study = STUDY | {
        "study": "fleet",
        "budget": {"trials": trials, "epochs": 12},
        "search": STUDY["search"] | {"batch": 4},
    }
    tally, chance, stopped, server = Tally(), random.Random(seed), threading.Event(), Server(folder)
    server.up()
    with postgres.running() as database, patch.dict(os.environ, MLFLOW_TRACKING_URI=server.uri):
        url = database.create("fleet")
        begin(load_study(study), Home(folder / "home"), url, progress=False)
        disturbers = [
            threading.Thread(target=_restart, args=(database, stopped, tally, random.Random(seed + 1))),
            threading.Thread(target=_outages, args=(server, stopped, tally, random.Random(seed + 2))),
        ]
        for thread in disturbers:
            thread.start()
        try:
            _search(study, folder / "home", url, workers, kills, chance, tally, stopped)
        finally:
            stopped.set()
            for thread in disturbers:
                thread.join()
        examine(folder / "home", server.uri, tally, study, url)
    server.down()
    judge(tally)
    return tally


def _search(
    study: dict[str, Any],
    home: Path,
    url: str,
    workers: int,
    kills: int,
    chance: random.Random,
    tally: Tally,
    stopped: threading.Event,
) -> None:
    """Run workers until all have ended well; when enough were killed, nothing is disturbed any more."""

    def started() -> Any:
        return start(study, home, storage=url, begun=True)

    running = [started() for _ in range(workers)]
    deadline = time.monotonic() + LONGEST_S
    while any(process.exitcode != 0 for process in running) and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.2, 2.0))
        for place, process in enumerate(running):
            if process.exitcode not in (None, 0):
                tally.expect(
                    process.exitcode == -signal.SIGKILL, f"a worker ended with {process.exitcode}; see {home}.log"
                )
                running[place] = started()
        alive = [process for process in running if process.exitcode is None]
        if alive and tally.counts["kills"] < kills:
            chance.choice(alive).kill()
            tally.counts["kills"] += 1
        elif tally.counts["kills"] >= kills:
            stopped.set()
    tally.expect(all(process.exitcode == 0 for process in running), "the workers did not end in time")
    for process in running:
        process.kill()


def _restart(database: postgres.Postgres, stopped: threading.Event, tally: Tally, chance: random.Random) -> None:
    while not stopped.wait(chance.uniform(10, 30)):
        database.stop(chance.choice([signal.SIGINT, signal.SIGQUIT]))
        stopped.wait(chance.uniform(0, 5))
        database.start()
        tally.counts["database restarts"] += 1


def _outages(server: Server, stopped: threading.Event, tally: Tally, chance: random.Random) -> None:
    while not stopped.wait(chance.uniform(10, 30)):
        server.down()
        tally.counts["outages"] += 1
        stopped.wait(chance.uniform(1, 8))
        server.up()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:  # a delivery may be at its last model
        found = fleet(given.workers, given.trials, given.kills, Path(place), given.seed)
        for name, count in sorted(found.counts.items()):
            print(f"{name:20} {count}")
        print("\n".join(found.faults) or "nothing lost, nothing doubled, nothing left running")
        if found.faults:
            print((Path(place) / "home.log").read_text()[-4000:])
    sys.exit(1 if found.faults else 0)
