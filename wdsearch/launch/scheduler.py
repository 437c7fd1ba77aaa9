"""Starts sweeps when they are due: any number of schedulers may do so on one storage, and be killed; every fire comes once."""

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
"""A claim that is not refreshed for so long is another's to take; how often it is refreshed."""
LATE_S = 60.0
"""A scheduler that was away for no longer than this missed nothing."""
EARLY_S = 30.0
"""What another scheduler's clock may be ahead of this one's."""
POLL_S = 15.0
"""How often files are looked at, and sweeps that others wait for."""
PATIENCE_S = 600.0
"""How long a scheduler that is called once waits for its storage: who calls it does not call again soon."""
SHORTEST_WAIT_S = 0.05
MOST_ATTEMPTS = 5


@runtime_checkable
class Launching(Protocol):
    """What starts sweeps, and says whether they are at work: `sweeps.Sweeps`."""

    def begin(self, config: StudyConfig, fire: Fire) -> str:
        """Start a fire's sweep, or workers again for one whose own were killed, unless that was done before; in words."""

    def was_killed(self, config: StudyConfig, study: str) -> bool:
        """Whether a sweep's workers were killed, so that others must be started."""

    def at_work(self, study: str) -> bool:
        """Whether a sweep has workers; raises LaunchError if an engine does not say so."""


