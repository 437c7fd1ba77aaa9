"""Opens databases with Optuna's tables and ours, made once by whoever comes first; waits for a server that is away."""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from wdsearch.errors import WdsearchError
from wdsearch.storage import launches, slots
from wdsearch.storage import schedule_claims as fires
from wdsearch.storage.optuna_tables import Storage

T = TypeVar("T")
LOCKED_FOR_S, OPENING_S, AWAY_EVERY_S = 60, 30.0, 2.0
CONNECTIONS = 3
"""Most that one worker holds: its search and its heartbeat, and one to spare."""
_ONE_AT_A_TIME = 0x77647365  # "wdse": the advisory lock of those who make tables
_DRIVERS = ("postgres", "postgresql")


def full_url(url: str) -> str:
    """A URL with its driver: `postgres://` and `postgresql://` mean psycopg 3; a SQLite file's from any folder.

    >>> full_url("postgres://ada@db/studies"), full_url("sqlite:////srv/studies.db")
    ('postgresql+psycopg://ada@db/studies', 'sqlite:////srv/studies.db')
    """
    file = sqlite_file(url)
    if file and file.name not in ("", ":memory:") and not file.is_absolute():
        return f"sqlite:///{file.absolute()}"
    scheme, mark, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if mark and scheme in _DRIVERS else url


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except ValueError:
        raise ArgumentError("Could not parse SQLAlchemy URL: its port is not a number") from None


def shown_url(url: str) -> str:
    """A storage's URL without its password, also where that is one of the options behind a `?`.

    >>> shown_url("postgresql://ada:hunter2@db/studies"), shown_url("postgresql://db/studies?password=hunter2")
    ('postgresql://ada:***@db/studies', 'postgresql://db/studies?password=***')
    """
    try:
        hidden = _parsed(url).render_as_string(hide_password=True)
    except ArgumentError:
        hidden = repr(_LOGIN.sub("://***@", url))
    return _OPTION.sub(r"\1***", hidden)


def has_password(url: str) -> bool:
    """True for a URL of a storage or a server that holds what must not be shown.

    >>> has_password("postgresql://ada:hunter2@db/studies"), has_password("postgresql://ada@db/studies")
    (True, False)
    """
    return bool(_LOGIN.search(url) or _OPTION.search(url))


_LOGIN = re.compile("://[^@]*:.*@")
_OPTION = re.compile("([?&][^=&]*(?:passw|pwd|secret|token)[^=&]*=)[^&']*", re.IGNORECASE)


def backend(url: str) -> str:
    """`sqlite`, `postgresql`, ...; empty for what is no URL.

    >>> backend("postgresql+psycopg://ada@db/studies"), backend("sqlite:///studies.db"), backend("studies.db")
    ('postgresql', 'sqlite', '')
    """
    try:
        return _parsed(url).get_backend_name()
    except ArgumentError:
        return ""


def sqlite_file(url: str) -> Path | None:
    """The file of a SQLite storage; None for other storages, and for what is no URL.

    >>> sqlite_file("sqlite:////srv/studies.db"), sqlite_file("postgresql://ada@db/studies")
    (PosixPath('/srv/studies.db'), None)
    """
    return Path(_parsed(url).database or "") if backend(url) == "sqlite" else None


