"""Starts sweeps when they are due; schedulers that share a storage may be killed at any time, and each sweep is started once."""

import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError

from wdsearch.launch.engines import LaunchError
from wdsearch.launch.study_folder import Entry, Timetables
from wdsearch.messages import shown_time
from wdsearch.search.interruption import asked_to_end
from wdsearch.storage.database import is_away
from wdsearch.storage.schedule_claims import CLAIMED, FAILED, LAUNCHED, MISSED, OPEN, QUEUED, SKIPPED, Fire, Fires
from wdsearch.study.cron import dated
from wdsearch.study.load import StudyConfig

LEASE_S, BEAT_S = 60.0, 10.0
"""Age at which a claim that is not refreshed is free for another scheduler; interval at which it is refreshed."""
LATE_S = 60.0
"""Longest pause of a scheduler that counts as no absence."""
EARLY_S = 30.0
"""Seconds that another scheduler's clock may be ahead of this one's."""
POLL_S = 15.0
"""Interval at which study files are read, and sweeps checked that others wait for."""
PATIENCE_S = 600.0
"""Longest wait of a scheduler that is called once for its storage: its caller does not call again soon."""
SHORTEST_WAIT_S = 0.05
MOST_ATTEMPTS = 5


@runtime_checkable
class Launching(Protocol):
    """Starts sweeps, and knows whether they are at work: `sweeps.Sweeps`."""

    def begin(self, config: StudyConfig, claim: Fire) -> str:
        """Start the sweep of a claim, or new workers if its own were killed, unless that was done; returns a text on it."""

    def was_killed(self, config: StudyConfig, study: str) -> bool:
        """True if a sweep's workers were killed, so that others must be started."""

    def at_work(self, study: str) -> bool:
        """True if a sweep has workers; raises LaunchError if an engine does not answer."""


