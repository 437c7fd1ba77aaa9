"""Training of user-defined LightningModules, each by its own Trainer, in turns of one epoch."""

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from wdsearch.errors import WdsearchError
from wdsearch.noise import derive_seed
from wdsearch.population.cohort import Cohort, Saved, TrialEpoch
from wdsearch.population.training import TrainingCallback
from wdsearch.population.user.logged_names import metrics_of
from wdsearch.population.user.trial import REHEARSAL, LoggedEpoch, UserTrial
from wdsearch.trial.diagnostics import diagnose_weights
from wdsearch.trial.result import DIVERGED, FINISHED, STOPPED_EARLY, Diagnosis, flat_name, metric_named
from wdsearch.types import Params


class NotLoggedError(WdsearchError):
    """An objective that a LightningModule does not log in validation."""

    exit_code = 1


class UserModules:
    """User-defined LightningModules in training; implements `Training`, and `fit` trains all admitted trials.

    `goals` names the logged values that the objective needs; `directions` says of some whether larger is better.
    """

    def __init__(
        self,
        data: Any,
        epochs: int,
        options: Mapping[str, Any],
        seed: int = 0,
        goals: Collection[str] = (),
        directions: Mapping[str, bool] | None = None,
    ) -> None:
        self.data, self.epochs, self.options, self.seed = data, epochs, options, seed
        self.goals, self.directions = goals, dict(directions or {})
        self.cohorts: list[Cohort] = []
        self.trial_epochs: dict[int, TrialEpoch] = {}
        self._trials: dict[int, UserTrial] = {}

    def admit(self, trials: Mapping[int, Any], saved: Saved | None = None, fuse: bool = False) -> None:
        """Let trials join at the next epoch; they are never fused, and have no saved state between epochs."""
        for number, module in trials.items():
            self._trials[number] = self._begun(module, self.epochs, self.options)

    def _begun(self, module: Any, epochs: int, options: Mapping[str, Any]) -> UserTrial:
        return UserTrial(module, self.data, epochs, options, derive_seed(self.seed, "solo") % 2**32)

    def rehearse(self, module: Any) -> dict[str, float]:
        """Metrics of a module that trains two batches and validates one; nothing of it is kept.

        Raises TrainingError, and NotLoggedError if the objective is not logged.
        """
        limits = {name: value for name, value in self.options.items() if name not in _CADENCE} | REHEARSAL
        trial = self._begun(module, 1, limits)
        try:
            return self._metrics(trial, trial.epoch(_no_check))
        finally:
            trial.end()

    def prune(self, numbers: set[int]) -> None:
        """Remove trials immediately."""
        for number in numbers & self._trials.keys():
            self._trials.pop(number).end()

    def state(self, number: int) -> Params:
        """State dict of a trial in training."""
        return self._trials[number].state()

    def diagnosis(self, number: int) -> Diagnosis:
        """Measures of the weights only: a user-defined module shows nothing else."""
        return diagnose_weights(self._trials[number].module, self.state(number))

    def fit(self, callback: TrainingCallback) -> None:
        """Train until no trial is left; the callback prunes and admits trials after each epoch."""
        try:
            callback.begin(self)
            while self._trials:
                self.trial_epochs = {number: self._epoch(number, callback.check) for number in self._trials}
                callback.end_epoch(self)
                self.prune({number for number, epoch in self.trial_epochs.items() if epoch.end})
        finally:
            self.prune(set(self._trials))

    def _epoch(self, number: int, check: Callable[[], None]) -> TrialEpoch:
        trial = self._trials[number]
        logged = trial.epoch(check)
        metrics = self._metrics(trial, logged)
        end = None
        known = {flat_name(name): value for name, value in metrics.items()}
        if not all(np.isfinite(metric_named(known, goal) or 0.0) for goal in self.goals):
            end = DIVERGED
        elif trial.age >= self.epochs:
            end = FINISHED
        elif logged.stops:
            end = STOPPED_EARLY
        if end and not logged.current:
            text = (
                f"{trial.name} trained on after its last validation, which saw other weights than those that are kept"
            )
            warnings.warn(f"model: {text}; let its Trainer validate at the end of an epoch", stacklevel=2)
        return TrialEpoch(number, trial.age, metrics, metrics, end)

    def _metrics(self, trial: UserTrial, logged: LoggedEpoch) -> dict[str, float]:
        """Metrics of an epoch. Raises NotLoggedError."""
        metrics = metrics_of(logged.values, logged.train, logged.larger | self.directions, self.goals)
        if logged.unmeasured:
            text = f"training rows cannot be validated: {logged.unmeasured}"
            warnings.warn(f"model: the gap of {trial.name} is not measured, for {text}", stacklevel=2)
        known = {flat_name(name): value for name, value in metrics.items()}
        missing = [goal for goal in self.goals if metric_named(known, goal) is None]
        if missing:
            raise NotLoggedError(_not_logged(trial.name, missing, {*known, *logged.values}, logged))
        return metrics


_CADENCE = {
    "val_check_interval",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "limit_val_batches",
    "overfit_batches",
}
"""Options of a Trainer that say how much it trains, and when it validates."""


def _no_check() -> None:
    pass


def _not_logged(name: str, missing: list[str], known: Collection[str], logged: LoggedEpoch) -> str:
    text = f"objective names {' and '.join(missing)}, which the module does not log in validation"
    remedy = f'self.log("{missing[0]}", ...) in validation_step of {name}, or another objective'
    if not logged.validated:
        text += "; no validation has run: it needs a validation_step, and the data a val_dataloader"
    if logged.unmeasured:
        text += f"; training rows cannot be validated: {logged.unmeasured}"
    return f"{text}; it logs {', '.join(sorted(known)) or 'nothing'}; what to do: {remedy}"