class Scheduler:
    """One scheduler of a folder's study files on a storage.

    A fire is a row of the storage that is entered once, and so claimed, by whoever is first; who finds a claim whose scheduler
    is silent takes it over. Fires are entered in order, so a family's latest row says what is left. What lies before the first
    sight of a timetable is no fire.
    """

    def __init__(
        self,
        source: Path,
        engine: Engine,
        sweeps: Launching,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.timetables, self.sweeps, self.clock = Timetables(source, self.told), sweeps, clock
        self._say = say
        self.fires = Fires(engine, f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
        self._present: dict[str, float] = {}
        self._latest: dict[str, int | None] = {}
        self._faults: dict[str, str] = {}
        self._expected = 0.0

    def tick(self) -> float:
        """Do what is due by the clock; the time at which there is something to do again."""
        now = self.clock()
        if now - self._expected > LATE_S:  # it stood still, with its machine perhaps
            self._present = {}
        wakes = [now + POLL_S]
        for entry in self.timetables.entries():
            since = self.fires.since(entry.family, entry.plan.spec, now)
            if entry.family not in self._present:
                with self._faults_told(entry):
                    self._resume(entry)
            self._present.setdefault(entry.family, now)
            with self._faults_told(entry):
                self._enter_due(entry, since, now)
                self._attend(entry)
            wakes.append(entry.next(now))
        self._expected = max(min(wakes), self.clock())
        return min(wakes)

    def once(self) -> bool:
        """Do what is due for a scheduler that calls now and then: the latest fire counts as due however late the call.

        False as long as something waits for a sweep before it, or for its silent scheduler.
        """
        open_fires: list[Fire] = []
        for entry in self.timetables.entries():
            first = entry.latest(self.clock() + EARLY_S)
            latest = self._latest.setdefault(entry.family, first)  # of this call: what is due meanwhile is another's
            if latest is not None:
                if entry.family not in self._present and (known := self.fires.of(entry.family, since=latest)):
                    self._log(known[0], f"{known[0].state} already", known[0].note)
                since = self.fires.since(entry.family, entry.plan.spec, latest - 1.0)
                self._present[entry.family] = latest
                self._enter_due(entry, since, latest)
            self._attend(entry)
            open_fires += self.fires.of(entry.family, OPEN, before=(latest or 0) + 1)
        return not open_fires

    def latest(self, state: str = LAUNCHED) -> list[str]:
        """The sweeps that were launched, or failed, for the fires that `once` was called for, by whichever scheduler."""
        return [
            fire.study
            for entry in self.timetables.entries()
            for fire in self.fires.of(entry.family, [state])
            if fire.fire_time == self._latest.get(entry.family)
        ]

    def _enter_due(self, entry: Entry, since: float, until: float) -> None:
        """Enter the fires since the latest that is known, and launch those that are this scheduler's."""
        due = entry.due(max(since, self.fires.last(entry.family)), until)
        for fire_time in due:
            state, note = self._becomes(entry, fire_time, due[-1])
            fire = self.fires.enter(entry.family, fire_time, state, dated(entry.family, fire_time), note)
            if fire is not None and state == CLAIMED:
                self._go(entry, fire)
            elif fire is not None:
                self._log(fire, state, note)

    def _becomes(self, entry: Entry, fire_time: int, latest: int) -> tuple[str, str]:
        """What a due fire is at first; one is missed if no scheduler ran then, for else it would have been claimed."""
        if fire_time + LATE_S >= self._present[entry.family]:
            return CLAIMED, ""
        if entry.plan.catch_up == "all":
            return QUEUED, "no scheduler ran then; made up for"
        if entry.plan.catch_up == "last" and fire_time == latest:
            return CLAIMED, ""
        return MISSED, f"no scheduler ran then (catch_up: {entry.plan.catch_up})"

    def _resume(self, entry: Entry) -> None:
        """What this machine was at when it, or this scheduler's container, went down: claimed, and launched again."""
        for fire in self.fires.of(entry.family, [LAUNCHED])[-1:]:
            if self.sweeps.was_killed(entry.config, fire.study) and (taken := self.fires.take(fire)):
                self._log(fire, "workers were killed", "others go on")
                self._launch(entry, taken)

    def _attend(self, entry: Entry) -> None:
        """Launch what has waited long enough: for the sweep before it, or for a scheduler that is silent."""
        for fire in self.fires.of(entry.family, OPEN):
            silent = time.time() - fire.claimed_at > LEASE_S
            ready = silent if fire.state == CLAIMED else self._is_free(fire)
            if ready and (taken := self.fires.take(fire)):
                if taken.attempts > MOST_ATTEMPTS + 1:
                    self._settle(taken, FAILED, taken.note or "its schedulers died")
                else:
                    self._go(entry, taken)

    def _go(self, entry: Entry, fire: Fire) -> None:
        """Launch a claimed fire, unless the sweep before it is at work; if that stays unknown, it is not."""
        try:
            before = self._before(fire)
        except LaunchError as error:
            if fire.attempts <= MOST_ATTEMPTS:
                self._log(fire, "not launched", f"{error}; it is tried again")
                return
            before = ""
        if before and (entry.plan.overlap == "queue" or fire.note):
            self._settle(fire, QUEUED, f"{before} is at work")
        elif before:
            self._settle(fire, SKIPPED, f"{before} is at work")
        else:
            self._launch(entry, fire)

    def _is_free(self, fire: Fire) -> bool:
        """Whether a queued fire can go, or finds out when it is about to."""
        try:
            return not self._before(fire)
        except LaunchError:
            return True

    def _before(self, fire: Fire) -> str:
        """The sweep before a fire's, if it has yet to begin or is at work; else empty."""
        earlier = self.fires.of(fire.family, (*OPEN, LAUNCHED), before=fire.fire_time)
        if not earlier:
            return ""
        last = earlier[-1]
        return last.study if last.state in OPEN or self.sweeps.at_work(last.study) else ""

    def _launch(self, entry: Entry, fire: Fire) -> None:
        """Start the workers. What an engine refuses is tried again by whoever comes after the lease; other faults stay."""
        try:
            with self._kept(fire):
                told = self.sweeps.begin(entry.config, fire)
        except LaunchError as error:
            self._log(
                fire, "not launched", f"{error}; it is tried again" if fire.attempts <= MOST_ATTEMPTS else str(error)
            )
            if fire.attempts > MOST_ATTEMPTS:
                self._settle(fire, FAILED, str(error))
        except Exception as error:
            if _passes(error):
                raise
            self._settle(fire, FAILED, f"{type(error).__name__}: {error}")
        else:
            self._settle(fire, LAUNCHED, told)

    @contextmanager
    def _faults_told(self, entry: Entry) -> Iterator[None]:
        """A sweep that cannot be read, or whatever else is wrong with a family, keeps no other from its fires; said once."""
        try:
            yield
        except Exception as error:
            if _passes(error):
                raise
            fault = f"{type(error).__name__}: {error}"
            if self._faults.get(entry.family) != fault:
                self.told(f"{entry.family}: {fault}; it is tried again, other schedules go on")
            self._faults[entry.family] = fault

    @contextmanager
    def _kept(self, fire: Fire) -> Iterator[None]:
        """Meanwhile the claim is refreshed: looking at the data may take long."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT_S):
                with suppress(DBAPIError):  # locked or out of reach for a moment
                    self.fires.refresh(fire)

        thread = threading.Thread(target=beat, daemon=True, name="claim")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _settle(self, fire: Fire, state: str, note: str) -> None:
        if self.fires.settle(fire, state, note):
            self._log(fire, state, note)
        else:
            self._log(fire, "taken over", "by another scheduler, while this one was silent")

    def _log(self, fire: Fire, state: str, note: str) -> None:
        self.told(f"{fire.study} (due {shown_time(fire.fire_time)}): {state}" + (f": {note}" if note else ""))

    def told(self, text: str) -> None:
        """A line of the log."""
        self._say(f"{shown_time(self.clock())}  {text}")


def serve(scheduler: Scheduler) -> int:
    """Do what is due until Ctrl-C or SIGTERM, whose number is returned; a launch is brought to its end first."""
    stopped = threading.Event()
    with asked_to_end(stopped.set) as received:
        while not stopped.is_set():
            try:
                wake = scheduler.tick()
            except Exception as error:
                if not _passes(error):
                    raise
                scheduler.told(f"the storage does not answer, it is tried again: {str(error).splitlines()[0]}")
                wake = scheduler.clock() + POLL_S
            stopped.wait(max(SHORTEST_WAIT_S, wake - scheduler.clock()))
    return received[0]


def _passes(error: Exception) -> bool:
    """Whether a storage is out of reach for a moment."""
    return is_away(error) or "database is locked" in str(error)


def serve_once(scheduler: Scheduler) -> int:
    """Do what is due now, for another scheduler that calls this; the number of a signal that ended it before, else 0."""
    stopped, patience_ends = threading.Event(), time.monotonic() + PATIENCE_S
    with asked_to_end(stopped.set) as received:
        while not stopped.is_set():
            try:
                if scheduler.once():
                    break
            except Exception as error:
                if not _passes(error) or time.monotonic() > patience_ends:
                    raise
                scheduler.told(f"the storage does not answer, it is tried again: {str(error).splitlines()[0]}")
            stopped.wait(POLL_S)
    return received[0] if received else 0
