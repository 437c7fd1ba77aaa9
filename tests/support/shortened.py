"""Shortens what takes seconds at a study's end, where a test is about something else."""

import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import pytest

from wdsearch.report.trial_picture import TrialPicture
from wdsearch.search import conclude as conclusion
from wdsearch.tracking import mlflow_client as courier
from wdsearch.tracking.delivery import deliver
from wdsearch.tracking.mlflow_store import make_store
from wdsearch.tracking.mlflow_tracker import MlflowDelivery, MlflowTracker

PARTS = {name: (conclusion, name) for name in ("_report", "_optunas_plots", "_model")} | {
    "draw": (TrialPicture, "draw")
}
CONCLUSION = {name: getattr(*place) for name, place in PARTS.items()}


def conclude_nothing(patch: Callable[[Any, str, Any], None]) -> None:
    """Let studies end without report, plots, model and trials' pictures."""
    for name, (owner, _) in PARTS.items():
        patch(owner, name, lambda *_: None)


@contextmanager
def concluded(*names: str) -> Iterator[None]:
    """Within it studies end as they do for users, or with these parts of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names or CONCLUSION:
            patch.setattr(PARTS[name][0], name, CONCLUSION[name])
        yield


DELIVERY = {name: getattr(MlflowTracker, name) for name in ("_deliver_beside", "finish")}
EMPTY_STORE = "WDSEARCH_TESTS_EMPTY_STORE"
"""Names the file of an MLflow store without experiments: making one takes MLflow seconds."""


def deliver_here(patch: Callable[[Any, str, Any], None]) -> None:
    """Let a process that has imported mlflow tell it all at a study's end; deliveries beside have tests of their own."""
    patch(MlflowTracker, "_deliver_beside", _nobody)
    patch(MlflowTracker, "finish", _deliver_and_finish)
    patch(courier, "make_store", copy_store)


def _nobody(*_: object) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(["true"])
    process.wait()
    return process


def _deliver_and_finish(tracker: MlflowTracker, *args: float, **options: Any) -> MlflowDelivery:
    tracker.stop_writing()
    if MlflowTracker._deliver_beside is _nobody:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        with redirect_stderr(io.StringIO()):  # mlflow's, which goes to a log where another process delivers
            deliver(tracker.spool.path, give_up_after_s=1.0)
        if uri is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow sets it, and leaves it
    return DELIVERY["finish"](tracker, *args, **options)


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


@contextmanager
def delivered_beside() -> Iterator[None]:
    """Within it studies reach MLflow by a process of its own, as they do for users."""
    with pytest.MonkeyPatch.context() as patch:
        for name, method in DELIVERY.items():
            patch.setattr(MlflowTracker, name, method)
        yield
