"""Training of user-defined LightningModules, each by its own Trainer, in turns of one epoch."""

import copy
import io
import logging
import os
import random
import re
import threading
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import lightning as L
import numpy as np
import torch

from wdsearch.errors import WdsearchError
from wdsearch.noise import derive_seed
from wdsearch.population.cohort import Cohort, Saved, TrialEpoch
from wdsearch.population.training import TrainingCallback
from wdsearch.trial.diagnostics import diagnose_weights
from wdsearch.trial.loaders import train_eval_loader
from wdsearch.trial.result import DIVERGED, FINISHED, STOPPED_EARLY, Diagnosis, flat_name
from wdsearch.types import Params

GO, END, STATE = "go", "end", "state"
SIDES = re.compile(r"^(?:validation|valid|val)[_/ ]")
SMALLER_IS_BETTER = re.compile(r"loss|err|mse|mae|nll|perplexity|ppl|entropy|distance", re.IGNORECASE)
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


RandomState = tuple[Any, ...]


class NotLoggedError(WdsearchError):
    """An objective that a LightningModule does not log in validation."""

    exit_code = 1


class AbandonedError(Exception):
    """Signal between threads that ends a training; never shown to a user."""


@dataclass(frozen=True)
class LoggedEpoch:
    """Values that a module logged in validation after one epoch, on validation rows and on training rows.

    `stops` is true if its Trainer ends after this epoch.
    """

    validation: dict[str, float]
    train: dict[str, float]
    stops: bool


