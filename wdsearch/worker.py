"""One more worker of a study that was begun, from what its storage holds."""

from pathlib import Path
from typing import Literal

from wdsearch.restoring import restored
from wdsearch.results import StudyResult, is_concluded, load_result
from wdsearch.search import run
from wdsearch.storage import Home


def work(
    study: str, *, home: str | Path | None = None, storage: str | None = None, progress: bool | Literal["lines"] = True
) -> StudyResult:
    """Work until the study's budget is spent; any number of workers, on any machines, share it exactly.

    A study that is done is left as it is. Raises StudyNotFoundError, NotStoredError for a study with own objects of
    Python, and what `run` raises.
    """
    result = load_result(study, Home(home), storage)
    if is_concluded(result):
        return result
    return run(restored(result, None, "wdsearch.run(...)"), home=home, storage=storage, progress=progress)
