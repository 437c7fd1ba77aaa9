"""Trials of one age and one network: what any cohort is, however its trials are trained."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from wdsearch.tasks import Sums, Task, losses_and_gaps
from wdsearch.trial.batches import Batch
from wdsearch.trial.diagnostics import Span, Steps, diagnose
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.result import DIVERGED, FINISHED, STOPPED_EARLY, Diagnosis
from wdsearch.types import Params

Saved = dict[str, Any]
"""All that a cohort's further training depends on, between two epochs, as `torch.save` takes it."""


@dataclass(frozen=True)
class TrialEpoch:
    """What one epoch showed of one trial: its age after it, the metrics of its result so far, and why it ends, if it does.

    `metrics` are those of this epoch, `result` those of the state by which the trial is judged: the same, or the best
    epoch's if it stops early. Now and then there are `trends` of weights, updates and gradients.
    """

    number: int
    age: int
    metrics: dict[str, float]
    result: dict[str, float]
    end: str | None
    trends: dict[str, float] = field(default_factory=dict)


TRENDS = 10
"""How often trends are measured in a training."""


class Cohort(ABC):
    """Trials that share their age, batches and noise, and train for `steps` steps; a subclass trains them.

    Columns (`numbers`, `patience`, `best`, `best_age`) have an entry per trial. A step adds each trial's objective times
    the batch's rows to `objective`, shape (K,).
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
    def evaluate(self, batch: Batch) -> Sums:
        """Sums over a batch's rows per trial, in eval mode: (K, ...)."""

    @abstractmethod
    def state(self, number: int) -> Params:
        """State dict of the weights by which a trial is judged, for its `RegularizedModule` alone."""

    @abstractmethod
    def module(self, number: int) -> RegularizedModule:
        """A trial alone in the state by which it is judged, on the CPU; a copy."""

    @abstractmethod
    def watched(self, number: int) -> Steps:
        """What a trial's steps showed."""

    @abstractmethod
    def trends(self) -> dict[str, Tensor]:
        """How weights, updates and gradients stand, per trial: (K,)."""

    @abstractmethod
    def saved(self) -> Saved:
        """What its further training depends on; tensors are shared, not copied."""

    @abstractmethod
    def restore(self, saved: Saved) -> None:
        """Put a cohort of age 0, of some or all trials of a saved one of its kind, where that one was."""

    @abstractmethod
    def _keep_rows(self, rows: list[int]) -> None:
        """Drop the tensors of all other trials."""

    @abstractmethod
    def _keep_best(self, row: int) -> None:
        """Copy a trial's weights as its best so far."""

    def diagnosis(self, number: int, batch: Batch | None, epochs: int) -> Diagnosis:
        """What λ did to a trial so far; `batch` are validation rows, `epochs` those planned."""
        steps = self.watched(number)
        return diagnose(self.module(number), batch, steps, Span(len(steps.gradient_norms), self.steps, epochs))

    def keep(self, numbers: set[int]) -> None:
        """Drop all other trials: memory and time fall with them."""
        kept = [row for row, number in enumerate(self.numbers) if number in numbers]
        if len(kept) == len(self.numbers):
            return
        self._keep_rows(kept)
        for column in ("numbers", "patience", "best", "best_age"):
            setattr(self, column, [getattr(self, column)[row] for row in kept])

    def end_epoch(self, train: Sums, validation: Sums, epochs: int) -> list[TrialEpoch]:
        """Grow one epoch older and say how each trial stands."""
        self.age += 1
        columns = losses_and_gaps(self.task, train, validation)
        columns["loss/objective"] = torch.as_tensor(self.objective / self.rows_seen)
        self.objective, self.rows_seen = 0.0, 0
        seen = self.trends() if self.age % max(1, epochs // TRENDS) == 0 else {}
        table = {name: column.tolist() for name, column in columns.items()}
        trends = {name: column.tolist() for name, column in seen.items()}
        return [self._trial_epoch(row, _row(table, row), _row(trends, row), epochs) for row in range(len(self.numbers))]

    def _trial_epoch(self, row: int, metrics: dict[str, float], trends: dict[str, float], epochs: int) -> TrialEpoch:
        patient = self.patience[row] == math.inf
        if patient or metrics["loss/val"] < self.best[row].get("loss/val", math.inf):
            self.best[row], self.best_age[row] = metrics, self.age
            if not patient:
                self._keep_best(row)
        return TrialEpoch(self.numbers[row], self.age, metrics, self.best[row], self._end(row, metrics, epochs), trends)

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
        """Take up age and best results; the places of this cohort's trials in the saved one."""
        places = [saved["numbers"].index(number) for number in self.numbers]
        self.age = saved["age"]
        self.best, self.best_age = ([saved[key][place] for place in places] for key in ("best", "best_age"))
        return places


def _row(table: Mapping[str, list[float]], row: int) -> dict[str, float]:
    """One trial's numbers."""
    return {name: column[row] for name, column in table.items()}
