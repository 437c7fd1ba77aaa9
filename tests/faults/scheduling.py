"""Schedulers in processes of their own that are killed again and again, on a clock that is set; sweeps are rows of a table."""

import multiprocessing
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from support.processes import CONTEXT

from wdsearch.launch import scheduler as schedule
from wdsearch.launch.study_folder import Entry, scheduled
from wdsearch.storage.home import Home
from wdsearch.storage.schedule_claims import OPEN, Fire, Fires
from wdsearch.study.load import StudyConfig

LASTS_S = 0.05
"""A sweep, by a real clock."""
STEP_S = 3600.0
LATE_S = STEP_S + 60.0
"""Nothing is missed within a step of the clock."""
BEGUN = sql.Table(
    "begun",
    sql.MetaData(),
    sql.Column("number", sql.Integer, primary_key=True),
    sql.Column("study", sql.String(100)),
    sql.Column("time", sql.Float),
)


class Recorded:
    """Substitute for engines: a study is begun by a row, and is at work for a while."""

    def __init__(self, engine: sql.Engine) -> None:
        self.engine = engine

    def begin(self, config: StudyConfig, fire: Fire) -> str:
        """As `Sweeps` does, unless it was begun before."""
        if self._begun(fire.study):
            return "its workers had been started already"
        time.sleep(random.uniform(0.0, 0.03))
        with self.engine.begin() as database:
            database.execute(sql.insert(BEGUN).values(study=fire.study, time=time.time()))
        time.sleep(random.uniform(0.0, 0.03))
        return "begun"

    def was_killed(self, config: StudyConfig, study: str) -> bool:
        """A row cannot be killed."""
        return False

    def at_work(self, study: str) -> bool:
        """For a moment."""
        return any(time.time() < begun + LASTS_S for begun in self._begun(study))

    def _begun(self, study: str) -> Sequence[float]:
        with self.engine.begin() as database:
            return database.scalars(sql.select(BEGUN.c.time).where(BEGUN.c.study == study)).all()


def _scheduler(folder: Path, home: Path, storage: str | None, now: Any, log: Path) -> None:
    schedule.LEASE_S, schedule.BEAT_S, schedule.LATE_S = 0.6, 0.1, LATE_S
    engine = Home(home).open(storage).engine
    with log.open("a", buffering=1) as lines:
        made = schedule.Scheduler(
            folder, engine, Recorded(engine), lambda text: print(text, file=lines), lambda: now.value
        )
        while True:
            made.tick()
            time.sleep(0.01)


def disturbed(
    folder: Path, home: Path, storage: str | None, start: float, end: float, away_s: float = 0.0, seed: int = 0
) -> int:
    """Let two schedulers run from one time to another, and kill one every now and then; how many kills.

    With `away_s` both are killed now and then, for so long by the clock. It goes on when all that was due is in the table.
    """
    kills, chance, now = 0, random.Random(seed), CONTEXT.Value("d", start)
    engine, log = Home(home).open(storage).engine, home.parent / "schedulers.log"
    BEGUN.create(engine, checkfirst=True)

    def started() -> multiprocessing.process.BaseProcess:
        process = CONTEXT.Process(target=_scheduler, args=(folder, home, storage, now, log))
        process.start()
        return process

    running = [started(), started()]
    try:
        while now.value < end:
            now.value = min(end, now.value + chance.uniform(0.5, 1.0) * STEP_S)
            both = away_s > 0.0 and chance.random() < 0.1
            victims = [0, 1] if both else [chance.randrange(2)] if chance.random() < 0.7 else []
            time.sleep(chance.uniform(0.0, 0.15))
            for victim in victims:
                assert running[victim].is_alive(), log.read_text()
                running[victim].kill()
                running[victim].join()
                assert running[victim].exitcode == -signal.SIGKILL
                kills += 1
            now.value = min(end, now.value + (away_s if both else 0.0))
            for victim in victims:
                running[victim] = started()
            _wait(scheduled(folder), engine, start, now.value, ended=now.value == end)
    finally:
        for process in running:
            process.kill()
            process.join()
        engine.dispose()
    return kills


def _wait(entries: Sequence[Entry], engine: sql.Engine, start: float, now: float, ended: bool) -> None:
    """Until all that was due is in the table, and at the end is done."""
    fires, limit = Fires(engine, "looks"), time.monotonic() + 120
    for entry in entries:
        while fires.last(entry.family) < (entry.latest(now) or 0) and entry.due(start, now):
            assert time.monotonic() < limit
            time.sleep(0.02)
        while ended and fires.of(entry.family, OPEN):
            assert time.monotonic() < limit, fires.of(entry.family, OPEN)
            time.sleep(0.02)
