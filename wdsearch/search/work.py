"""One more worker of a study that was begun, from what its storage holds."""

from functools import partial
from pathlib import Path
from typing import Literal

from wdsearch.search.progress import SearchProgress
from wdsearch.search.run import run
from wdsearch.storage.database import patiently
from wdsearch.storage.home import Home
from wdsearch.storage.restore import restored
from wdsearch.storage.results import StudyResult, is_concluded, load_result

PATIENCE_S = 60.0
"""How long a worker that starts waits for a storage's server: it may be being restarted just then."""


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
