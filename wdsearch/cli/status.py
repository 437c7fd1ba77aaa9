"""What a person reads in the terminal of a study's launched workers."""

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


def started(found: Started) -> list[str]:
    """What `wdsearch launch` prints: which workers run where, and the next commands."""
    jobs = [job.partition("@")[0] for job in found.launch.jobs] if found.launch else []  # of a process, its number
    given = f"{', '.join(jobs[:8])}{', ...' if len(jobs) > 8 else ''}"
    note = [f"[yellow]{escape(found.note)}[/yellow]"] if found.note else []
    next_lines = [f"{does:<15} [bold]{escape(command)}[/bold]" for does, command in found.follow_up.items()]
    return [f"{found.workers} workers of [bold]{found.study}[/bold] on {found.engine}: {given}", *note, "", *next_lines]


def stopped(study: str, found: Sequence[LaunchStatus]) -> list[str]:
    """What `wdsearch stop` prints."""
    if not found:
        return [f"no launched workers of {study} are left; those started by hand end with Ctrl-C"]
    lines = [_launch_line(one) for one in found]
    return [*lines, f"next            [bold]wdsearch launch {study}[/bold]  (goes on: nothing is lost)"]


def status_record(study: str, home: Home, storage: str | None) -> dict[str, Any]:
    """What `wdsearch status --json` prints."""
    found, launches = _study_and_launches(study, home, storage)
    return found.as_dict() | {"launches": [one.as_dict() for one in launches]}


def show_status(study: str, home: Home, storage: str | None, watch: bool) -> None:
    """What `wdsearch status` prints; with `watch` anew until nobody works, or Ctrl-C."""
    found, launches = _study_and_launches(study, home, storage)
    if not watch:
        Console().print(_status_lines(found, launches))
        return
    with Live(_status_lines(found, launches), auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while found.state == "running" or found.launched:
            time.sleep(WATCH_EVERY_S)
            found, launches = _study_and_launches(study, home, storage)
            live.update(_status_lines(found, launches), refresh=True)


def _study_and_launches(study: str, home: Home, storage: str | None) -> tuple[StudyStatus, list[LaunchStatus]]:
    launches = launched(study, home, storage)
    found = study_status(study, home, storage)
    return replace(found, launched=any(one.is_open for one in launches)), launches


def _status_lines(found: StudyStatus, launches: Sequence[LaunchStatus]) -> Group:
    """The study, and the launches that have not ended."""
    return Group(status_table(found), *(_launch_line(one) for one in launches if one.is_open or one.fault))


def _launch_line(found: LaunchStatus) -> str:
    counts = Counter(found.states.values())
    said = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs"
    where = f" from {found.launch.node}" if found.launch.engine == "local" else ""
    fault = f"; [yellow]{escape(found.fault)}[/yellow]" if found.fault else ""
    return f"launch {found.launch.name} on {found.launch.engine}{where}: {said}{fault}"
