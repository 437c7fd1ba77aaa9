"""What a person reads in the terminal of a study's launched workers."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Group
from rich.markup import escape

from wdsearch.launching import LaunchStatus, Started
from wdsearch.status import StudyStatus
from wdsearch.terminal import status_table


def started(found: Started) -> list[str]:
    """What `wdsearch launch` prints: which workers run where, and the next commands."""
    jobs = found.launch.jobs if found.launch else ()
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


def status_lines(found: StudyStatus, launches: Sequence[LaunchStatus]) -> Group:
    """What `wdsearch status` prints: the study, and the launches that have not ended."""
    return Group(status_table(found), *(_launch_line(one) for one in launches if one.is_open or one.fault))


def _launch_line(found: LaunchStatus) -> str:
    counts = Counter(found.states.values())
    said = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs"
    where = f" from {found.launch.node}" if found.launch.engine == "local" else ""
    fault = f"; [yellow]{escape(found.fault)}[/yellow]" if found.fault else ""
    return f"launch {found.launch.name} on {found.launch.engine}{where}: {said}{fault}"
