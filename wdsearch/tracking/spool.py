"""Records of a study on their way to MLflow: a local SQLite file that outlives every process."""

import json
import platform
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wdsearch.files import is_locked
from wdsearch.tracking.tracker import Backlog

LOST = "lost"
"""Fact that says what will never arrive."""
VIEW = "wdsearch"
"""Key of the saved view in which a study's page opens."""
MODEL = "model"
"""Key of the best trial's network, which is delivered last, and for which nobody waits."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT, kind TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS records_by_key ON records (key);
CREATE TABLE IF NOT EXISTS told (id INTEGER PRIMARY KEY, key TEXT, body TEXT);
CREATE INDEX IF NOT EXISTS told_by_key ON told (key);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT);
"""
_INSERT = """
INSERT INTO records (key, kind, body) SELECT ?, ?, ? WHERE ? <> 'metrics'
OR NOT EXISTS (SELECT 1 FROM meta WHERE name = ? AND CAST(value AS INTEGER) >= ?)
"""

_LAST = 2**63 - 1  # as SQLite counts


def spool_path(home: Path, study: str, node: str = "") -> Path:
    """The spool of a study, on this node if it is one of several: SQLite's files are not for several machines.

    >>> spool_path(Path("/srv"), "digits"), spool_path(Path("/srv"), "digits", "node7")
    (PosixPath('/srv/spool/digits.db'), PosixPath('/srv/spool/digits@node7.db'))
    """
    return home.absolute() / "spool" / (f"{study}@{node}.db" if node else f"{study}.db")


def spool_paths(home: Path, study: str) -> list[Path]:
    """The spools of a study that lie in a folder and may be opened here, those of this machine first.

    Where several machines share the folder, what one of them has open is not for another: SQLite would lose records.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     spool = Spool(spool_path(Path(folder), "digits"))
    ...     spool.close()
    ...     [path.name for path in spool_paths(Path(folder), "digits")]
    ['digits.db']
    """
    own = [spool_path(home, study), spool_path(home, study, platform.node())]
    return [path for path in own if path.exists()] + [path for path in _others(home, study) if not _is_open(path)]


def open_elsewhere(home: Path, study: str) -> int:
    """Count of other machines that have their spool of a study open in a folder: what waits there is theirs to deliver.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     from wdsearch.files import hold
    ...     other = spool_path(Path(folder), "digits", "node7")
    ...     Spool(other).close()
    ...     with hold(other.with_suffix(".lock")):
    ...         open_elsewhere(Path(folder), "digits")
    1
    """
    return sum(map(_is_open, _others(home, study)))


def _others(home: Path, study: str) -> list[Path]:
    spools = spool_path(home, study).parent.glob(f"{study}@*.db")
    return sorted(path for path in spools if path != spool_path(home, study, platform.node()))


def _is_open(path: Path) -> bool:
    """True if somebody writes to a spool or delivers it, on whichever machine."""
    return any(is_locked(lock) for lock in path.parent.glob(f"{path.stem}.*lock"))


def backlog_of(home: Path, study: str) -> Backlog:
    """Records that wait in the spools of a study; a model that is on its way while a delivery lives needs nobody.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     spool = Spool(spool_path(Path(folder), "digits"))
    ...     spool.append([("study", "start", {}), ("trial-0", "start", {})])
    ...     spool.close()
    ...     backlog_of(Path(folder), "digits").undelivered
    2
    """
    left, error, lost = 0, None, None
    for path in spool_paths(home, study):
        spool = Spool(path)
        under_way = MODEL if is_locked(path.with_suffix(".lock")) else ""
        left, error, lost = left + spool.left(under_way), error or spool.recall("error"), lost or spool.recall(LOST)
        spool.close()
    return Backlog(left, open_elsewhere(home, study), error, lost)


class Record(NamedTuple):
    """One thing to tell MLflow about a run: `key` names the run (`study`, `trial-12`), `kind` says what it is."""

    id: int
    key: str
    kind: str
    body: dict[str, Any]


