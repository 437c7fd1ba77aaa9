"""Base class of cohorts: trials of one network and one age, fused or trained one after another."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from wdsearch.tasks.metrics import Sums
from wdsearch.tasks.task import Task, losses_and_gaps
from wdsearch.trial.batches import Batch
from wdsearch.trial.diagnostics import Span, Steps, diagnose
from wdsearch.trial.module import VALIDATION, RegularizedModule
from wdsearch.trial.result import DIVERGED, FINISHED, STOPPED_EARLY, Diagnosis

Saved = dict[str, Any]
"""State of a cohort between two epochs, complete for resuming, in types that `torch.save` accepts."""


@dataclass(frozen=True)
class TrialEpoch:
    """One trial after one epoch: its age, its metrics, and the reason for its end, None while it goes on.

    `metrics` are those of this epoch, `result` those of the state by which the trial is judged: the same, or the best
    epoch's under early stopping, whose age is then `best_age`, else 0. `trends` of weights, updates and gradients are measured
    in some epochs only.
    """

    number: int
    age: int
    metrics: dict[str, float]
    result: dict[str, float]
    end: str | None
    trends: dict[str, float] = field(default_factory=dict)
    best_age: int = 0


TRENDS = 10
"""Number of epochs of a training at which trends are measured."""


class Cohort(ABC):
    """Trials that share their age, batches and noise, and train for `steps` steps; a subclass trains them.

    Columns (`numbers`, `patience`, `best`, `best_age`) have one entry per trial. Each step adds every trial's objective
    times the number of rows to `objective`, shape (K,).
    """

    kind: ClassVar[str]

    def __init__(self, trials: Mapping[int, RegularizedModule], task: Task, steps: int) -> None:
        self.numbers, self.task, self.steps, self.age = list(trials), task, steps, 0
        self.patience = [module.patience() for module in trials.values()]
        self.best: list[dict[str, float]] = [{} for _ in trials]
        self.best_age = [0 for _ in trials]
        self.objective: Tensor | float = 0.0
        self.rows_seen = 0

    @abstractmethod
    def step(self, batch: Batch, index: int) -> None:
        """One optimizer step of every trial on the same batch, the epoch's `index`-th."""

    @abstractmethod
    def evaluate(self, batch: Batch, index: int = 0, phase: str = VALIDATION) -> Sums:
        """Sums over the rows of a phase's `index`-th batch per trial, in eval mode: (K, ...)."""

    @abstractmethod
    def state(self, number: int) -> dict[str, Any]:
        """State dict by which a trial is judged, for a single `RegularizedModule`."""

    @abstractmethod
    def module(self, number: int) -> RegularizedModule:
        """Copy of a trial's module in the state by which it is judged, on the CPU."""

    @abstractmethod
    def watched(self, number: int) -> Steps:
        """Measurements of a trial's steps."""

    @abstractmethod
    def trends(self) -> dict[str, Tensor]:
        """Norms of weights, updates and gradients at present, per trial: (K,)."""

    @abstractmethod
    def saved(self) -> Saved:
        """State for resuming this cohort; tensors are shared, not copied."""

    def resumable(self) -> bool:
        """True if the saved state holds all on which further training depends."""
        return True

    @abstractmethod
    def restore(self, saved: Saved) -> None:
        """Load a saved state of the same kind into a cohort of age 0 with some or all of its trials."""

    @abstractmethod
    def _keep_rows(self, rows: list[int]) -> None:
        """Drop the tensors of all other trials."""

    @abstractmethod
    def _keep_best(self, row: int) -> None:
        """Copy a trial's weights as its best so far."""

    def diagnosis(self, number: int, batch: Batch | None, epochs: int) -> Diagnosis:
        """Effect of λ on a trial so far; `batch` has validation rows, `epochs` counts the planned ones."""
        steps = self.watched(number)
        return diagnose(self.module(number), batch, steps, Span(len(steps.gradient_norms), self.steps, epochs))

    def keep(self, numbers: set[int]) -> None:
        """Drop all other trials and free their memory."""
        rows = [row for row, number in enumerate(self.numbers) if number in numbers]
        if len(rows) == len(self.numbers):
            return
        self._keep_rows(rows)
        for column in ("numbers", "patience", "best", "best_age"):
            setattr(self, column, [getattr(self, column)[row] for row in rows])

    def end_epoch(self, train: Sums, validation: Sums, epochs: int) -> list[TrialEpoch]:
        """Increase the age by one epoch and return each trial's metrics."""
        self.age += 1
        columns = losses_and_gaps(self.task, train, validation)
        columns["loss/objective"] = torch.as_tensor(self.objective / self.rows_seen)
        self.objective, self.rows_seen = 0.0, 0
        measured = self.trends() if self.age % max(1, epochs // TRENDS) == 0 else {}
        table = {name: column.tolist() for name, column in columns.items()}
        trends = {name: column.tolist() for name, column in measured.items()}
        return [self._trial_epoch(row, _row(table, row), _row(trends, row), epochs) for row in range(len(self.numbers))]

    def _trial_epoch(self, row: int, metrics: dict[str, float], trends: dict[str, float], epochs: int) -> TrialEpoch:
        stops_early = self.patience[row] < math.inf
        if not stops_early or metrics["loss/val"] < self.best[row].get("loss/val", math.inf):
            self.best[row], self.best_age[row] = metrics, self.age
            if stops_early:
                self._keep_best(row)
        judged, age = (self.best[row], self.best_age[row]) if stops_early else (metrics, 0)
        return TrialEpoch(self.numbers[row], self.age, metrics, judged, self._end(row, metrics, epochs), trends, age)

    def _end(self, row: int, metrics: dict[str, float], epochs: int) -> str | None:
        if not all(math.isfinite(metrics[name]) for name in ("loss/objective", "loss/train", "loss/val")):
            return DIVERGED
        if self.age >= epochs:
            return FINISHED
        return STOPPED_EARLY if self.age - self.best_age[row] >= self.patience[row] else None

    def _columns(self) -> Saved:
        return {
            "kind": self.kind,
            "numbers": list(self.numbers),
            "age": self.age,
            "best": self.best,
            "best_age": self.best_age,
        }

    def _restore_columns(self, saved: Saved) -> list[int]:
        """Restore age and best results; returns the rows of this cohort's trials in the saved one."""
        rows = [saved["numbers"].index(number) for number in self.numbers]
        self.age = saved["age"]
        self.best, self.best_age = ([saved[key][row] for row in rows] for key in ("best", "best_age"))
        return rows


def _row(table: Mapping[str, list[float]], row: int) -> dict[str, float]:
    """Values of one trial."""
    return {name: column[row] for name, column in table.items()}
