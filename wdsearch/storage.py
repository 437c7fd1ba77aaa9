"""Where a study's state lives: Optuna's storage, and files beside it."""

import os
from pathlib import Path

import optuna

HOME = "WDSEARCH_HOME"
STORAGE = "WDSEARCH_STORAGE"


class StudyNotFoundError(Exception):
    """A study that the storage does not hold."""


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

    def open(self, storage: str | None = None) -> optuna.storages.BaseStorage:
        """Optuna's storage, created if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        return optuna.storages.get_storage(self.url(storage))

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