class Reporter(L.Callback):
    """Sends the values logged in validation after each epoch, and waits for a command.

    With several processes the first one sends, and the command is broadcast. The training rows are evaluated on a copy of
    the module, so that training is not affected.
    """

    def __init__(self, connection: Connection, options: Mapping[str, Any]) -> None:
        self.connection, self.options = connection, options
        self.abandoned = False

    def on_train_batch_end(self, *_: Any) -> None:
        if self.abandoned:
            raise AbandonedError

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items() if value.numel() == 1}
        train = self._on_training_rows(trainer, module)
        word = ""
        if trainer.is_global_zero:
            self.connection.send(LoggedEpoch(logged, train, trainer.should_stop))
            while (word := self.connection.recv()) == STATE:
                self.connection.send_bytes(_packed(module.state_dict()))
        trainer.should_stop |= trainer.strategy.broadcast(word) == END

    def _on_training_rows(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
        attached, module._trainer = module._trainer, None
        try:
            twin = copy.deepcopy(module)
        finally:
            module._trainer = attached
        devices: Any = 1 if module.device.index is None else [module.device.index]
        evaluator = L.Trainer(**self.options, **QUIET, devices=devices)
        before = _random_state()
        (logged,) = evaluator.validate(twin, train_eval_loader(trainer.datamodule), verbose=False)  # type: ignore[attr-defined]
        _set_random_state(before)
        return {name: float(value) for name, value in logged.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Silence Lightning's messages in a child process as well."""
        self.__dict__.update(state)
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\..*")


class UserTrial:
    """Training of one module, in a thread that waits between epochs; with several devices in processes of their own."""

    def __init__(
        self, module: L.LightningModule, data: L.LightningDataModule, epochs: int, options: Mapping[str, Any], seed: int
    ) -> None:
        self.module, self.data, self.epochs, self.options, self.seed = module, data, epochs, options, seed
        self.age = 0
        self._error: BaseException | None = None
        self._random: RandomState | None = None
        self._connection, reporters_end = Pipe()
        shared = {name: options[name] for name in ("accelerator", "precision") if name in options}
        self._reporter = Reporter(reporters_end, shared)
        self._thread = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        try:
            L.seed_everything(self.seed, verbose=False)
            trainer = L.Trainer(
                max_epochs=self.epochs,
                callbacks=[self._reporter],
                num_sanity_val_steps=0,
                **QUIET,
                **self.options,
            )
            trainer.fit(self.module, datamodule=self.data)
        except AbandonedError:
            pass
        except BaseException as error:  # raised again in the waiting thread
            self._error = error

    def epoch(self, check: Callable[[], None]) -> LoggedEpoch:
        """Train one epoch. `check` is called at the start and while waiting; an error that it raises ends the epoch."""
        check()
        if self._random is None:
            os.environ.pop("MASTER_PORT", None)  # Lightning's choice for another trial's processes
            self._thread.start()
        else:
            _set_random_state(self._random)
            self._connection.send(GO)
        while not self._connection.poll(0.05):
            check()
            if not self._thread.is_alive() and not self._connection.poll():
                raise self._error or RuntimeError("training ended without a validation epoch")
        logged: LoggedEpoch = self._connection.recv()
        self._random, self.age = _random_state(), self.age + 1
        return logged

    def state(self) -> Params:
        """State dict of the module between two epochs."""
        self._connection.send(STATE)
        return torch.load(io.BytesIO(self._connection.recv_bytes()), map_location="cpu", weights_only=True)

    def end(self) -> None:
        """Stop the training, at the latest after the current batch."""
        self._reporter.abandoned = True
        if self._thread.is_alive():
            self._connection.send(END)
            self._thread.join(timeout=60.0)
        self._connection.close()


class UserModules:
    """User-defined LightningModules in training; implements `Training`, and `fit` trains all admitted trials.

    `goals` names the logged values that the objective needs, `maximized` those for which larger is better.
    """

    def __init__(
        self,
        data: L.LightningDataModule,
        epochs: int,
        options: Mapping[str, Any],
        seed: int = 0,
        goals: Collection[str] = (),
        maximized: Collection[str] = (),
    ) -> None:
        self.data, self.epochs, self.options, self.seed = data, epochs, options, seed
        self.goals, self.maximized = goals, maximized
        self.cohorts: list[Cohort] = []
        self.trial_epochs: dict[int, TrialEpoch] = {}
        self._trials: dict[int, UserTrial] = {}

    def admit(self, trials: Mapping[int, L.LightningModule], saved: Saved | None = None, fuse: bool = False) -> None:
        """Let trials join at the next epoch; they are never fused, and have no saved state between epochs."""
        seed = derive_seed(self.seed, "solo") % 2**32
        for number, module in trials.items():
            self._trials[number] = UserTrial(module, self.data, self.epochs, self.options, seed)

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
        metrics = self._metrics(logged)
        end = None
        if not all(np.isfinite(logged.validation[name]) for name in self.goals if name in logged.validation):
            end = DIVERGED
        elif trial.age >= self.epochs:
            end = FINISHED
        elif logged.stops:
            end = STOPPED_EARLY
        return TrialEpoch(number, trial.age, metrics, metrics, end)

    def _metrics(self, logged: LoggedEpoch) -> dict[str, float]:
        """Metrics `loss/train`, `loss/val`, `loss/gap` and so on of values logged in validation; others by their names."""
        metrics: dict[str, float] = {}
        for name, on_training_rows in logged.train.items():
            quantity, sign = SIDES.sub("", name), 1.0 if self._smaller_is_better(name) else -1.0
            on_validation_rows = logged.validation[name]
            metrics[f"{quantity}/train"] = on_training_rows
            metrics[f"{quantity}/val"] = on_validation_rows
            metrics[f"{quantity}/gap"] = sign * (on_validation_rows - on_training_rows)
        flat_names = {flat_name(name) for name in metrics}
        metrics |= {name: value for name, value in logged.validation.items() if name not in flat_names}
        missing = [goal for goal in self.goals if goal not in flat_names | metrics.keys()]
        if missing:
            text = f"objective names {' and '.join(missing)}, which the module does not log in validation"
            known = ", ".join(sorted(flat_names | logged.validation.keys())) or "nothing"
            raise NotLoggedError(f"{text}; it logs {known}")
        return metrics

    def _smaller_is_better(self, name: str) -> bool:
        if name in self.maximized:
            return False
        return bool(SMALLER_IS_BETTER.search(name))


def _packed(state: Params) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: value.detach().cpu() for name, value in state.items()}, buffer)
    return buffer.getvalue()


def _random_state() -> RandomState:
    """States of the random generators of Python, NumPy and torch."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_state(state: RandomState) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3]:
        torch.cuda.set_rng_state_all(state[3])