class Scheduler:
    """One scheduler of a folder's study files on a storage.

    Each due time is a row of the storage that is inserted once, and so claimed, by whichever scheduler is first; another one
    takes a claim over whose scheduler is silent. Rows are inserted in order, so a family's latest row shows which due times are
    left. Times before a timetable was first seen are not due.
    """

    def __init__(
        self,
        source: Path,
        engine: Engine,
        sweeps: Launching,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.timetables = Timetables(source, self.log)
        self.sweeps = sweeps
        self.clock = clock
        self._say = say
        self.claims = Fires(engine, f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
        self._present: dict[str, float] = {}
        self._latest: dict[str, int | None] = {}
        self._faults: dict[str, str] = {}
        self._expected = 0.0

    def tick(self) -> float:
        """Start the sweeps that are due by the clock; returns the time of the next call."""
        now = self.clock()
        if now - self._expected > LATE_S:  # it stood still, with its machine perhaps
            self._present = {}
        wakes = [now + POLL_S]
        for entry in self.timetables.entries():
            since = self.claims.since(entry.family, entry.plan.spec, now)
            if entry.family not in self._present:
                with self._faults_reported(entry):
                    self._resume(entry)
            self._present.setdefault(entry.family, now)
            with self._faults_reported(entry):
                self._enter_due(entry, since, now)
                self._attend(entry)
            wakes.append(entry.next(now))
        self._expected = max(min(wakes), self.clock())
        return min(wakes)

    def once(self) -> bool:
        """Start the sweeps that are due, for another scheduler that calls this: the latest due time counts however late the call.

        False as long as a sweep waits for the one before it, or for its silent scheduler.
        """
        open_claims: list[Fire] = []
        for entry in self.timetables.entries():
            first = entry.latest(self.clock() + EARLY_S)
            latest = self._latest.setdefault(entry.family, first)  # times that become due meanwhile are another call's
            if latest is not None:
                if entry.family not in self._present and (earlier := self.claims.of(entry.family, since=latest)):
                    self._log_claim(earlier[0], f"{earlier[0].state} already", earlier[0].note)
                since = self.claims.since(entry.family, entry.plan.spec, latest - 1.0)
                self._present[entry.family] = latest
                self._enter_due(entry, since, latest)
            self._attend(entry)
            open_claims += self.claims.of(entry.family, OPEN, before=(latest or 0) + 1)
        return not open_claims

    def latest(self, state: str = LAUNCHED) -> list[str]:
        """The sweeps that were launched, or failed, for the due times that `once` was called for, by whichever scheduler."""
        return [
            claim.study
            for entry in self.timetables.entries()
            for claim in self.claims.of(entry.family, [state])
            if claim.fire_time == self._latest.get(entry.family)
        ]

    def _enter_due(self, entry: Entry, since: float, until: float) -> None:
        """Claim the due times since the latest that is known, and launch those that this scheduler got."""
        due = entry.due(max(since, self.claims.last(entry.family)), until)
        for due_time in due:
            state, note = self._first_state(entry, due_time, due[-1])
            claim = self.claims.enter(entry.family, due_time, state, dated(entry.family, due_time), note)
            if claim is not None and state == CLAIMED:
                self._launch_if_free(entry, claim)
            elif claim is not None:
                self._log_claim(claim, state, note)

    def _first_state(self, entry: Entry, due_time: int, latest: int) -> tuple[str, str]:
        """The first state of a due time, and a note; it is missed if no scheduler ran then, or it would have been claimed."""
        if due_time + LATE_S >= self._present[entry.family]:
            return CLAIMED, ""
        if entry.plan.catch_up == "all":
            return QUEUED, "no scheduler ran then; made up for"
        if entry.plan.catch_up == "last" and due_time == latest:
            return CLAIMED, ""
        return MISSED, f"no scheduler ran then (catch_up: {entry.plan.catch_up})"

    def _resume(self, entry: Entry) -> None:
        """Launch again a sweep whose workers went down with this machine, or with this scheduler's container."""
        for claim in self.claims.of(entry.family, [LAUNCHED])[-1:]:
            if self.sweeps.was_killed(entry.config, claim.study) and (taken := self.claims.take(claim)):
                self._log_claim(claim, "workers were killed", "others go on")
                self._launch(entry, taken)

    def _attend(self, entry: Entry) -> None:
        """Launch sweeps that have waited long enough: for the one before, or for a scheduler that is silent."""
        for claim in self.claims.of(entry.family, OPEN):
            silent = time.time() - claim.claimed_at > LEASE_S
            ready = silent if claim.state == CLAIMED else self._is_free(claim)
            if ready and (taken := self.claims.take(claim)):
                if taken.attempts > MOST_ATTEMPTS + 1:
                    self._settle(taken, FAILED, taken.note or "its schedulers died")
                else:
                    self._launch_if_free(entry, taken)

    def _launch_if_free(self, entry: Entry, claim: Fire) -> None:
        """Launch the sweep of a claim unless the one before is at work; if that stays unknown, it counts as not at work."""
        try:
            before = self._before(claim)
        except LaunchError as error:
            if claim.attempts <= MOST_ATTEMPTS:
                self._log_claim(claim, "not launched", f"{error}; it is tried again")
                return
            before = ""
        if before and (entry.plan.overlap == "queue" or claim.note):
            self._settle(claim, QUEUED, f"{before} is at work")
        elif before:
            self._settle(claim, SKIPPED, f"{before} is at work")
        else:
            self._launch(entry, claim)

    def _is_free(self, claim: Fire) -> bool:
        """True if a queued sweep can start; also if that is unknown, for the launch checks it again."""
        try:
            return not self._before(claim)
        except LaunchError:
            return True

    def _before(self, claim: Fire) -> str:
        """The sweep before that of a claim, if it has yet to begin or is at work; else empty."""
        earlier = self.claims.of(claim.family, (*OPEN, LAUNCHED), before=claim.fire_time)
        if not earlier:
            return ""
        last = earlier[-1]
        return last.study if last.state in OPEN or self.sweeps.at_work(last.study) else ""

    def _launch(self, entry: Entry, claim: Fire) -> None:
        """Start the workers. A refusal by the engine is tried again by any scheduler after the lease; other faults are final."""
        try:
            with self._refreshed(claim):
                started = self.sweeps.begin(entry.config, claim)
        except LaunchError as error:
            self._log_claim(
                claim, "not launched", f"{error}; it is tried again" if claim.attempts <= MOST_ATTEMPTS else str(error)
            )
            if claim.attempts > MOST_ATTEMPTS:
                self._settle(claim, FAILED, str(error))
        except Exception as error:
            if _is_temporary(error):
                raise
            self._settle(claim, FAILED, f"{type(error).__name__}: {error}")
        else:
            self._settle(claim, LAUNCHED, started)

    @contextmanager
    def _faults_reported(self, entry: Entry) -> Iterator[None]:
        """Reports a family's fault once, and lets the schedules of other families go on."""
        try:
            yield
        except Exception as error:
            if _is_temporary(error):
                raise
            fault = f"{type(error).__name__}: {error}"
            if self._faults.get(entry.family) != fault:
                self.log(f"{entry.family}: {fault}; it is tried again, other schedules go on")
            self._faults[entry.family] = fault

    @contextmanager
    def _refreshed(self, claim: Fire) -> Iterator[None]:
        """Refreshes a claim meanwhile: loading the data may take long."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT_S):
                with suppress(DBAPIError):  # locked or out of reach for a moment
                    self.claims.refresh(claim)

        thread = threading.Thread(target=beat, daemon=True, name="claim")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _settle(self, claim: Fire, state: str, note: str) -> None:
        if self.claims.settle(claim, state, note):
            self._log_claim(claim, state, note)
        else:
            self._log_claim(claim, "taken over", "by another scheduler, while this one was silent")

    def _log_claim(self, claim: Fire, state: str, note: str) -> None:
        self.log(f"{claim.study} (due {shown_time(claim.fire_time)}): {state}" + (f": {note}" if note else ""))

    def log(self, text: str) -> None:
        """Write a line of the log."""
        self._say(f"{shown_time(self.clock())}  {text}")


def serve(scheduler: Scheduler) -> int:
    """Start due sweeps until Ctrl-C or SIGTERM, whose number is returned; a launch in progress ends first."""
    stopped = threading.Event()
    with asked_to_end(stopped.set) as received:
        while not stopped.is_set():
            try:
                wake = scheduler.tick()
            except Exception as error:
                if not _is_temporary(error):
                    raise
                scheduler.log(f"the storage does not answer, it is tried again: {str(error).splitlines()[0]}")
                wake = scheduler.clock() + POLL_S
            stopped.wait(max(SHORTEST_WAIT_S, wake - scheduler.clock()))
    return received[0]


def _is_temporary(error: Exception) -> bool:
    """True of errors of a storage that is out of reach for a moment."""
    return is_away(error) or "database is locked" in str(error)


def serve_once(scheduler: Scheduler) -> int:
    """Start the sweeps that are due now, for another scheduler that calls this; the number of a signal that ended it, else 0."""
    stopped, patience_ends = threading.Event(), time.monotonic() + PATIENCE_S
    with asked_to_end(stopped.set) as received:
        while not stopped.is_set():
            try:
                if scheduler.once():
                    break
            except Exception as error:
                if not _is_temporary(error) or time.monotonic() > patience_ends:
                    raise
                scheduler.log(f"the storage does not answer, it is tried again: {str(error).splitlines()[0]}")
            stopped.wait(POLL_S)
    return received[0] if received else 0
