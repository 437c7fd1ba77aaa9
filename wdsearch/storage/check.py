"""Examines a storage: its kind, whether it can be used from here, and how many workers it carries."""

import os
import shutil
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from wdsearch.storage.database import CONNECTIONS, backend, connected, network_file_system, shown_url, sqlite_file
from wdsearch.storage.home import Home, StorageError, clear_storage_errors

ROUND_TRIPS = 20
SLOW_MS, CLOCK_S, SMALL_BYTES = 20.0, 5.0, 200 * 2**20
Grade = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """Outcome of one check; `bad` means that the storage cannot be used."""

    grade: Grade
    text: str


@dataclass(frozen=True)
class StorageReport:
    """Findings about a storage. `workers` counts those for which it has connections now; None if no such limit is known."""

    url: str
    kind: str
    findings: tuple[Finding, ...]
    several_machines: bool
    workers: int | None

    @property
    def usable(self) -> bool:
        """True if studies can be stored there from this machine."""
        return not any(finding.grade == "bad" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Fields, for JSON."""
        return asdict(self) | {"usable": self.usable}


def examine_storage(home: Home, url: str | None = None) -> StorageReport:
    """Check a storage, the one in use if `url` is None. It is written to and cleaned up; no study is touched.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     report = examine_storage(Home(folder))
    >>> report.findings[0].grade
    'good'
    """
    full = home.url(url)
    kind = backend(full)
    check = {"sqlite": _sqlite, "postgresql": _server}.get(kind, _other)
    findings: list[Finding] = []
    workers = None
    try:
        with clear_storage_errors(home, url):
            for finding in check(full):
                if isinstance(finding, int):
                    workers = finding
                else:
                    findings.append(finding)
    except StorageError as error:
        findings.append(Finding("bad", str(error).partition(": ")[2].replace("\n", "; ")))
    return StorageReport(shown_url(full), kind, tuple(findings), kind not in ("sqlite", ""), workers)


def _sqlite(url: str) -> Iterator[Finding | int]:
    file = sqlite_file(url) or Path()
    if str(file) in ("", ".", ":memory:"):
        yield Finding("bad", "a database in memory is gone when the process ends: sqlite:///file.db")
        return
    folder = file.resolve().parent
    while not folder.exists():
        folder = folder.parent
    system = network_file_system(folder)
    if system:
        yield Finding("bad", f"{folder} is a network file system ({system}), on which SQLite loses data: {_ELSEWHERE}")
        return
    yield Finding("good", f"{folder} is on a local disk")
    if not os.access(folder, os.W_OK):
        yield Finding("bad", f"{folder} cannot be written: choose another with --home")
        return
    free = shutil.disk_usage(folder).free
    yield Finding("good" if free > SMALL_BYTES else "note", f"{free / 2**30:.1f} GiB are free there")
    if file.exists():
        with connected(url) as database:
            yield Finding("good", f"it answers in {_round_trip_ms(database):.2f} ms; {_studies(database)}")
    else:
        yield Finding("good", "it does not exist yet; the first study makes it")


_ELSEWHERE = "put it on a local disk (--home), or use a server, postgresql://user@host/name"


def _server(url: str) -> Iterator[Finding | int]:
    with connected(url) as database:
        version = database.scalar(sql.text("SHOW server_version"))
        yield Finding("good", f"PostgreSQL {str(version).split()[0]} answers")
        took = _round_trip_ms(database)
        advice = "" if took < SLOW_MS else ": far away; a worker writes some ten times a trial"
        yield Finding("good" if took < SLOW_MS else "note", f"a round trip takes {took:.2f} ms{advice}")
        yield _may_make_tables(database)
        apart = abs(float(database.scalar(sql.text("SELECT extract(epoch FROM clock_timestamp())"))) - time.time())
        yield Finding("good" if apart < CLOCK_S else "note", f"its clock and this machine's are {apart:.1f} s apart")
        most, reserved = (
            int(database.scalar(sql.text("SELECT current_setting(:name)::int"), {"name": name}))
            for name in ("max_connections", "superuser_reserved_connections")
        )
        used = int(
            database.scalar(sql.text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
        )
        free = max(0, most - reserved - used)
        yield Finding(
            "good" if free >= 2 * CONNECTIONS else "note",
            f"{most} connections, {free} of them free; a worker takes up to {CONNECTIONS}, MLflow and dashboards some more",
        )
        yield free // CONNECTIONS
        yield Finding("good", _studies(database))


def _other(url: str) -> Iterator[Finding | int]:
    if not backend(url):
        yield Finding("bad", "this is no URL of a storage: sqlite:///file.db or postgresql://user@host/name")
        return
    with connected(url) as database:
        yield Finding("good", f"it answers in {_round_trip_ms(database):.2f} ms; {_studies(database)}")
    yield Finding("note", "Optuna knows this kind of database; wdsearch was tried on SQLite and PostgreSQL only")


def _may_make_tables(database: Connection) -> Finding:
    name = f"wdsearch_check_{uuid.uuid4().hex[:8]}"
    try:
        with database.begin_nested():
            database.execute(sql.text(f"CREATE TABLE {name} (number integer)"))
            database.execute(sql.text(f"INSERT INTO {name} VALUES (1)"))
            database.execute(sql.text(f"DROP TABLE {name}"))
    except sql.exc.DBAPIError as error:
        said = str(error.orig).strip().splitlines()[0]
        return Finding("bad", f"tables cannot be made here ({said}): GRANT CREATE ON SCHEMA public TO this user")
    return Finding("good", "tables can be made, written and dropped")


def _round_trip_ms(database: Connection) -> float:
    took = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        database.execute(sql.text("SELECT 1")).all()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def _studies(database: Connection) -> str:
    engine: Engine = database.engine
    if not sql.inspect(engine).has_table("studies"):
        return "it holds no studies yet; the first one makes the tables"
    count = database.scalar(sql.text("SELECT count(*) FROM studies"))
    trials = database.scalar(sql.text("SELECT count(*) FROM trials"))
    return f"it holds {count} studies and {trials} trials"
