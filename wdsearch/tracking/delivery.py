"""Carries a study's records from its spool to MLflow, in a process of its own."""

import math
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wdsearch.errors import WdsearchError
from wdsearch.files import is_locked, locked
from wdsearch.storage.home import Home
from wdsearch.tracking.mlflow_address import HASTE, PATIENCE, QUIET, shown_uri
from wdsearch.tracking.mlflow_client import LIVE_EVERY_S, Courier, warm_up
from wdsearch.tracking.mlflow_store import write_through
from wdsearch.tracking.spool import Spool, complain, interrupt, lock_of, open_elsewhere, spool_paths

QUIET_S = 20.0  # so long nobody looks yet; a short study is delivered at its end, when no training is held up
DUTY = 0.05  # share of the time that delivery may take while training goes on
GIVE_UP_AFTER_S, SYNC_GIVES_UP_AFTER_S = 180.0, 20.0
LONGEST_PAUSE_S = 15.0


class UndeliveredError(WdsearchError):
    """Records that MLflow does not have yet; they stay in the spool."""

    exit_code = 1


def deliver(
    path: Path, give_up_after_s: float = GIVE_UP_AFTER_S, progress: Callable[[int, str | None], None] | None = None
) -> int:
    """Deliver a spool until nobody writes to it any more and it is empty; returns how many records are left.

    While MLflow is out of reach it tries again, less and less often, and gives up only when nobody writes any more.
    A second delivery of the same spool waits for the first to end. `progress` is told how many are left, and why.
    """
    with locked(path.with_suffix(".lock")):
        spool = Spool(path)
        try:
            return _deliver_all(spool, give_up_after_s, progress or (lambda left, error: None))
        finally:
            if spool.recall("local") == "True":
                write_through(spool.recall("uri") or "")
            spool.close()


def sync(
    study: str, home: Home, storage: str | None = None, progress: Callable[[int, str | None], None] | None = None
) -> tuple[int, int]:
    """Deliver what a study's runs have left behind in this folder.

    Returns how many records were delivered, and how many other machines still deliver their own.

    Raises StudyNotFoundError, and UndeliveredError with MLflow's reason if some could not be delivered.
    """
    paths, elsewhere = spool_paths(home.path, study), open_elsewhere(home.path, study)
    if not paths:
        home.load(study, storage)  # says what is wrong with the name
    os.environ.update({name: os.environ.get(name, value) for name, value in (PATIENCE | QUIET).items()})
    return sum(_sync_one(path, study, progress) for path in paths), elsewhere


def _sync_one(path: Path, study: str, progress: Callable[[int, str | None], None] | None) -> int:
    spool = Spool(path)
    try:
        before, uri = spool.left(), shown_uri(spool.recall("uri") or "")
        left = 0
        if before:
            stuck = _await_another(spool, progress)
            left = spool.left() if stuck else deliver(path, SYNC_GIVES_UP_AFTER_S, progress)
        if left:
            reason = spool.recall("error") or "it gave no reason"
            text = f"{left} of {before} records could not be delivered to {uri}: {reason}"
            raise UndeliveredError(text, hint=f"they wait in {path}; when MLflow answers: wdsearch sync {study}")
        return before
    finally:
        spool.close()


def _await_another(spool: Spool, progress: Callable[[int, str | None], None] | None) -> bool:
    """Wait for a delivery that is at work; whether it gets nowhere, as this one then would not either."""
    least, moved = math.inf, time.monotonic()
    while is_locked(spool.path.with_suffix(".lock")) and (left := spool.left()):
        error = spool.recall("error")
        least, moved = (left, time.monotonic()) if left < least else (least, moved)
        if error and time.monotonic() - moved > SYNC_GIVES_UP_AFTER_S:
            return True
        if progress:
            progress(left, error)
        time.sleep(0.2)
    return False


def _deliver_all(spool: Spool, give_up_after_s: float, progress: Callable[[int, str | None], None]) -> int:
    warm_up(spool)
    courier, failing_since, pause_s, quiet_until = None, None, 0.5, time.monotonic() + QUIET_S
    wary = not spool.path.name.endswith((f"@{platform.node()}.db", f"{spool.recall('study')}.db"))
    while True:
        last, began = not _writers(spool, wary), time.monotonic()
        try:
            if spool.left() and (last or began >= quiet_until):
                courier = courier or Courier(spool, wary)
                courier.carry(everything=last)
            failing_since, pause_s = None, min(LIVE_EVERY_S, 0.5 + (time.monotonic() - began) / DUTY)
        except Exception as error:
            complain(spool, f"{type(error).__name__}: {error}")
            failing_since, pause_s = failing_since or time.monotonic(), min(LONGEST_PAUSE_S, pause_s * 2)
        progress(spool.left(), spool.recall("error") if failing_since is not None else None)
        gave_up = failing_since is not None and time.monotonic() - failing_since > give_up_after_s
        refused = courier.refused if courier else set()
        if last and (gave_up or not spool.waiting().keys() - refused):
            return spool.left()
        _rest(spool, 0.05 if last and failing_since is None else pause_s, wary)


def _rest(spool: Spool, seconds: float, wary: bool) -> None:
    """Sleep, but not on when the study is closed meanwhile: then somebody waits for the rest."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and (seconds < 1.0 or _writers(spool, wary)):
        time.sleep(min(0.1, seconds))


def _writers(spool: Spool, wary: bool) -> list[str]:
    """The writers that live; what the others left open is marked as interrupted, unless another machine may go on with it."""
    alive = []
    for writer in spool.facts("writer"):
        if is_locked(lock_of(spool, writer)):
            alive.append(writer)
        elif wary:
            spool.forget(f"writer {writer}")
        else:
            interrupt(spool, writer)
    return alive


def _step_aside() -> None:
    """Run only where a processor would idle: a busy neighbour stalls all threads of a training step."""
    os.nice(19)
    if hasattr(os, "SCHED_IDLE"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


if __name__ == "__main__":
    if HASTE not in sys.argv:
        _step_aside()
    deliver(Path(sys.argv[1]))
    sys.stderr.flush()
    os._exit(0)  # nothing is left to tidy up, and tearing mlflow down takes a second for which somebody waits
