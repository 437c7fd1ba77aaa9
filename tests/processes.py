"""Processes of their own that start at once, for they are forked from one that has imported torch and all: studies, commands."""

import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wdsearch import courier
from wdsearch.delivery import deliver
from wdsearch.stores import make_store
from wdsearch.tracking import Delivery, Tracker

TESTS = Path(__file__).parent
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["wdsearch.search", "wdsearch.schedule", "wdsearch.cli", "mlflow"])


def command(
    *words: str, folder: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 200.0
) -> subprocess.CompletedProcess[str]:
    """Call `wdsearch` with some words in a folder, as from a shell; raises AssertionError if it does not end in time."""
    with TemporaryDirectory() as place:
        output, errors = Path(place, "output"), Path(place, "errors")
        everything = dict(os.environ if environment is None else environment)
        process = CONTEXT.Process(target=_command, args=(words, folder, everything, output, errors))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise AssertionError(f"wdsearch {' '.join(words)} took longer than {timeout_s} s: {errors.read_text()}")
        return subprocess.CompletedProcess(words, process.exitcode, output.read_text(), errors.read_text())


def _command(words: tuple[str, ...], folder: Path, environment: Mapping[str, str], output: Path, errors: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for path, stream in ((output, sys.stdout), (errors, sys.stderr)):
        with path.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv, sys.path = ["wdsearch", *words], [place for place in sys.path if not place.startswith(str(TESTS))]
    from wdsearch.cli import main

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

    `constants` are set in wdsearch's modules: {"loop.CHECKPOINT_S": 2.0}. Without a `report` it ends seconds earlier: none is
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
        from wdsearch import conclusion
        from wdsearch.plots import TrialPicture

        deliver_here(setattr)
        for part in ("_report", "_optunas_plots", "_model"):
            setattr(conclusion, part, lambda *_: None)
        TrialPicture.draw = lambda *_: None
    with (home.parent / f"{home.name}.log").open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
        if begun:
            from wdsearch.worker import work

            work(study["study"], home=home, storage=storage, progress="lines")
        else:
            wdsearch.run(study, home=home, storage=storage, progress=False)


DELIVERY = {name: getattr(Tracker, name) for name in ("_deliver_beside", "close")}
EMPTY_STORE = "WDSEARCH_TESTS_EMPTY_STORE"
"""Names the file of an MLflow store without experiments: making one takes MLflow seconds."""


def deliver_here(patch: Callable[[Any, str, Any], None]) -> None:
    """Let a process that has imported mlflow tell it all at a study's end; deliveries beside have tests of their own."""
    patch(Tracker, "_deliver_beside", _nobody)
    patch(Tracker, "close", _deliver_and_close)
    patch(courier, "make_store", copy_store)


def _nobody(*_: object) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["true"])
    process.wait()
    return process


def _deliver_and_close(tracker: Tracker, *args: float, **options: Any) -> Delivery:
    tracker.stop_writing()
    if Tracker._deliver_beside is _nobody:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        deliver(tracker.spool.path, give_up_after_s=1.0)
        if uri is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow sets it, and leaves it
    return DELIVERY["close"](tracker, *args, **options)


def copy_store(uri: str) -> None:
    """Make an MLflow store unless there is one: a copy of an empty one in the tests, where making one would take seconds."""
    path = Path(uri.removeprefix("sqlite:///"))
    if EMPTY_STORE not in os.environ:
        make_store(uri)
    elif not path.exists():
        copy = path.with_name(f"{path.name}.{os.getpid()}")
        shutil.copyfile(os.environ[EMPTY_STORE], copy)
        with suppress(FileExistsError):  # another worker was quicker
            path.hardlink_to(copy)
        copy.unlink()


def _kill_at(last: int) -> None:
    """Count writes; die before the odd and after the even ones."""
    from optuna.storages import RDBStorage

    from wdsearch import loop, samplers, work
    from wdsearch.leases import Leases
    from wdsearch.spool import Spool

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
        samplers: ("create_trials",),
        loop: ("report", "set_attribute"),
        work: ("finish",),
        Leases: ("claim", "claim_baseline", "settle"),
        Spool: ("append",),
    }.items():
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
