"""Leases of trials: tables beside Optuna's that reserve the budget and hand a dead worker's trials to another.

A *slot* is one unit of the budget and the index of its ask; slot -1 is the baseline, -2 the study's end.
A *worker* has a clock that counts the epochs of its population: a slot's `born` is the tick at which its trial began,
and what happened up to the tick `settled` is decided for good. A process that finds a worker dead on its own machine
becomes that worker, clock and all, and repeats it to the bit; one that lives takes over a dead worker's slots in its
own time.
"""

import platform
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sql
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from wdsearch.files import hold_if_free
from wdsearch.storage.slots import BASELINE_SLOT, CONCLUSION_SLOT, SLOTS, WORKERS, Slot

BEAT_S, GRACE_S = 5.0, 60.0
MOST_TAKEOVERS = 5
ALIVE, RELEASED = "alive", "released"
_FOLDER_NUMBER = ".place"


@dataclass(frozen=True)
class Worker:
    """A worker that is part of a study: where it runs, whether it lives, or ended in order, and when it was last heard of."""

    name: str
    machine_id: str
    alive: bool
    released: bool
    silent_s: float


class Leases:
    """One worker's part in a study.

    `tick` is what its heartbeat, a thread, tells the others. Only who holds the lock file beside the study's files is
    the worker: the system frees the lock when a process dies, however it does. `former` is who this process was before
    its storage went away: that one has not died.
    """

    def __init__(self, engine: Engine, study_id: int, folder: Path, former: str = "") -> None:
        self.engine, self.study_id, self.folder, self.former = engine, study_id, folder, former
        self.worker, self.tick, self.settled = "", 0, 0
        self._machine_id = _machine_id(folder)
        self._lock: IO[str] | None = None
        self._seen: dict[str, tuple[int, float]] = {}
        self._stopped = threading.Event()

    # -- this worker -------------------------------------------------------------------------------------------

    def join(self) -> list[Slot]:
        """Become a dead worker of this machine, or one that was released, with its slots; else a new one, with none."""
        slots: list[Slot] = []
        _number(self.folder)
        self._machine_id = _machine_id(self.folder)
        for row in self._others():
            if row.state == RELEASED or row.machine_id == self._machine_id:
                lock = self._locked(row.worker)
                if lock is not None and self._becomes(row):
                    self._lock, self.worker = lock, row.worker
                    self.tick, self.settled = row.tick, row.settled
                    with self.engine.begin() as database:
                        slots = self._inherit(database, row, self.owned(), born=None)
                    break
                if lock is not None:
                    lock.close()
        if not self.worker:
            self.worker = uuid.uuid4().hex
            self._lock = self._locked(self.worker)
            self._register()
        threading.Thread(target=self._beat_on, daemon=True, name="heartbeat").start()
        return slots

    def settle(self, tick: int) -> None:
        """Decide for good what happened up to a tick: from here on it is not judged again."""
        self.tick, self.settled = max(self.tick, tick), max(self.settled, tick)
        self._beat()

    def release(self) -> None:
        """Let another process become this worker at once."""
        self._leave(sql.update(WORKERS).values(state=RELEASED, tick=self.tick))

    def let_go(self) -> None:
        """Release, or where the storage is away free the lock alone, by which others of this machine see the same."""
        with suppress(DBAPIError):
            self.release()

    def finish(self) -> None:
        """Leave for good: nothing of this worker is unfinished."""
        self._leave(sql.delete(WORKERS))
        self._remove_files(self.worker)

    def _remove_files(self, worker: str) -> None:
        for file in self.folder.glob(f"{worker}.*"):
            file.unlink(missing_ok=True)

    def _leave(self, statement: Any) -> None:
        self._stopped.set()
        if self._lock is not None:
            try:
                with self.engine.begin() as database:
                    database.execute(statement.where(self._is(self.worker)))
            finally:
                self._lock.close()
                self._lock = None

    def _beat_on(self) -> None:
        while not self._stopped.wait(BEAT_S):
            with suppress(DBAPIError):  # locked or out of reach for a moment: the next beat counts
                self._beat()

    def _beat(self) -> None:
        news = {
            "beats": WORKERS.c.beats + 1,
            "beat_at": _clock(self.engine),
            "tick": self.tick,
            "settled": self.settled,
        }
        with self.engine.begin() as database:
            known = database.execute(sql.update(WORKERS).where(self._is(self.worker)).values(**news)).rowcount
        if not known and not self._stopped.is_set():  # taken for dead, after a long standstill
            self._register()

    def _register(self) -> None:
        row = {
            "study": self.study_id,
            "worker": self.worker,
            "machine_id": self._machine_id,
            "state": ALIVE,
            "beats": 0,
        }
        with self.engine.begin() as database:
            database.execute(
                sql.insert(WORKERS).values(**row, beat_at=_clock(self.engine), tick=self.tick, settled=self.settled)
            )

    # -- slots -------------------------------------------------------------------------------------------------

    def claim(self, count: int, limit: int, born: int) -> list[int]:
        """Reserve up to `count` new slots below `limit`; two workers never get the same."""
        while True:
            try:
                with self.engine.begin() as database:
                    highest = sql.select(sql.func.max(SLOTS.c.slot)).where(SLOTS.c.study == self.study_id)
                    top = database.scalar(highest)
                    first = 0 if top is None else max(0, top + 1)
                    slots = list(range(first, min(limit, first + count)))
                    self._insert(database, slots, born)
                return slots
            except IntegrityError:  # another worker was quicker
                continue

    def claim_baseline(self, born: int) -> bool:
        """Reserve the baseline for this worker; False if another one has it."""
        try:
            with self.engine.begin() as database:
                self._insert(database, [BASELINE_SLOT], born)
        except IntegrityError:
            return False
        return True

    def claim_conclusion(self) -> bool:
        """Reserve the conclusion of the study for this worker; False if another one that lives has it."""
        try:
            with self.engine.begin() as database:
                self._insert(database, [CONCLUSION_SLOT], 0)
            return True
        except IntegrityError:
            name, lives = self._concluder()
            if lives:
                return False
            holder = sql.and_(SLOTS.c.study == self.study_id, SLOTS.c.slot == CONCLUSION_SLOT)
            same = sql.update(SLOTS).where(holder, SLOTS.c.worker == name)
            with self.engine.begin() as database:
                return bool(database.execute(same.values(worker=self.worker)).rowcount)

    def is_concluding(self) -> bool:
        """True while another worker that is not known to be dead concludes the study."""
        return self._concluder()[1]

    def _concluder(self) -> tuple[str | None, bool]:
        """Name of the worker that concludes the study, or did; true with it if that is another one, and it lives."""
        holder = sql.and_(SLOTS.c.study == self.study_id, SLOTS.c.slot == CONCLUSION_SLOT)
        with self.engine.begin() as database:
            name = database.scalar(sql.select(SLOTS.c.worker).where(holder))
        return name, any(row.worker == name and not self._is_dead(row) for row in self._others())

    def claimed(self) -> set[int]:
        """All slots that any worker ever reserved for a trial."""
        trials = sql.and_(SLOTS.c.study == self.study_id, SLOTS.c.slot >= BASELINE_SLOT)
        with self.engine.begin() as database:
            return set(database.scalars(sql.select(SLOTS.c.slot).where(trials)))

    def owned(self) -> list[Slot]:
        """The slots that are this worker's, in order."""
        return self._slots(self.worker)

    def _insert(self, database: Any, slots: Sequence[int], born: int) -> None:
        start = {"study": self.study_id, "worker": self.worker, "born": born}
        rows = [start | {"slot": slot, "settled": 0, "furthest": 0, "takeovers": 0} for slot in slots]
        if rows:
            database.execute(sql.insert(SLOTS), rows)

    def _slots(self, worker: str) -> list[Slot]:
        columns = [SLOTS.c[name] for name in Slot.__dataclass_fields__]
        trials = (SLOTS.c.study == self.study_id, SLOTS.c.worker == worker, SLOTS.c.slot >= BASELINE_SLOT)
        query = sql.select(*columns).where(*trials)
        with self.engine.begin() as database:
            return [Slot(*row) for row in database.execute(query.order_by(SLOTS.c.slot))]

    # -- other workers -----------------------------------------------------------------------------------------

    def others_live(self) -> bool:
        """True while other workers are part of the study that are not known to be dead."""
        return any(not self._is_dead(row) for row in self._others())

    def await_others(self, limit_s: float, stopping: Callable[[], None]) -> None:
        """Wait until all other workers have left or are known to be dead; `stopping` may raise."""
        end = time.monotonic() + limit_s
        while self.others_live() and time.monotonic() < end:
            stopping()
            time.sleep(0.5)

    def take_over(self, unfinished: Collection[int], born: int) -> list[Slot]:
        """The unfinished slots of dead workers, from now on this worker's, begun at the tick `born`."""
        taken = []
        for row in self._others():
            if self._is_dead(row):
                left = [slot for slot in self._slots(row.worker) if slot.slot in unfinished]
                same = sql.and_(self._is(row.worker), WORKERS.c.beats == row.beats)
                with self.engine.begin() as database:
                    if not database.execute(sql.delete(WORKERS).where(same)).rowcount:
                        continue  # it lives after all, or another one was quicker
                    taken += self._inherit(database, row, left, born)
                self._remove_files(row.worker)
        return taken

    def _inherit(self, database: Any, row: Any, slots: Sequence[Slot], born: int | None) -> list[Slot]:
        """Slots whose worker died, now this worker's, with their clocks as they were if `born` is None."""
        mine = []
        for slot in slots:
            died = row.state != RELEASED and row.worker != self.former
            heir = slot.inherited(row.tick, row.settled, died)
            if born is None:
                heir = replace(heir, settled=slot.settled)  # the clock itself knows
            heir = replace(heir, worker=self.worker, born=slot.born if born is None else born)
            news = {name: getattr(heir, name) for name in Slot.__dataclass_fields__ if name != "slot"}
            same = (SLOTS.c.study == self.study_id, SLOTS.c.slot == slot.slot, SLOTS.c.worker == slot.worker)
            if database.execute(sql.update(SLOTS).where(*same).values(**news)).rowcount:
                mine.append(heir)
        return mine

    def _others(self) -> list[Any]:
        query = sql.select(WORKERS).where(WORKERS.c.study == self.study_id, WORKERS.c.worker != self.worker)
        with self.engine.begin() as database:
            return list(database.execute(query.order_by(WORKERS.c.worker)))

    def _is_dead(self, row: Any) -> bool:
        """Released, or dead on this machine, or without a beat for so long, by this worker's own watch."""
        if row.state == RELEASED:
            return True
        if row.machine_id == self._machine_id:
            lock = self._locked(row.worker)
            if lock is not None:
                lock.close()
            return lock is not None
        beats, since = self._seen.get(row.worker, (-1, 0.0))
        if beats != row.beats:
            beats, since = self._seen[row.worker] = row.beats, time.monotonic()
        return time.monotonic() - since > GRACE_S

    def _becomes(self, row: Any) -> bool:
        """Become a worker; False if another process was quicker, or the worker showed life meanwhile."""
        same = sql.and_(self._is(row.worker), WORKERS.c.beats == row.beats, WORKERS.c.state == row.state)
        news = {"machine_id": self._machine_id, "state": ALIVE, "beats": row.beats + 1, "beat_at": _clock(self.engine)}
        with self.engine.begin() as database:
            return bool(database.execute(sql.update(WORKERS).where(same).values(**news)).rowcount)

    def _is(self, worker: str) -> Any:
        return sql.and_(WORKERS.c.study == self.study_id, WORKERS.c.worker == worker)

    def _locked(self, worker: str) -> IO[str] | None:
        """The lock file of a worker, locked; None if a process of this machine holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return hold_if_free(self.folder / f"{worker}.lock")


def _machine_id(folder: Path) -> str:
    """A machine and a folder on it, and that folder's own number: two machines of one name may have two of one path."""
    number = folder.with_name(_FOLDER_NUMBER)
    return f"{platform.node()}:{folder}:{number.read_text() if number.exists() else ''}"


