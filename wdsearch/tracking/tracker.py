"""Defines what a tracker is: it keeps the record of a study that people look at, and that no study depends on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from wdsearch.errors import WdsearchError
from wdsearch.trial.result import Result

if TYPE_CHECKING:  # pydantic, which who asks for a study's status does not wait for
    from wdsearch.storage.home import Home
    from wdsearch.study.schema import StudyConfig
    from wdsearch.tracking.serving import Server

STUDY = "study"
"""Key of the study's own record; trials are `trial-12`, and `baseline`."""
DESCRIPTION = "description"
"""Tag whose text, in Markdown, describes a study or a trial."""


class TrackerError(WdsearchError):
    """A tracker, or an option of it, that does not exist."""


@dataclass(frozen=True)
class Delivery:
    """Address of a study's records, and how many have not arrived there, and why; `note` is worth saying."""

    link: str | None
    undelivered: int = 0
    log: Path | None = None
    error: str | None = None
    note: str | None = None


class Backlog(NamedTuple):
    """Records that wait on this machine, why they do, and what is lost; `elsewhere` counts machines that deliver their own."""

    undelivered: int = 0
    elsewhere: int = 0
    error: str | None = None
    lost: str | None = None


class Tracker(ABC):
    """Records what happens in a study. Keys name what a record is of: `study`, `baseline`, `trial-12`.

    What was flushed survives a crash. A trial that is trained again after one is recorded once: epochs that an earlier
    process has recorded, and an end equal to the recorded one, are left out. Several processes may write for one study.
    Of a study on several machines `node` is this one's name, else it is empty.
    Options that a study file may give are the constructor's keyword-only arguments.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    addresses: ClassVar[tuple[str, ...]] = ()
    """Variables of the environment that say where records go: all workers need the same."""
    logins: ClassVar[tuple[str, ...]] = ()
    """Variables of the environment that may be secret, and may be missing."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions belong to a record."""
    study: str
    node: str

    @abstractmethod
    def __init__(self, home: Path, study: str, *, node: str = "") -> None:
        """Take up what is recorded in the home folder, if anything is."""

    @classmethod
    @abstractmethod
    def reopen(cls, home: Path, study: str, *, node: str = "", token: str = "", **options: Any) -> Tracker | None:
        """Tracker that adds to the records of a study; None if there are none, on any machine with the study's `token`."""

    @classmethod
    @abstractmethod
    def page(cls, home: Path, study: str, port: int, **options: Any) -> Server:
        """Page on which people see a study's records, and what serves them on this machine, if anything has to."""

    @classmethod
    def shared_fault(cls) -> str | None:
        """Reason why workers on several machines could not record together, in this environment; None if they could."""
        return None

    @classmethod
    def backlog(cls, home: Path, study: str) -> Backlog:
        """Records that wait in the home folder to be delivered."""
        return Backlog()

    @classmethod
    def deliver_backlog(
        cls, study: str, home: Home, storage: str | None, progress: Callable[[int, str | None], None] | None
    ) -> tuple[int, int]:
        """Deliver what waits; how much that was, and how many other machines deliver their own."""
        return 0, 0

    def start_delivery(self) -> None:  # noqa: B027 - most have nothing to start
        """Start what delivers records beside this process, if that takes time."""

    @abstractmethod
    def start_study(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        token: str = "",
        config: StudyConfig | None = None,
        metric: str = "",
    ) -> None:
        """Begin the study's record, or take it up again.

        `token` tells this study from another one of its name, and is the same on all machines. The study and the `metric`
        beside its loss say what a page of it shows first.
        """

    @abstractmethod
    def start_trial(
        self,
        key: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        inherited: bool = False,
    ) -> None:
        """Begin a trial's record, or take it up; another machine may have begun it if it is `inherited`."""

    @abstractmethod
    def log(self, key: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch's metrics; values that are not finite are left out."""

    @abstractmethod
    def end_trial(
        self,
        key: str,
        state: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        step: int = 0,
        diagnostics: Mapping[str, Any] | None = None,
    ) -> None:
        """End a record with the result's metrics, and what λ did if that was measured; `state` is Optuna's."""

    def end_study(self, metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        """End the study's record."""
        self.end_trial(STUDY, "COMPLETE", metrics, tags, step)

    @abstractmethod
    def log_artifact(self, path: Path, folder: str = "", key: str = STUDY) -> None:
        """Add a file to a record."""

    @abstractmethod
    def log_model(self, path: Path, trial: int, requirements: list[str]) -> None:
        """Add the best trial's network, as torch.export wrote it, once for each trial that was the best."""

    @abstractmethod
    def sweep(self, results: Mapping[str, Result]) -> None:
        """End all records that are still open though their trials have ended, as after a lost machine; the study's own too."""

    @abstractmethod
    def discard(self) -> None:
        """Forget what was not flushed, as a crash would."""

    @abstractmethod
    def flush(self) -> None:
        """Let what was recorded so far survive a crash; once per epoch of a population."""

    @abstractmethod
    def stop_writing(self) -> None:
        """End this process's part, and wait for nothing; trials that have not ended are marked as interrupted."""

    @abstractmethod
    def finish(self, wait_s: float = 120.0, progress: Callable[[int], None] | None = None) -> Delivery:
        """Stop writing, wait until all is delivered, but not longer than `wait_s`, and tell what came of it.

        `progress` is called with the number of records left. Nothing can be recorded afterwards.
        """


def ending(result: Result) -> tuple[str, dict[str, float], dict[str, str]]:
    """A trial's state in Optuna, and its result as metrics and tags.

    >>> from wdsearch.trial.result import Result
    >>> ending(Result("pruned", 9, {"val_loss": 0.5}, lr=0.01, strengths={}, model={}))[:2]
    ('PRUNED', {'val_loss': 0.5, 'epochs': 9})
    """
    tags = {"wdsearch.end": result.end, "wdsearch.diverged": str(result.is_diverged).lower()}
    return "COMPLETE" if result.is_complete else "PRUNED", result.metrics | {"epochs": result.epochs}, tags


def measured(metrics: Mapping[str, float], diagnostics: Mapping[str, Any] | None) -> dict[str, float]:
    """The finite metrics of an end, with those of the whole network's diagnostics as `diagnosis/...`.

    >>> measured({"val_loss": 0.5}, {"whole": {"weight_norm": 3.0}})
    {'val_loss': 0.5, 'diagnosis/weight_norm': 3.0}
    """
    measures = {f"diagnosis/{name}": value for name, value in (diagnostics or {}).get("whole", {}).items()}
    return finite({**metrics, **measures})


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without NaN and infinities.

    >>> finite({"val_loss": math.nan, "gap": 1})
    {'gap': 1.0}
    """
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
