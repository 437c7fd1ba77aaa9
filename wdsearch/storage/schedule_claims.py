"""One row per due sweep: who enters it first launches it, of any number of schedulers on a storage."""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace

import sqlalchemy as sql
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

CLAIMED, QUEUED, LAUNCHED, SKIPPED, MISSED, FAILED = "claimed", "queued", "launched", "skipped", "missed", "failed"
OPEN = (CLAIMED, QUEUED)
"""States of what has yet to be launched: by who claimed it, or by whoever sees that the sweep before has ended."""
LONGEST_NOTE = 1000
METADATA = sql.MetaData()
_FIRES = sql.Table(
    "wdsearch_fires",
    METADATA,
    sql.Column("family", sql.String(100), primary_key=True),
    sql.Column("fire_time", sql.BigInteger, primary_key=True, autoincrement=False),
    sql.Column("state", sql.String(16)),
    sql.Column("study", sql.String(100)),
    sql.Column("scheduler", sql.String(300)),
    sql.Column("claimed_at", sql.Float),
    sql.Column("attempts", sql.Integer),
    sql.Column("note", sql.String(LONGEST_NOTE)),
)
_SCHEDULES = sql.Table(
    "wdsearch_schedules",
    METADATA,
    sql.Column("family", sql.String(100), primary_key=True),
    sql.Column("spec", sql.String(700), primary_key=True),
    sql.Column("since", sql.Float),
)


@dataclass(frozen=True)
class Fire:
    """One fire of a family's schedule, in seconds since 1970, and the study that it starts.

    `scheduler` is who claimed it, `claimed_at` when that one was last heard of, by its own clock; `attempts` counts those who
    tried to launch it.
    """

    family: str
    fire_time: int
    state: str
    study: str
    scheduler: str
    claimed_at: float
    attempts: int
    note: str


class Fires:
    """The fires as one scheduler sees and claims them; each row is changed by whoever the row names, and by no other."""

    def __init__(self, engine: Engine, scheduler: str) -> None:
        self.engine, self.scheduler = engine, scheduler

    def since(self, family: str, spec: str, now: float) -> float:
        """Time at which a timetable was first seen by any scheduler: it has no past before that."""
        known = sql.select(_SCHEDULES.c.since).where(_SCHEDULES.c.family == family, _SCHEDULES.c.spec == spec)
        with self.engine.begin() as database:
            since = database.scalar(known)
        if since is None:
            with suppress(IntegrityError), self.engine.begin() as database:  # of several, the first one's counts
                database.execute(sql.insert(_SCHEDULES).values(family=family, spec=spec, since=now))
            with self.engine.begin() as database:
                since = database.scalar(known)
        return float(since or 0.0)

    def last(self, family: str) -> int:
        """The latest fire that is known of a family; 0 without any. All before it are known as well."""
        latest = sql.select(sql.func.max(_FIRES.c.fire_time)).where(_FIRES.c.family == family)
        with self.engine.begin() as database:
            return int(database.scalar(latest) or 0)

    def enter(self, family: str, fire_time: int, state: str, study: str, note: str = "") -> Fire | None:
        """A fire that is this scheduler's; None if another one was quicker, for there is one row for each."""
        fire = Fire(family, fire_time, state, study, self.scheduler, time.time(), 1, note[:LONGEST_NOTE])
        try:
            with self.engine.begin() as database:
                database.execute(sql.insert(_FIRES).values(vars(fire)))
            return fire
        except IntegrityError:
            return None

    def settle(self, fire: Fire, state: str, note: str = "") -> bool:
        """Say what became of a fire of this scheduler's; False if it was taken over meanwhile."""
        news = {"state": state, "note": note[:LONGEST_NOTE], "claimed_at": time.time()}
        return self._change(fire, news)

    def refresh(self, fire: Fire) -> bool:
        """Show that this scheduler is still at it."""
        return self._change(fire, {"claimed_at": time.time()})

    def take(self, fire: Fire) -> Fire | None:
        """A queued fire, or one whose scheduler is silent, now this scheduler's; None if another one was quicker."""
        mine = {"scheduler": self.scheduler, "state": CLAIMED, "claimed_at": time.time(), "attempts": fire.attempts + 1}
        taken = replace(fire, **mine)  # type: ignore[arg-type]
        unheard = _FIRES.c.claimed_at <= fire.claimed_at  # it may have been late, and be back
        return taken if self._change(fire, mine, unheard) else None

    def of(
        self, family: str, states: Collection[str] = (), before: int | None = None, since: int | None = None
    ) -> list[Fire]:
        """A family's fires in some states (or any), before or since an instant, the earliest first."""
        query = sql.select(*_FIRES.c).where(_FIRES.c.family == family)
        if states:
            query = query.where(_FIRES.c.state.in_(states))
        if before is not None:
            query = query.where(_FIRES.c.fire_time < before)
        if since is not None:
            query = query.where(_FIRES.c.fire_time >= since)
        with self.engine.begin() as database:
            return [Fire(**row._asdict()) for row in database.execute(query.order_by(_FIRES.c.fire_time))]

    def _change(self, fire: Fire, news: dict[str, object], *conditions: sql.ColumnElement[bool]) -> bool:
        """Change a row as long as it is as this scheduler knows it: the number of attempts tells its owners apart."""
        same = [_FIRES.c[name] == getattr(fire, name) for name in ("family", "fire_time", "state", "attempts")]
        with self.engine.begin() as database:
            return bool(database.execute(sql.update(_FIRES).where(*same, *conditions).values(**news)).rowcount)
