"""Where a study's state lives: Optuna's storage, and files beside it."""

import os
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine, make_url

from wdsearch.config import StudyConfig
from wdsearch.leases import forget_study

HOME = "WDSEARCH_HOME"
STORAGE = "WDSEARCH_STORAGE"
LOCKED_FOR_S = 60
GOALS, CONFIG, METRIC, IDENTITY = "goals", "config", "metric", "identity"
FREE = (("budget", "trials"), ("trainer", "population"), ("trainer", "threads"))
"""What may differ when a study goes on: how much is spent, and how fast."""


class StudyNotFoundError(Exception):
    """A study that the storage does not hold."""


class StudyChangedError(Exception):
    """A study file that is not the one which the study of its name was begun with."""


class Home:
    """The folder of a project's studies: `$WDSEARCH_HOME`, or `.wdsearch` where the command runs."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or os.environ.get(HOME, ".wdsearch")).absolute()

    def url(self, storage: str | None = None) -> str:
        """The storage's URL: as given, `$WDSEARCH_STORAGE`, or a SQLite file in this folder."""
        return storage or os.environ.get(STORAGE) or f"sqlite:///{self.path / 'optuna.db'}"

    def folder(self, study: str) -> Path:
        """A study's own files: best weights, figures."""
        return self.path / "studies" / study

    def open(self, storage: str | None = None) -> RDBStorage:
        """Optuna's storage, created if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        url = self.url(storage)
        sqlite = make_url(url).get_backend_name() == "sqlite"
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": LOCKED_FOR_S}} if sqlite else None)

    def load(self, study: str, storage: str | None = None) -> optuna.Study:
        """A study that exists; raises StudyNotFoundError with the names of those that do."""
        url = self.url(storage)
        if url == f"sqlite:///{self.path / 'optuna.db'}" and not (self.path / "optuna.db").exists():
            raise StudyNotFoundError(f"{self.path} holds no studies; start one with: wdsearch run FILE")
        opened = self.open(storage)
        names = optuna.get_all_study_names(opened)
        if study not in names:
            known = ", ".join(sorted(names)) or "none"
            raise StudyNotFoundError(f"there is no study {study!r} in {url}; it holds: {known}")
        return optuna.load_study(study_name=study, storage=opened)


def open_study(
    config: StudyConfig, home: Home, storage: str | None, pruner: BasePruner, metric: str, digest: str
) -> tuple[optuna.Study, Engine]:
    """A study, begun or taken up again, and the engine of its storage; `digest` is that of its data.

    Raises StudyChangedError if the study of this name was begun with another file.
    """
    opened = home.open(storage)
    try:
        study = optuna.create_study(
            storage=opened, study_name=config.study, directions=config.objective.directions, pruner=pruner
        )
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(study_name=config.study, storage=opened, pruner=pruner)
        _check_same(study, identity(config, digest))
        study.set_user_attr(CONFIG, config.dump())
    else:
        forget_study(opened.engine, study._study_id)
        for name, value in ((GOALS, config.objective.goals), (METRIC, metric), (CONFIG, config.dump())):
            study.set_user_attr(name, value)
        study.set_user_attr(IDENTITY, identity(config, digest))
    return study, opened.engine


def identity(config: StudyConfig, digest: str) -> dict[str, Any]:
    """What makes a study this study: every key with its value, given or by default, but those that are `FREE`; its data."""
    found = _leaves(config.dump(defaults=True))
    return {".".join(path): value for path, value in found.items() if path not in FREE} | {"data (digest)": digest}


def _leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {place: leaf for key, item in value.items() for place, leaf in _leaves(item, (*path, key)).items()}


def _check_same(study: optuna.Study, now: dict[str, Any]) -> None:
    begun = _identity_of(study)
    changed = sorted(key for key in begun.keys() | now.keys() if begun.get(key) != now.get(key))
    if changed:
        lines = [f"  {key}: {begun.get(key, 'absent')} -> {now.get(key, 'absent')}" for key in changed]
        text = f"study {study.study_name!r} was begun with another file; since then changed:"
        hint = "give the changed study its own name (study: ..., or --set study=NAME), or undo the change"
        raise StudyChangedError("\n".join([text, *lines, hint]))


def _identity_of(study: optuna.Study) -> dict[str, Any]:
    """As stored; the one who has just created the study needs a moment to write it."""
    for _ in range(100):
        if IDENTITY in study.user_attrs:
            return dict(study.user_attrs[IDENTITY])
        time.sleep(0.1)
    raise StudyChangedError(f"study {study.study_name!r} was not made by wdsearch; choose another name")
