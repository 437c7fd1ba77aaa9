"""The table of trackers: one file and one line each. A tracker keeps the record of a study that people look at."""

from collections.abc import Callable
from typing import Any

from wdsearch.messages import nearest, shown_value
from wdsearch.plugins import Table
from wdsearch.storage.attributes import TOKEN
from wdsearch.storage.home import Home
from wdsearch.storage.results import StudyResult
from wdsearch.tracking.jsonl import JsonlTracker
from wdsearch.tracking.mlflow_tracker import MlflowTracker
from wdsearch.tracking.serving import Server
from wdsearch.tracking.tracker import Backlog, Tracker, TrackerError


def _misfit(name: str, entry: object) -> str:
    if not (isinstance(entry, type) and issubclass(entry, Tracker)):
        return f"{entry!r} is no subclass of wdsearch.tracking.Tracker"
    return "" if entry.name == name else f"its name is {entry.name!r}"


TRACKERS: Table[type[Tracker]] = Table("trackers", {kind.name: kind for kind in (MlflowTracker, JsonlTracker)}, _misfit)
DEFAULT = MlflowTracker.name


def chosen_tracker(tracking: Any = None) -> tuple[type[Tracker], dict[str, Any]]:
    """The tracker of a study file's `tracking`, a name or a mapping with options, and these; raises TrackerError.

    >>> chosen_tracker({"name": "jsonl", "folder": "/srv/records"})[1]
    {'folder': '/srv/records'}
    """
    options = {"name": tracking or DEFAULT} if tracking is None or isinstance(tracking, str) else dict(tracking)
    name = options.pop("name", None)
    if name not in TRACKERS:
        raise TrackerError(f"tracking is {shown_value(name)}{nearest(str(name), TRACKERS)}")
    if options:
        from wdsearch.study.annotations import keyword_only, option_faults  # loads pydantic

        faults = [text for _, text in option_faults(("tracking",), name, options, keyword_only(TRACKERS[name]))]
        if faults:
            raise TrackerError("\n".join(faults))
    return TRACKERS[name], options


def open_tracker(tracking: Any, home: Home, study: str, storage: str | None = None) -> Tracker:
    """Tracker of a study on this machine, as its file's `tracking` says; raises TrackerError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     open_tracker("jsonl", Home(folder), "digits").name
    'jsonl'
    """
    kind, options = chosen_tracker(tracking)
    return kind(home.path, study, node=home.node(storage), **options)


def reopen_tracker(result: StudyResult, home: Home, storage: str | None = None) -> Tracker | None:
    """Tracker that adds to a study's records; None if it has none."""
    kind, options = chosen_tracker(result.config.get("tracking"))
    token = result.optuna_study.user_attrs.get(TOKEN, "")
    return kind.reopen(home.path, result.study, node=home.node(storage), token=token, **options)


def study_page(result: StudyResult, home: Home, port: int) -> Server:
    """Page of a study's records, and the server that shows it."""
    kind, options = chosen_tracker(result.config.get("tracking"))
    return kind.page(home.path, result.study, port, **options)


def backlog(home: Home, study: str) -> Backlog:
    """Records that wait to be delivered, by whichever tracker: a study may go on with another one.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     backlog(Home(folder), "digits").undelivered
    0
    """
    waiting = [kind.backlog(home.path, study) for kind in TRACKERS.values()]
    errors, lost = [one.error for one in waiting], [one.lost for one in waiting]
    counts = sum(one.undelivered for one in waiting), sum(one.elsewhere for one in waiting)
    return Backlog(*counts, next(filter(None, errors), None), next(filter(None, lost), None))


def deliver_backlog(
    study: str, home: Home, storage: str | None, progress: Callable[[int, str | None], None] | None = None
) -> tuple[int, int]:
    """Deliver what waits; how much that was, and how many other machines deliver their own.

    Raises StudyNotFoundError, and UndeliveredError with the reason if some could not be delivered.
    """
    counts = [kind.deliver_backlog(study, home, storage, progress) for kind in TRACKERS.values()]
    return sum(delivered for delivered, _ in counts), sum(elsewhere for _, elsewhere in counts)


def trackers() -> list[dict[str, Any]]:
    """All trackers with their options, as JSON can hold them.

    >>> [tracker["name"] for tracker in trackers()]
    ['mlflow', 'jsonl']
    """
    from wdsearch.study.catalog import keyword_arguments  # loads torch

    return [
        {"name": name, "summary": kind.summary, "arguments": [option.as_dict() for option in keyword_arguments(kind)]}
        for name, kind in TRACKERS.items()
    ]
