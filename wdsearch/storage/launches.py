"""Launches of workers: a table beside Optuna's of who started them on which engine, so that any machine can ask."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sql
from sqlalchemy.engine import Engine

METADATA = sql.MetaData()
_LAUNCHES = sql.Table(
    "wdsearch_launches",
    METADATA,
    sql.Column("study", sql.Integer, primary_key=True),
    sql.Column("name", sql.String(32), primary_key=True),
    sql.Column("engine", sql.String(32)),
    sql.Column("node", sql.String(256)),
    sql.Column("made_at", sql.Float),
    sql.Column("folder", sql.String(1024)),
    sql.Column("jobs", sql.JSON),
    sql.Column("options", sql.JSON),
)


@dataclass(frozen=True)
class Launch:
    """Workers that were started together: on which engine, from which machine (`node`), as which of the engine's jobs.

    `folder` has their logs, as that machine sees it; `options` are the engine's.
    """

    engine: str
    node: str
    folder: str
    jobs: tuple[str, ...]
    options: dict[str, Any]
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    made_at: float = field(default_factory=time.time)


def record(engine: Engine, study_id: int, launch: Launch) -> None:
    """Keep a launch.

    >>> engine = sql.create_engine("sqlite://")
    >>> METADATA.create_all(engine)
    >>> record(engine, 1, Launch("slurm", "login1", "/logs", (), {"partition": "gpu"}))
    >>> [launch.options for launch in launches_of(engine, 1)]
    [{'partition': 'gpu'}]
    """
    row = {name: getattr(launch, name) for name in Launch.__dataclass_fields__}
    with engine.begin() as database:
        database.execute(sql.insert(_LAUNCHES).values(row | {"study": study_id, "jobs": list(launch.jobs)}))


def note_jobs(engine: Engine, name: str, jobs: Sequence[str]) -> None:
    """Keep as which jobs the workers of a launch were started.

    >>> engine = sql.create_engine("sqlite://")
    >>> METADATA.create_all(engine)
    >>> record(engine, 1, Launch("slurm", "login1", "/logs", (), {}, name="1a2b"))
    >>> note_jobs(engine, "1a2b", ["12_0", "12_1"])
    >>> launches_of(engine, 1)[0].jobs
    ('12_0', '12_1')
    """
    with engine.begin() as database:
        database.execute(sql.update(_LAUNCHES).where(_LAUNCHES.c.name == name).values(jobs=list(jobs)))


def forget(engine: Engine, name: str) -> None:
    """Drop a launch of which nothing came.

    >>> engine = sql.create_engine("sqlite://")
    >>> METADATA.create_all(engine)
    >>> record(engine, 1, Launch("slurm", "login1", "/logs", (), {}, name="1a2b"))
    >>> forget(engine, "1a2b")
    >>> launches_of(engine, 1)
    []
    """
    with engine.begin() as database:
        database.execute(sql.delete(_LAUNCHES).where(_LAUNCHES.c.name == name))


def launches_of(engine: Engine, study_id: int) -> list[Launch]:
    """A study's launches, the oldest first.

    >>> engine = sql.create_engine("sqlite://")
    >>> METADATA.create_all(engine)
    >>> for name, made_at in {"later": 2.0, "earlier": 1.0}.items():
    ...     record(engine, 1, Launch("local", "login1", "/logs", (), {}, name, made_at))
    >>> [launch.name for launch in launches_of(engine, 1)]
    ['earlier', 'later']
    """
    columns = [_LAUNCHES.c[name] for name in Launch.__dataclass_fields__]
    query = sql.select(*columns).where(_LAUNCHES.c.study == study_id).order_by(_LAUNCHES.c.made_at)
    with engine.begin() as database:
        rows = [row._asdict() for row in database.execute(query)]
    return [Launch(**row | {"jobs": tuple(row["jobs"])}) for row in rows]


def forget_launches(engine: Engine, study_id: int) -> None:
    """Drop those of an earlier study of this id, since deleted.

    >>> engine = sql.create_engine("sqlite://")
    >>> METADATA.create_all(engine)
    >>> record(engine, 1, Launch("local", "login1", "/logs", (), {}))
    >>> forget_launches(engine, 1)
    >>> launches_of(engine, 1)
    []
    """
    with engine.begin() as database:
        database.execute(sql.delete(_LAUNCHES).where(_LAUNCHES.c.study == study_id))
