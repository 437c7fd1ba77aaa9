"""Protocol between trials in training and the callback that prunes and admits them; also for user-defined modules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import lightning as L

from wdsearch.population.cohort import Cohort, Saved, TrialEpoch
from wdsearch.trial.result import Diagnosis
from wdsearch.types import Params


@runtime_checkable
class Training(Protocol):
    """Trials in training; `trial_epochs` holds each trial's last epoch by number.

    It calls its TrainingCallback at the start, during every epoch, and after each epoch of all trials. Trials that have ended
    leave at the end of the epoch, and training is over when none is left.
    """

    trial_epochs: dict[int, TrialEpoch]
    cohorts: list[Cohort]

    def admit(self, trials: Mapping[int, Any], saved: Saved | None = None, fuse: bool = True) -> None:
        """Let trials of one network join at the next epoch, from the start or from a saved state."""

    def prune(self, numbers: set[int]) -> None:
        """Remove trials immediately."""

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
        """Called in every epoch, after each batch or more often; raises an exception to abort the training."""

    @abstractmethod
    def end_epoch(self, training: Training) -> None:
        """Prune and admit trials according to `training.trial_epochs`."""

    def on_fit_start(self, trainer: L.Trainer, population: Any) -> None:
        self.begin(population)

    def on_train_batch_end(self, *_: Any) -> None:
        self.check()

    def on_train_epoch_end(self, trainer: L.Trainer, population: Any) -> None:
        self.end_epoch(population)