class Spool:
    """Appends in one transaction, and forgets a record only after it was delivered."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # a tracking URI may hold a password
        self.path = path
        self._database = sqlite3.connect(path, timeout=60.0, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.executescript(_SCHEMA)

    def append(
        self, records: Iterable[tuple[str, str, Mapping[str, Any]]], facts: Mapping[str, str] | None = None
    ) -> None:
        """Write (key, kind, body) records and what to remember with them, all or nothing; they survive from here on.

        A record whose body has a `step` not above the fact `step <key>` was written before, and is left out.
        """
        rows = [(key, kind, json.dumps(body), kind, f"step {key}", body.get("step")) for key, kind, body in records]
        if rows or facts:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.executemany(_INSERT, rows)
            self._database.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", (facts or {}).items())
            self._database.execute("COMMIT")

    def waiting(self) -> dict[str, bool]:
        """Keys with undelivered records, oldest first, and whether the run has ended."""
        query = "SELECT key, MAX(kind = 'end') FROM records GROUP BY key ORDER BY MIN(id)"
        return {key: bool(ended) for key, ended in self._database.execute(query)}

    def undelivered(self, key: str) -> list[Record]:
        """A key's records not yet delivered, in the order in which they were written."""
        query = "SELECT id, key, kind, body FROM records WHERE key = ? ORDER BY id"
        rows = self._database.execute(query, (key,))
        return [Record(identity, key, kind, json.loads(body)) for identity, key, kind, body in rows]

    def left(self, besides: str = "", last: int | None = None) -> int:
        """Number of records not yet delivered, without those of the key `besides`, and those written after the record `last`."""
        query = "SELECT COUNT(*) FROM records WHERE key <> ? AND id <= ?"
        return int(self._database.execute(query, (besides, _LAST if last is None else last)).fetchone()[0])

    def newest(self) -> int:
        """The id of the record written last, delivered or not."""
        row = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").fetchone()
        return int(row[0]) if row else 0

    def delivered(self, records: Sequence[Record], drawn: bool = False) -> None:
        """Forget records that MLflow has; of a trial's epochs keep a copy until its curves are `drawn`."""
        epochs = [(record.id, record.key, json.dumps(record.body)) for record in records if record.kind == "metrics"]
        self._database.execute("BEGIN IMMEDIATE")
        if drawn:
            self._database.executemany("DELETE FROM told WHERE key = ?", {(record.key,) for record in records})
        else:
            self._database.executemany("INSERT OR IGNORE INTO told VALUES (?, ?, ?)", epochs)
        self._database.executemany("DELETE FROM records WHERE id = ?", [(record.id,) for record in records])
        self._database.execute("COMMIT")

    def curves(self, key: str) -> dict[str, dict[int, float]]:
        """Each metric of a trial that was not drawn yet by epoch, whether MLflow has it already or not."""
        query = (
            "SELECT body FROM told WHERE key = ? UNION ALL SELECT body FROM records WHERE key = ? AND kind = 'metrics'"
        )
        curves: dict[str, dict[int, float]] = {}
        for (text,) in self._database.execute(query, (key, key)):
            body = json.loads(text)
            for name, value in body["metrics"].items():
                curves.setdefault(name, {})[body["step"]] = value
        return curves

    def remember(self, name: str, value: str) -> None:
        """Keep a fact: the experiment's id, the id of a key's run."""
        self._database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def recall(self, name: str) -> str | None:
        """A fact, or None."""
        row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def facts(self, kind: str) -> dict[str, str]:
        """All facts named `<kind> <key>`, by key."""
        rows = self._database.execute("SELECT name, value FROM meta WHERE name GLOB ?", (f"{kind} *",))
        return {name.removeprefix(f"{kind} "): value for name, value in rows}

    def forget(self, name: str) -> None:
        """Drop a fact; `run *` drops all of a kind."""
        self._database.execute("DELETE FROM meta WHERE name GLOB ?", (name,))

    def clear(self) -> int:
        """Drop all records; how many of them were not delivered."""
        left = self.left()
        for table in ("records", "told"):
            self._database.execute(f"DELETE FROM {table}")
        return left

    def close(self) -> None:
        """Release the file."""
        self._database.close()


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts.

    >>> 0 <= time.time() * 1000 - now_ms() < 1000
    True
    """
    return time.time_ns() // 1_000_000


def lock_of(spool: Spool, writer: str) -> Path:
    """The file that a writer keeps locked while it lives.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     spool = Spool(spool_path(Path(folder), "digits"))
    ...     spool.close()
    ...     lock_of(spool, "12345").name
    'digits.12345.lock'
    """
    return spool.path.with_name(f"{spool.path.stem}.{writer}.lock")


def interrupt(spool: Spool, writer: str) -> None:
    """End the runs that a writer left open; continuing the study opens them again.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     spool = Spool(spool_path(Path(folder), "digits"))
    ...     spool.append([], {"open trial-0": "12345"})
    ...     interrupt(spool, "12345")
    ...     [record.body["status"] for record in spool.undelivered("trial-0")]
    ...     spool.close()
    ['KILLED']
    """
    unended = [key for key, owner in spool.facts("open").items() if owner == writer]
    body = {"status": "KILLED", "metrics": {}, "tags": {"wdsearch.state": "INTERRUPTED"}, "step": 0, "time": now_ms()}
    spool.append([(key, "end", body) for key in unended], {f"open {key}": "" for key in unended})
    spool.forget(f"writer {writer}")
    lock_of(spool, writer).unlink(missing_ok=True)


def complain(spool: Spool, text: str, fact: str = "error") -> None:
    """Write a complaint into the log once, and into the spool for the one who waits: an `error`, or what is `lost` for good.

    >>> from tempfile import TemporaryDirectory
    >>> from contextlib import redirect_stderr
    >>> from io import StringIO
    >>> with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
    ...     spool = Spool(Path(folder, "digits.db"))
    ...     complain(spool, "MLflow is out of reach")
    ...     spool.recall("error")
    ...     spool.close()
    'MLflow is out of reach'
    """
    if spool.recall(fact) != text:
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, file=sys.stderr)
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stderr.flush()
        spool.remember(fact, text)
