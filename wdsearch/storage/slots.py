"""Tables beside Optuna's: the units of a study's budget, and the workers that hold them."""

from dataclasses import dataclass, replace

import sqlalchemy as sql
from sqlalchemy.engine import Engine

BASELINE_SLOT, CONCLUSION_SLOT = -1, -2

METADATA = sql.MetaData()
WORKERS = sql.Table(
    "wdsearch_workers",
    METADATA,
    sql.Column("study", sql.Integer, primary_key=True),
    sql.Column("worker", sql.String(32), primary_key=True),
    sql.Column("place", sql.String(1024), key="machine_id"),
    sql.Column("state", sql.String(16)),
    sql.Column("beats", sql.Integer),
    sql.Column("beat_at", sql.Float),
    sql.Column("tick", sql.Integer),
    sql.Column("settled", sql.Integer),
)
SLOTS = sql.Table(
    "wdsearch_slots",
    METADATA,
    sql.Column("study", sql.Integer, primary_key=True),
    sql.Column("slot", sql.Integer, primary_key=True),
    sql.Column("worker", sql.String(32)),
    sql.Column("born", sql.Integer),
    sql.Column("settled", sql.Integer),
    sql.Column("furthest", sql.Integer),
    sql.Column("takeovers", sql.Integer),
)


@dataclass(frozen=True)
class Slot:
    """A reserved unit of the budget. Ages are in epochs.

    Up to the age `settled` its trial was judged by an earlier worker; `furthest` is the greatest age that any reached, and
    `takeovers` counts how often its worker died since without getting it any older.
    """

    slot: int
    worker: str
    born: int
    settled: int = 0
    furthest: int = 0
    takeovers: int = 0

    def inherited(self, tick: int, settled: int, died: bool = True) -> "Slot":
        """As its worker's death, or orderly end, leaves it, that worker's clock having stood at `tick`."""
        age = tick - self.born
        further = age > self.furthest
        return replace(
            self,
            settled=max(self.settled, settled - self.born),
            furthest=age if further else self.furthest,
            takeovers=int(died) if further else self.takeovers + int(died),
        )


def forget_workers(engine: Engine, study_id: int) -> None:
    """Drop what workers of an earlier study of this id, since deleted, left behind.

    >>> engine = sql.create_engine("sqlite://")
    >>> METADATA.create_all(engine)
    >>> with engine.begin() as database:
    ...     _ = database.execute(sql.insert(SLOTS).values(study=1, slot=0, worker="1a2b"))
    >>> forget_workers(engine, 1)
    >>> with engine.begin() as database:
    ...     list(database.execute(sql.select(SLOTS.c.slot)))
    []
    """
    with engine.begin() as database:
        for table in (WORKERS, SLOTS):
            database.execute(sql.delete(table).where(table.c.study == study_id))
