"""The protocol between trials in training and who decides about them: one for a population and for user-defined modules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import lightning as L

from wdsearch.population.cohort import Cohort, Saved, TrialEpoch
from wdsearch.trial.result import Diagnosis
from wdsearch.types import Params


@runtime_checkable
class Training(Protocol):
    """Trials in training; `trial_epochs` holds what the last epoch showed of each, by number.

    It calls its TrainingCallback once at the beginning, with each batch, and at the end of each epoch of all trials. Trials that
    end by themselves leave after the epoch's end, and the training is over when none is left.
    """

    trial_epochs: dict[int, TrialEpoch]
    cohorts: list[Cohort]

    def admit(self, trials: Mapping[int, Any], saved: Saved | None = None, fuse: bool = True) -> None:
        """Let trials of one network join at the next epoch: new ones, or where a saved cohort was."""

    def prune(self, numbers: set[int]) -> None:
        """Let trials leave now."""

    def state(self, number: int) -> Params:
        """State dict of a live trial's judged weights."""
        ...

    def diagnosis(self, number: int) -> Diagnosis:
        """Effect of λ on a live trial's weights."""
        ...


class TrainingCallback(L.Callback, ABC):
    """Decides at the end of each epoch which trials leave and which join; Lightning calls it for a population."""

    def begin(self, training: Training) -> None:
        """Let the first trials join."""

    def check(self) -> None:
        """Raise what ends the training now, if anything does; called with each batch."""

    @abstractmethod
    def end_epoch(self, training: Training) -> None:
        """Prune and admit by what `training.trial_epochs` shows."""

    def on_fit_start(self, trainer: L.Trainer, population: Any) -> None:
        self.begin(population)

    def on_train_batch_end(self, *_: Any) -> None:
        self.check()

    def on_train_epoch_end(self, trainer: L.Trainer, population: Any) -> None:
        self.end_epoch(population)
