"""Formats a study's status and its launched workers for the terminal."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape

from wdsearch.cli.tables import status_table
from wdsearch.launch.workers import LaunchStatus, Started, launched
from wdsearch.search.status import StudyStatus, study_status
from wdsearch.storage.home import Home

WATCH_EVERY_S = 2.0


def started(launched_workers: Started) -> list[str]:
    """Output of `wdsearch launch`: the workers' jobs, and the next commands.

    >>> started(Started("digits", "slurm", 2, "", None, {"status": "wdsearch status digits"}))
    ['2 workers of [bold]digits[/bold] on slurm: ', '', 'status          [bold]wdsearch status digits[/bold]']
    """
    jobs = (
        [job.partition("@")[0] for job in launched_workers.launch.jobs] if launched_workers.launch else []
    )  # of a process, its number
    job_names = f"{', '.join(jobs[:8])}{', ...' if len(jobs) > 8 else ''}"
    note = [f"[yellow]{escape(launched_workers.note)}[/yellow]"] if launched_workers.note else []
    next_lines = [f"{does:<15} [bold]{escape(command)}[/bold]" for does, command in launched_workers.follow_up.items()]
    return [
        f"{launched_workers.workers} workers of [bold]{launched_workers.study}[/bold] on {launched_workers.engine}: {job_names}",
        *note,
        "",
        *next_lines,
    ]


def stopped(study: str, launches: Sequence[LaunchStatus]) -> list[str]:
    """Output of `wdsearch stop`: the launches that were stopped, and the next command.

    >>> stopped("digits", [])
    ['no launched workers of digits are left; those started by hand end with Ctrl-C']
    """
    if not launches:
        return [f"no launched workers of {study} are left; those started by hand end with Ctrl-C"]
    lines = [_launch_line(launch) for launch in launches]
    return [*lines, f"next            [bold]wdsearch launch {study}[/bold]  (goes on: nothing is lost)"]


def status_record(study: str, home: Home, storage: str | None) -> dict[str, Any]:
    """Output of `wdsearch status --json`."""
    status, launches = _study_and_launches(study, home, storage)
    return status.as_dict() | {"launches": [launch.as_dict() for launch in launches]}


def show_status(study: str, home: Home, storage: str | None, watch: bool) -> None:
    """Print the output of `wdsearch status`; with `watch` again and again until no worker is left, or Ctrl-C."""
    status, launches = _study_and_launches(study, home, storage)
    if not watch:
        Console().print(_status_lines(status, launches))
        return
    with Live(_status_lines(status, launches), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while status.state == "running" or status.launched:
            time.sleep(WATCH_EVERY_S)
            status, launches = _study_and_launches(study, home, storage)
            live.update(_status_lines(status, launches), refresh=True)


def _study_and_launches(study: str, home: Home, storage: str | None) -> tuple[StudyStatus, list[LaunchStatus]]:
    launches = launched(study, home, storage)
    status = study_status(study, home, storage)
    return replace(status, launched=any(launch.is_open for launch in launches)), launches


def _status_lines(status: StudyStatus, launches: Sequence[LaunchStatus]) -> Group:
    """The study, and the launches that have not ended."""
    return Group(status_table(status), *(_launch_line(launch) for launch in launches if launch.is_open or launch.fault))


def _launch_line(status: LaunchStatus) -> str:
    counts = Counter(status.states.values())
    states = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs"
    where = f" from {status.launch.node}" if status.launch.engine == "local" else ""
    fault = f"; [yellow]{escape(status.fault)}[/yellow]" if status.fault else ""
    return f"launch {status.launch.name} on {status.launch.engine}{where}: {states}{fault}"
