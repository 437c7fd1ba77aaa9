"""Home folder of studies: Optuna's storage, and files beside it; errors of either say what to do."""

import errno
import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, DBAPIError

from wdsearch.errors import StudyNotFoundError, WdsearchError
from wdsearch.storage.database import (
    LOCKED_FOR_S,
    NetworkFileSystemError,
    backend,
    causes,
    full_url,
    is_away,
    open_database,
    shown_url,
    sqlite_file,
)

HOME = "WDSEARCH_HOME"
STORAGE = "WDSEARCH_STORAGE"


class StorageError(WdsearchError):
    """A storage that cannot be used: locked, read-only, full, out of reach, or of another version."""

    exit_code = 1


class Home:
    """The folder of a project's studies: `$WDSEARCH_HOME`, or `.wdsearch` where the command runs."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or os.environ.get(HOME, ".wdsearch")).absolute()
        self._opened: dict[str, RDBStorage] = {}

    def url(self, storage: str | None = None) -> str:
        """The storage's URL: as given, `$WDSEARCH_STORAGE`, or a SQLite file in this folder."""
        return full_url(storage or os.environ.get(STORAGE) or f"sqlite:///{self.path / 'optuna.db'}")

    def node(self, storage: str | None = None) -> str:
        """This machine's name if the storage is one that several may share, else empty."""
        return "" if backend(self.url(storage)) in ("sqlite", "") else platform.node()

    def folder(self, study: str) -> Path:
        """A study's own files: best weights, figures."""
        return self.path / "studies" / study

    def open(self, storage: str | None = None) -> RDBStorage:
        """Optuna's storage, created if need be; raises StorageError."""
        url = self.url(storage)
        file = sqlite_file(url)
        if url not in self._opened or (file is not None and not file.exists()):
            with clear_storage_errors(self, storage):
                self.path.mkdir(parents=True, exist_ok=True)
                self._opened[url] = open_database(url)
        return self._opened[url]

    def load(self, study: str, storage: str | None = None) -> optuna.Study:
        """A study that exists; raises StudyNotFoundError with the names of those that do."""
        return self.load_with_engine(study, storage)[0]

    def load_with_engine(self, study: str, storage: str | None = None) -> tuple[optuna.Study, Engine]:
        """A study that exists, and the engine of its storage; raises StudyNotFoundError."""
        url = shown_url(self.url(storage))
        file = sqlite_file(self.url(storage))
        if file is not None and not file.exists():
            raise StudyNotFoundError(f"{file} holds no studies, it does not exist; start one with: wdsearch run FILE")
        opened = self.open(storage)
        names = optuna.get_all_study_names(opened)
        if study not in names:
            known = ", ".join(sorted(names)) or "none"
            raise StudyNotFoundError(f"there is no study {study!r} in {url}; it holds: {known}")
        return optuna.load_study(study_name=study, storage=opened), opened.engine


@contextmanager
def clear_storage_errors(home: Home, storage: str | None = None) -> Iterator[None]:
    """Say what is wrong with a storage or its disk, and what to do, in a StorageError; other errors pass.

    >>> try:
    ...     with clear_storage_errors(Home("/srv"), "sqlite:////srv/studies.db"):
    ...         raise OSError(errno.ENOSPC, "No space left on device")
    ... except StorageError as error:
    ...     print(error.hint)
    the disk is full: free some space and run the same command again; what was written before is not lost
    """
    try:
        yield
    except Exception as error:
        known = [(cause, hint) for cause in causes(error) if (hint := _hint(cause))]
        if not known:
            raise
        cause, hint = known[-1]
        text = f"storage {shown_url(home.url(storage))} (folder {home.path}): {str(cause).splitlines()[0]}"
        raise StorageError(text, hint) from error


def _hint(error: BaseException) -> str | None:
    text = str(error)
    for part, hint in _HINTS.items():
        if part in text and isinstance(error, _STORAGE_ERRORS):
            return hint
    if isinstance(error, NetworkFileSystemError):
        return error.hint
    if isinstance(error, OSError) and error.errno in _OS_HINTS:
        return _OS_HINTS[error.errno]
    if is_away(error):
        return "the connection was lost; run the same command again to continue"
    return None


_STORAGE_ERRORS = (DBAPIError, sqlite3.Error, ArgumentError, ImportError, RuntimeError)
_FULL = "the disk is full: free some space and run the same command again; what was written before is not lost"
_NO_WRITE = "it cannot be written: choose another folder with --home (or $WDSEARCH_HOME), or change its permissions"
_HINTS = {
    "is locked": f"another program has held it for {LOCKED_FOR_S} s: end that one, and run the same command again",
    "disk is full": _FULL,
    "PytorchStreamWriter failed": _FULL,
    "disk I/O error": "the disk reports an error: is it full, or a network file system? SQLite needs a local one",
    "readonly database": _NO_WRITE,
    "unable to open database file": _NO_WRITE,
    "file is not a database": "another program made this file, or it is damaged: choose another --storage or --home",
    "no longer compatible with the table schema": "it was made by another version of Optuna; do as said there, on a copy",
    "Could not parse SQLAlchemy URL": "a storage looks like sqlite:///file.db or postgresql+psycopg://user@host/name",
    "Can't load plugin: sqlalchemy.dialects": "SQLAlchemy does not know this kind of database; see its list of dialects",
    "No module named 'psycopg": "PostgreSQL needs a driver: pip install 'wdsearch[postgresql]', and a URL postgresql+psycopg://...",
    "Failed to import DB access module": "install the driver of this database, as said there",
    "onnection refused": "nothing answers there: start the database, or correct the URL",
    "could not translate host name": "there is no such host: correct the URL",
    "failed to resolve host": "there is no such host: correct the URL",
    "authentication failed": "correct user and password in the URL",
    "no password supplied": "put the password into the URL, into $PGPASSWORD or into ~/.pgpass",
    "too many clients already": "raise max_connections of the server, or start fewer workers: wdsearch storage check URL",
    'FATAL:  database "': "create that database, or correct the URL",
}
_OS_HINTS = {errno.ENOSPC: _FULL} | dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR), _NO_WRITE)
