"""The interface of an engine: it starts N workers, reports their states and logs, and ends them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from wdsearch.errors import WdsearchError

WAITING, RUNNING, ENDED, UNKNOWN = "waiting", "running", "ended", "unknown"
"""States of a job: not begun, at work, gone (its log says how), or not known to this machine."""


class EngineError(WdsearchError):
    """An engine, or an option of it, that does not exist, or does not fit the study's storage."""


class LaunchError(WdsearchError):
    """An engine that is not there, or refuses."""

    exit_code = 1


class LauncherOptions(BaseModel):
    """Options of an engine: `-o name=value`, or `schedule: {options: {name: value}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Order:
    """An order for workers: their number, the command of each, and variables to add to the environment.

    `folder` is the launch's own, for logs. `content` is the study as in its file, for an engine that sends it along.
    """

    study: str
    workers: int
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    content: Mapping[str, Any]


O = TypeVar("O", bound=LauncherOptions)  # noqa: E741 - options


class Launcher(ABC, Generic[O]):
    """One engine. One that `spans` several machines needs a storage and a tracker that they share.

    One that only `renders` writes files for its user to submit: no study is begun and no storage opened, for the workers may
    use another one than this machine.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    options: ClassVar[type[LauncherOptions]]
    spans: ClassVar[bool]
    renders: ClassVar[bool] = False

    @abstractmethod
    def script(self, order: Order, options: O) -> str:
        """The text that the engine is given, for people to read."""

    @abstractmethod
    def start(self, order: Order, options: O) -> Sequence[str]:
        """Start the workers; returns the engine's names of its jobs. Raises LaunchError."""

    def follow_up(self, study: str, jobs: Sequence[str], options: O) -> dict[str, str]:
        """The next commands, by their purpose."""
        return {
            "status": f"wdsearch status {study} --watch",
            "logs": f"wdsearch logs {study} --follow",
            "end them": f"wdsearch stop {study}",
        }

    @abstractmethod
    def states(self, jobs: Sequence[str], options: O) -> dict[str, str]:
        """Each job's state; raises LaunchError if the engine does not answer."""

    @abstractmethod
    def stop(self, jobs: Sequence[str], options: O) -> None:
        """Ask the jobs that have not ended to end in order; their trials are free for others at once."""

    @abstractmethod
    def logs(self, jobs: Sequence[str], folder: Path, options: O) -> dict[str, str]:
        """Logs of the jobs, each by a title."""


def files_in(folder: Path, pattern: str) -> dict[str, str]:
    """The texts of a launch's log files by their names."""
    return {path.name: path.read_text(errors="replace") for path in sorted(folder.glob(pattern))}


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Adds variables to the process's environment, for libraries that pass it on."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
