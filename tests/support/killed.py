"""A study in processes that kill themselves, until one does not."""

import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from support.processes import start as start_process
from support.studies import STUDY

from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult, load_result

start = partial(start_process, report=False)

EVERY_EPOCH, NEVER = {"search.worker.CHECKPOINT_S": 0.0}, {"search.loop.CHECKPOINT_S": 1e9}


def searched(home: Path, kills: Iterable[int] = (), study: dict | None = None, **options: object) -> StudyResult:
    """Run a study in processes that kill themselves after so many writes, then in one that does not."""
    for kill_at in kills:
        process = start(study or STUDY, home, kill_at, **options)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL, (home.parent / f"{home.name}.log").read_text()
    else:
        process = start(study or STUDY, home, **options)
        process.join()
        assert process.exitcode == 0, (home.parent / f"{home.name}.log").read_text()
    return load_result((study or STUDY)["study"], Home(home))