_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "panfs", "wekafs"}
_NETWORK |= {"pvfs2", "orangefs", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs", "fuse.gcsfuse"}


def network_file_system(path: Path) -> str:
    """The kind of network file system that a file or folder is on, wherever links to it lie; empty if it is none.

    >>> network_file_system(Path("/proc"))
    ''
    """
    mounts = psutil.disk_partitions(all=True)
    around = [part for part in mounts if path.resolve().is_relative_to(part.mountpoint)]
    kind = max(around, key=lambda part: len(part.mountpoint)).fstype if around else ""
    return kind if kind in _NETWORK else ""


class NetworkFileSystemError(WdsearchError, OSError):
    """A SQLite file where several machines may write, which loses data."""

    exit_code = 1
    hint = "choose a folder on a local disk with --home (or $WDSEARCH_HOME), or a server: --storage postgresql://..."


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """One connection, for a look; nothing is made.

    >>> with connected("sqlite://") as database:
    ...     database.scalar(text("SELECT 6 * 7"))
    42
    """
    engine = create_engine(url, poolclass=NullPool, **_connect(url))
    with engine.connect() as database:
        yield database


def open_database(url: str) -> Storage:
    """Optuna's storage with our tables beside its own, all made if need be.

    >>> from sqlalchemy import inspect
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     opened = open_database(f"sqlite:///{folder}/optuna.db")
    ...     [name for name in inspect(opened.engine).get_table_names() if name.startswith("wdsearch")]
    ...     opened.engine.dispose()
    ['wdsearch_fires', 'wdsearch_launches', 'wdsearch_schedules', 'wdsearch_slots', 'wdsearch_workers']
    """
    kind = _parsed(url).get_backend_name()
    file = sqlite_file(url)
    if file and (system := network_file_system(file)):
        raise NetworkFileSystemError(f"{file} is on a network file system ({system}), on which SQLite loses data")
    return retry(partial(_open, url, kind), _is_made_beside, OPENING_S, lambda _: time.sleep(random.uniform(0.1, 0.5)))


def _open(url: str, kind: str) -> Storage:
    with _one_at_a_time(url) if kind == "postgresql" else nullcontext():
        opened = Storage(url, engine_kwargs=_options(kind))
        if kind == "sqlite":
            _write_ahead(opened.engine)
        _make_tables(opened.engine)
        return opened


def _is_made_beside(error: Exception) -> bool:
    """Test for tables that another process makes at the same time."""
    return isinstance(error, IntegrityError) or (isinstance(error, DBAPIError) and "already exists" in str(error))


def _make_tables(engine: Engine) -> None:
    for metadata in (slots.METADATA, launches.METADATA, fires.METADATA):
        metadata.create_all(engine)


def forget_study(engine: Engine, study_id: int) -> None:
    """Drop what an earlier study of this id, since deleted, left behind in our tables.

    >>> engine = create_engine("sqlite://")
    >>> _make_tables(engine)
    >>> launches.record(engine, 1, launches.Launch("local", "login1", "/logs", (), {}))
    >>> forget_study(engine, 1)
    >>> launches.launches_of(engine, 1)
    []
    """
    slots.forget_workers(engine, study_id)
    launches.forget_launches(engine, study_id)


_POSTGRESQL = {
    "application_name": "wdsearch",
    "connect_timeout": 10,
    "client_encoding": "utf8",  # also where the database itself, made as SQL_ASCII, knows of none
    # a server that vanished without a word, behind a firewall or a cable: known after a minute instead of a quarter of an hour
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Options of libpq, in seconds and, of the last one, milliseconds."""


def _options(kind: str) -> dict[str, Any]:
    if kind == "sqlite":
        return {"connect_args": {"timeout": LOCKED_FOR_S}}
    few = {"pool_size": 1, "max_overflow": CONNECTIONS - 1}
    named = {"connect_args": _POSTGRESQL} if kind == "postgresql" else {}
    return {"pool_pre_ping": True} | few | named  # a database that was restarted meanwhile is connected to anew


@contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """An advisory lock, which PostgreSQL takes back when its holder's connection ends, however it does."""
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", **_connect(url))
    with engine.connect() as database:
        database.execute(text(f"SELECT pg_advisory_lock({_ONE_AT_A_TIME})"))
        yield


def _connect(url: str) -> dict[str, Any]:
    arguments = _options(backend(url)).get("connect_args")
    return {"connect_args": arguments} if arguments else {}


def _write_ahead(engine: Engine) -> None:
    """One sync per commit instead of three, and who reads (`wdsearch status --watch`) holds up nobody who writes."""
    with engine.connect() as database:
        if database.exec_driver_sql("PRAGMA journal_mode").scalar() != "wal":
            database.exec_driver_sql("PRAGMA journal_mode=WAL")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it.

    >>> try:
    ...     raise RuntimeError("no result") from OSError("disk full")
    ... except RuntimeError as error:
    ...     [str(cause) for cause in causes(error)]
    ['no result', 'disk full']
    """
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_AWAY = (
    "onnection refused",
    "onnection reset",
    "onnection timeout expired",
    "closed the connection",
    "is starting up",
    "is shutting down",
    "in recovery mode",
    "not yet accepting connections",
    "too many clients already",
    "remaining connection slots",
    "failed to resolve host",
    "No route to host",
)


def is_away(error: BaseException) -> bool:
    """True for an error of a database server that is away for a moment: restarted, or out of reach.

    >>> is_away(DBAPIError("SELECT 1", {}, OSError("Connection refused"))), is_away(OSError("Connection refused"))
    (True, False)
    """
    failures = [cause for cause in causes(error) if isinstance(cause, DBAPIError)]
    return any(cause.connection_invalidated or any(text in str(cause) for text in _AWAY) for cause in failures)


def patiently(act: Callable[[], T], say: Callable[[str], None], seconds: float) -> T:
    """Result of `act`, tried again while the storage's server is away, for so many seconds.

    >>> patiently(lambda: 3, print, seconds=60.0)
    3
    """

    def pause(_: Exception) -> None:
        say("the storage does not answer: waiting for it")
        time.sleep(AWAY_EVERY_S)

    return retry(act, is_away, seconds, pause)


def retry(
    act: Callable[[], T], may_pass: Callable[[Exception], bool], seconds: float, pause: Callable[[Exception], None]
) -> T:
    """Result of `act`; after an error that `may_pass` it is called again, after a `pause`, for so many seconds from the first.

    >>> answers = iter([0, 0, 2])
    >>> retry(lambda: 6 // next(answers), lambda error: isinstance(error, ZeroDivisionError), 10.0, lambda error: None)
    3
    """
    end: float | None = None
    while True:
        try:
            return act()
        except Exception as error:
            now = time.monotonic()
            end = now + seconds if end is None else end
            if not may_pass(error) or now >= end:
                raise
            pause(error)
