"""The public verbs of a search: `run` a study from its file, `begin` one for workers to come, `work` on one that was begun."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from wdsearch.search.prepare import quiet_libraries
from wdsearch.search.progress import SearchProgress
from wdsearch.search.session import Session
from wdsearch.storage.database import patiently
from wdsearch.storage.home import Home, clear_storage_errors
from wdsearch.storage.restore import restored
from wdsearch.storage.results import StudyResult, is_concluded, load_result
from wdsearch.study.load import StudyConfig, load_study
from wdsearch.tracking.tracker import Tracker

PATIENCE_S = 60.0
"""Longest wait of a worker that starts for a storage's server: it may be being restarted just then."""


def run(
    source: str | Path | Mapping[str, Any] | StudyConfig,
    overrides: Sequence[str] = (),
    *,
    home: str | Path | None = None,
    storage: str | None = None,
    tracker: Tracker | None = None,
    progress: bool | Literal["lines"] = True,
) -> StudyResult:
    """Search a study until its budget is spent, and return its result.

    `source` is a study file, its content as a mapping (own objects in place of import paths), or a StudyConfig;
    `overrides` are `key.path=value` strings. State goes to `home` (default `$WDSEARCH_HOME` or `.wdsearch`), the Optuna
    study to `storage` (an SQLAlchemy URL), records to `tracker`: by default as the
    study's `tracking` says.
    Running a study again continues it; several processes may run the same study and share its budget.

    Raises StudyFileError for a faulty study, BuildError and DataError for what it names, StudyChangedError if it is not
    the one that was begun under its name, TrialsFailedError if no trial can be built, StorageError if its storage or
    disk cannot be written, and InterruptedStudyError after Ctrl-C or SIGTERM.
    """
    config, study_home = load_study(source, overrides), Home(home)
    with SearchProgress(progress) as bar, quiet_libraries(), clear_storage_errors(study_home, storage):
        session = Session.open(config, study_home, storage, bar, tracker)
        if not session.ends_elsewhere():
            session.complete()
        return load_result(session.study, study_home)


def begin(
    config: StudyConfig,
    home: Home,
    storage: str | None = None,
    progress: bool = True,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Check a study as `run` does, and enter it in its storage and its records, for workers to come. Raises what `run` raises.

    `attributes` are stored with the study if it is new.
    """
    with SearchProgress(progress) as bar, quiet_libraries(), clear_storage_errors(home, storage):
        Session.open(config, home, storage, bar, attributes=attributes).enter()


def work(
    study: str, *, home: str | Path | None = None, storage: str | None = None, progress: bool | Literal["lines"] = True
) -> StudyResult:
    """Work until the study's budget is spent; any number of workers, on any machines, share it exactly.

    A study that is done is left as it is. Raises StudyNotFoundError, NotStoredError for a study with own objects of
    Python, and what `run` raises.
    """
    act = partial(_work, study, Home(home), storage, progress)
    return patiently(act, SearchProgress(progress).note, PATIENCE_S)


def _work(study: str, home: Home, storage: str | None, progress: bool | Literal["lines"]) -> StudyResult:
    result = load_result(study, home, storage)
    if is_concluded(result):
        return result
    return run(restored(result, None, "wdsearch.run(...)"), home=home.path, storage=storage, progress=progress)
