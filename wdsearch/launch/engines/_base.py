"""What an engine is to wdsearch: it starts N workers, says how they are, has their logs, and ends them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

WAITING, RUNNING, ENDED, UNKNOWN = "waiting", "running", "ended", "unknown"
"""What becomes of a job: not begun, at work, gone (its log says how), or what cannot be found out from here."""


class EngineError(Exception):
    """An engine, or an option of it, that does not exist, or does not fit the study's storage."""


class LaunchError(Exception):
    """An engine that is not there, or refuses."""


class LauncherOptions(BaseModel):
    """Options of an engine: `-o name=value`, or `schedule: {options: {name: value}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Order:
    """Workers to start: how many, what each runs (a list of arguments), with which environment beside the present one.

    `folder` is the launch's own, for logs. `content` is the study as its file says it, for an engine that brings it along.
    """

    study: str
    workers: int
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    content: Mapping[str, Any]


O = TypeVar("O", bound=LauncherOptions)  # noqa: E741 - options


class Launcher(ABC, Generic[O]):
    """One engine. `spans` machines or not: what does needs a storage and a tracker that they share.

    One that only `renders` writes what its user hands on: no study is begun and no storage looked at, for the workers may
    have another one than this machine.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    options: ClassVar[type[LauncherOptions]]
    spans: ClassVar[bool]
    renders: ClassVar[bool] = False

    @abstractmethod
    def script(self, order: Order, options: O) -> str:
        """What is given to the engine, for people to read."""

    @abstractmethod
    def start(self, order: Order, options: O) -> Sequence[str]:
        """Start the workers; the engine's names of its jobs. Raises LaunchError."""

    def follow_up(self, study: str, jobs: Sequence[str], options: O) -> dict[str, str]:
        """The commands for what comes next, by what they do."""
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
        """What the jobs have said, each by a title."""


def files_in(folder: Path, pattern: str) -> dict[str, str]:
    """The texts of a launch's log files by their names."""
    return {path.name: path.read_text(errors="replace") for path in sorted(folder.glob(pattern))}


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process's environment with further variables, for what hands its own on."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
