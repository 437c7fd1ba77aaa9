"""The progress of a search in a terminal, or as lines in a log."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

LINE_EVERY_S = 30.0
"""Time between two lines of a log that say how far a search is."""


@dataclass(frozen=True)
class Snapshot:
    """Standing of a search. `work` is the share of the budget done, counting trials in training by their age."""

    budget: int
    counts: dict[str, int]
    work: float
    goal: str
    best: float | None
    gap: float | None


class _TimeLeft(ProgressColumn):
    """Time left at the pace of the whole run so far; pruning makes it a guess."""

    def render(self, task: Task) -> Text:
        done, elapsed = task.fields.get("work", 0.0) - task.fields.get("start", 0.0), task.elapsed or 0.0
        if done <= 0.02 or task.finished:
            return Text("")
        left = elapsed / done * (1.0 - task.fields["work"])
        return Text(f"{int(left // 60)}:{int(left % 60):02d} left", style="cyan")


class SearchProgress:
    """A live bar of trials done, pruned, diverged, the best value with its gap, and the time left.

    Silent without a terminal; but with `lines` it says there now and then how far it is, for a log.
    """

    def __init__(self, enabled: bool | Literal["lines"] = True) -> None:
        self.console = Console(stderr=True)
        self._lines = enabled == "lines" and not self.console.is_terminal
        self._next_line = 0.0
        self._said: set[str] = set()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            _TimeLeft(),
            console=self.console,
            disable=not (enabled and self.console.is_terminal),
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=1.0, text="", work=0.0)

    def __enter__(self) -> "SearchProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, description: str) -> None:
        """Name the phase that goes on."""
        if self._lines and description != self.bar.tasks[0].description:
            self.note(description)
        self.bar.update(self.task, description=description)

    def note(self, text: str) -> None:
        """Print a line that stays, above the bar; in a log with the time."""
        self._print(escape(text))

    def warn(self, text: str) -> None:
        """Print a line that stays, marked as a warning."""
        self._print(f"[yellow]warning[/yellow] {escape(text)}")

    def note_once(self, text: str) -> None:
        """Print a line that stays, unless it was printed before."""
        self._once(self.note, text)

    def warn_once(self, text: str) -> None:
        """Print a warning, unless it was printed before."""
        self._once(self.warn, text)

    def _once(self, act: Callable[[str], None], text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            act(text)

    def _print(self, markup: str) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S  ") if self._lines else ""
        self.console.print(when + markup, soft_wrap=True)

    def update(self, snapshot: Snapshot) -> None:
        """Show how far the search is."""
        if "start" not in self.bar.tasks[0].fields:
            self.bar.update(self.task, start=snapshot.work)
        self.bar.update(
            self.task, completed=snapshot.work, work=snapshot.work, description="searching", text=_line(snapshot)
        )
        if self._lines and time.monotonic() >= self._next_line:
            self.note(_line(snapshot))
            self._next_line = time.monotonic() + LINE_EVERY_S

    def replicate(self, work: float, text: str) -> None:
        """Show how far a set of trainings is, as a share of all."""
        if "start" not in self.bar.tasks[0].fields:
            self.bar.update(self.task, start=work)
        self.bar.update(self.task, completed=work, work=work, description="training", text=text)

    def delivering(self, left: int) -> None:
        """Show how many records have yet to be delivered."""
        self.bar.update(
            self.task, completed=1.0, work=1.0, description="delivering to MLflow", text=f"{left} records left"
        )


def _line(snapshot: Snapshot) -> str:
    counts = snapshot.counts
    done = counts["complete"] + counts["pruned"] + counts["diverged"]
    parts = [f"{done}/{snapshot.budget} trials", f"{counts['pruned']} pruned", f"{counts['diverged']} diverged"]
    parts += [f"{counts['failed']} failed"] if counts["failed"] else []
    if snapshot.best is not None:
        gap = "" if snapshot.gap is None or snapshot.goal == "gap" else f" (gap {snapshot.gap:.3f})"
        parts.append(f"best {snapshot.goal} {snapshot.best:.4f}{gap}")
    return " · ".join(parts)
