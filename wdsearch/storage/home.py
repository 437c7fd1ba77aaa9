"""Where a study's state lives: Optuna's storage, and files beside it."""

import errno
import os
import platform
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ArgumentError, DBAPIError

from wdsearch.storage.database import (
    LOCKED_FOR_S,
    NetworkFileSystemError,
    backend,
    causes,
    forget_study,
    full_url,
    is_away,
    open_database,
    shown_url,
    sqlite_file,
)
from wdsearch.study.cron import FAMILY, FIRED, WARM
from wdsearch.study.load import StudyConfig
from wdsearch.study.schema import Source

HOME = "WDSEARCH_HOME"
STORAGE = "WDSEARCH_STORAGE"
GOALS, CONFIG, METRIC, IDENTITY, FOLDER, TOKEN = "goals", "config", "metric", "identity", "folder", "token"
BEGINNING_DS = 100
"""Tenths of a second that one who creates a study is given."""
FREE = (("budget", "trials"), ("trainer", "population"), ("trainer", "threads"), ("schedule",))
"""What may differ when a study goes on: how much is spent, how fast, and when; all below a path as well."""


class StudyNotFoundError(Exception):
    """A study that the storage does not hold."""


class StorageError(Exception):
    """A storage that cannot be used: locked, read-only, full, out of reach, or of another version."""


class StudyChangedError(Exception):
    """A study file that is not the one which the study of its name was begun with."""


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
    """Say what is wrong with a storage or its disk, and what to do, in a StorageError; other errors pass."""
    try:
        yield
    except Exception as error:
        found = [(cause, hint) for cause in causes(error) if (hint := _hint(cause))]
        if not found:
            raise
        cause, hint = found[-1]
        text = f"storage {shown_url(home.url(storage))} (folder {home.path}): {str(cause).splitlines()[0]}"
        raise StorageError(f"{text}\n{hint}") from error


def _hint(error: BaseException) -> str | None:
    text = str(error)
    for part, hint in _HINTS.items():
        if part in text and isinstance(error, _STORAGE_ERRORS):
            return hint
    if isinstance(error, NetworkFileSystemError):
        return (
            "choose a folder on a local disk with --home (or $WDSEARCH_HOME), or a server: --storage postgresql://..."
        )
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


def open_study(
    config: StudyConfig,
    home: Home,
    storage: str | None,
    pruner: BasePruner,
    metric: str,
    digest: str,
    attributes: Mapping[str, Any] | None = None,
) -> tuple[optuna.Study, Engine]:
    """A study, begun or taken up again, and the engine of its storage; `digest` is that of its data.

    `attributes` are set on a new one, before anybody else takes it for begun.
    Raises StudyChangedError if the study of this name was begun with another file.
    """
    opened = home.open(storage)
    try:
        study = optuna.create_study(
            storage=opened, study_name=config.study, directions=config.objective.directions, pruner=pruner
        )
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=config.study, storage=opened, pruner=pruner)
        is_new = _is_abandoned(study, config)
    else:
        forget_study(opened.engine, study._study_id)
        is_new = True
    if is_new:
        news = {GOALS: config.objective.goals, METRIC: metric, CONFIG: config.dump(), **(attributes or {})}
        news |= {TOKEN: os.urandom(4).hex()}  # tells it from a later study of this name
        for name, value in news.items():
            study.set_user_attr(name, value)
        study.set_user_attr(IDENTITY, identity(config, digest))  # the last one: with it the study is begun
    else:
        check_same(study, identity(config, digest))
        study.set_user_attr(CONFIG, config.dump())
        if TOKEN not in study.user_attrs:  # begun by an earlier version
            study.set_user_attr(TOKEN, os.urandom(4).hex())
    study.set_user_attr(FOLDER, _folder(config))
    return study, opened.engine


def _folder(config: StudyConfig) -> str | None:
    """Where the study's file lies, and own modules and tables are looked for; None if it does not come from a file."""
    folders = [part.folder for part in (config.data, config.model) if isinstance(part, Source)]
    return next((str(folder) for folder in folders if folder), None)


def identity(config: StudyConfig, digest: str) -> dict[str, Any]:
    """What makes a study this study: every key with its value, given or by default, but those that are `FREE`; its data."""
    found = _leaves(config.dump(defaults=True))
    fixed = {
        ".".join(path): value for path, value in found.items() if not any(path[: len(free)] == free for free in FREE)
    }
    return fixed | {"data (digest)": digest}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {place: leaf for key, item in value.items() for place, leaf in _leaves(item, (*path, key)).items()}


def check_same(study: optuna.Study, now: dict[str, Any]) -> None:
    """Raise StudyChangedError if a study was begun with another identity."""
    begun = _identity_of(study)
    changed = sorted(key for key in begun.keys() | now.keys() if begun.get(key) != now.get(key))
    if changed:
        lines = [f"  {key}: {begun.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in changed]
        text = f"study {study.study_name!r} was begun with another file; since then changed:"
        hint = "give the changed study its own name (study: ..., or --set study=NAME), or undo the change"
        raise StudyChangedError("\n".join([text, *lines, hint]))


def _is_abandoned(study: optuna.Study, config: StudyConfig) -> bool:
    """Whether who created the study died before it was begun; a moment is left to one who has just created it."""
    for _ in range(BEGINNING_DS):
        if IDENTITY in study.user_attrs:
            return False
        time.sleep(0.1)
    ours = set(study.user_attrs) <= {GOALS, METRIC, CONFIG, TOKEN, FAMILY, FIRED, WARM} and not study.get_trials(
        deepcopy=False
    )
    return ours and [direction.name.lower() for direction in study.directions] == config.objective.directions


def _identity_of(study: optuna.Study) -> dict[str, Any]:
    if IDENTITY in study.user_attrs:
        return dict(study.user_attrs[IDENTITY])
    raise StudyChangedError(f"study {study.study_name!r} was not made by wdsearch; choose another name")
