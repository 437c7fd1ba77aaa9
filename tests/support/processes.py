"""Processes of their own that start at once, for they are forked from one that has imported torch and all: studies, commands."""

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["wdsearch.search.run", "wdsearch.launch.scheduler", "wdsearch.cli.app", "mlflow", "support.shortened"]
)


def command(
    *words: str,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 200.0,
    beside: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Call `wdsearch` with some words in a folder, as from a shell; raises AssertionError if it does not end in time.

    What it tells MLflow the process delivers by itself, unless that is to happen `beside` it, in another one.
    """
    with TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        everything = dict(os.environ if environment is None else environment)
        process = CONTEXT.Process(target=_command, args=(words, folder, everything, output, errors, beside))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"wdsearch {' '.join(words)} took longer than {timeout_s} s: {errors.read_text()}")
        return subprocess.CompletedProcess(words, process.exitcode, output.read_text(), errors.read_text())


def _command(
    words: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str],
    output: Path,
    errors: Path,
    beside: bool,
) -> None:
    from support.shortened import deliver_here

    os.environ.clear()
    os.environ.update(environment)
    if not beside:
        deliver_here(setattr)
    os.chdir(folder)
    for path, stream in ((output, sys.stdout), (errors, sys.stderr)):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv, sys.path = ["wdsearch", *words], [place for place in sys.path if not place.startswith(str(TESTS))]
    from wdsearch.cli.app import main

    main()


def start(
    study: Mapping[str, Any],
    home: Path,
    kill_at: int = 0,
    storage: str | None = None,
    constants: Mapping[str, float] | None = None,
    report: bool = True,
    begun: bool = False,
) -> multiprocessing.process.BaseProcess:
    """Begin to run a study in a process of its own; it kills itself at its `kill_at`-th write to any storage, if not 0.

    `constants` are set in modules: {"search.worker.CHECKPOINT_S": 2.0}. Without a `report` it ends seconds earlier: none is
    made, nor any plots, nor a model in MLflow, which the process tells all at its end by itself. Of a study that is `begun` it
    is one more worker.
    """
    everything = (study, home, kill_at, storage, dict(constants or {}), report, begun, dict(os.environ))
    process = CONTEXT.Process(target=_run, args=everything)
    process.start()
    return process


def _run(
    study: Mapping[str, Any],
    home: Path,
    kill_at: int,
    storage: str | None,
    constants: Mapping[str, float],
    report: bool,
    begun: bool,
    environment: Mapping[str, str],
) -> None:
    os.environ.update(environment)  # the process that forks has that of its own start
    import torch

    import wdsearch

    torch.set_num_threads(1)
    for path, value in constants.items():
        module, _, name = path.rpartition(".")
        setattr(importlib.import_module(f"wdsearch.{module}"), name, value)
    if kill_at:
        _kill_at(kill_at)
    if not report:
        from support.shortened import conclude_nothing, deliver_here

        deliver_here(setattr)
        conclude_nothing(setattr)
    with (home.parent / f"{home.name}.log").open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        if begun:
            from wdsearch.search.run import work

            work(study["study"], home=home, storage=storage, progress="lines")
        else:
            wdsearch.run(study, home=home, storage=storage, progress=False)


def _kill_at(last: int) -> None:
    """Count writes; die before the odd and after the even ones."""
    from optuna.storages import RDBStorage

    from wdsearch.search import ask, loop, worker
    from wdsearch.storage.leases import Leases
    from wdsearch.tracking.spool import Spool

    left = [last]

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and last % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = write(*args, **kwargs)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    for owner, names in {
        RDBStorage: ("set_study_user_attr",),
        ask: ("create_trials",),
        loop: ("report", "set_attribute"),
        worker: ("finish",),
        Leases: ("claim", "claim_baseline", "settle"),
        Spool: ("append",),
    }.items():
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