def _number(folder: Path) -> None:
    """Give a folder a number, unless it has one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), folder.with_name(_FOLDER_NUMBER).open("x") as file:
        file.write(uuid.uuid4().hex[:8])


def _clock(engine: Engine) -> Any:
    """Seconds since 1970 by the clock of the storage's server, which is the same for all machines."""
    if engine.dialect.name == "postgresql":
        return sql.cast(sql.extract("epoch", sql.func.clock_timestamp()), sql.Float)
    return sql.literal(time.time())


def workers(engine: Engine, study_id: int, folder: Path) -> list[Worker]:
    """All workers of a study that have not left it, for someone who only looks.

    >>> from tempfile import TemporaryDirectory
    >>> from wdsearch.storage.home import Home
    >>> with TemporaryDirectory() as home:
    ...     engine, folder = Home(home).open().engine, Path(home, "workers")
    ...     leases = Leases(engine, 1, folder)
    ...     slots = leases.join()
    ...     listed = workers(engine, 1, folder)
    ...     leases.finish()
    ...     engine.dispose()
    >>> [worker.alive for worker in listed]
    [True]
    """
    looker, listed = Leases(engine, study_id, folder), []
    with engine.begin() as database:
        now = database.scalar(sql.select(_clock(engine)))
    for row in looker._others():
        silent_s = max(0.0, now - row.beat_at)
        alive = row.state == ALIVE and (
            not looker._is_dead(row) if row.machine_id == looker._machine_id else silent_s < GRACE_S
        )
        listed.append(Worker(row.worker[:8], row.machine_id, alive, row.state == RELEASED, round(silent_s, 1)))
    return listed
