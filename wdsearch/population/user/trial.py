"""One user-defined LightningModule in training by its own Trainer, in a thread that waits between epochs."""

import io
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wdsearch.errors import WdsearchError
from wdsearch.population.user.data_modules import data_for
from wdsearch.population.user.framework import foreign_callbacks, framework_of
from wdsearch.population.user.random_state import RandomState, random_state, set_random_state
from wdsearch.population.user.silence import silent_logger
from wdsearch.population.user.training_rows import TrainingRows, numbers
from wdsearch.population.user.user_error import described
from wdsearch.types import Params

GO, END, STATE = "go", "end", "state"
QUIET: dict[str, Any] = {
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
REHEARSAL: dict[str, Any] = {
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "check_val_every_n_epoch": 1,
    "num_sanity_val_steps": 0,
}
"""Options of a Trainer that tries a module."""


class TrainingError(WdsearchError):
    """A user-defined LightningModule that cannot be trained."""

    exit_code = 1


class AbandonedError(Exception):
    """Signal between threads that ends a training; never shown to a user."""


@dataclass(frozen=True)
class LoggedEpoch:
    """Values that a module has logged by the end of an epoch, and those of the last validation on training rows.

    `larger` says of torchmetrics' objects whether larger is better; `validated` is true once a validation has run, `current`
    if no training batch has followed it, `learns` once a training step has returned a loss (or optimizes by hand), `stops` if
    its Trainer ends after this epoch; `unmeasured` tells why there are no values on training rows.
    """

    values: dict[str, float]
    train: dict[str, float]
    larger: dict[str, bool] = field(default_factory=dict)
    validated: bool = True
    current: bool = True
    learns: bool = True
    stops: bool = False
    unmeasured: str = ""


class _Reporter:
    """Sends the logged values after each epoch, and waits for a command.

    With several processes the first one sends, and the command is broadcast.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection, self.rows = connection, TrainingRows()
        self.abandoned = self.validated = self.current = self.learns = False
        self.train: dict[str, float] = {}
        self.larger: dict[str, bool] = {}
        self.unmeasured = ""

    def __reduce__(self) -> Any:
        """In a child process, where Lightning's messages are silenced as well."""
        return reporter, (type(self).__module__, self.connection, True)

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        loop = trainer.fit_loop  # callbacks' own last hook comes before those of early stopping and of schedulers
        loop.on_advance_end = partial(self._end_epoch, trainer, module, loop.on_advance_end)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.current = False
        self.learns |= bool(outputs) or not module.automatic_optimization
        self.on_validation_batch_end()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        if self.abandoned:
            raise AbandonedError

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        """Validate the training rows, before the validation changes anything."""
        if trainer.sanity_checking:
            return
        self.validated = self.current = True
        self.train, self.unmeasured = {}, ""
        try:
            self.train, self.larger = self.rows.logged(trainer, self)
        except AbandonedError:
            raise
        except Exception as error:  # whatever a user's module raises; the validation itself goes on
            self.unmeasured = described(error)

    def _end_epoch(self, trainer: Any, module: Any, end: Callable[[], None]) -> None:
        end()
        values = numbers(trainer.callback_metrics)
        processed = trainer.fit_loop.epoch_progress.current.processed
        stops = trainer.should_stop or processed >= trainer.max_epochs  # to which callbacks may have added
        if trainer.is_global_zero:
            state = (self.validated, self.current, self.learns, stops)
            self.connection.send(LoggedEpoch(values, self.train, self.larger, *state, self.unmeasured))
        if not stops:
            trainer.should_stop |= trainer.strategy.broadcast(self._command(trainer, module)) == END

    def _command(self, trainer: Any, module: Any) -> str:
        word = ""
        if trainer.is_global_zero:
            while (word := self.connection.recv()) == STATE:
                self.connection.send_bytes(_packed(module.state_dict()))
        return word


def reporter(framework: str, connection: Connection, quiet: bool = False) -> Any:
    """Callback of `lightning.pytorch` or `pytorch_lightning` that reports through a connection.

    >>> import lightning as L
    >>> isinstance(reporter("lightning.pytorch", Pipe()[0]), L.Callback)
    True
    """
    if quiet:
        for name in (framework, "lightning.fabric", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"(lightning|pytorch_lightning|lightning_fabric)\..*")
    return _reporter_kind(framework)(connection)


@cache
def _reporter_kind(framework: str) -> Any:
    return type("Reporter", (_Reporter, import_module(framework).Callback), {"__module__": framework})


class UserTrial:
    """Training of one module, in a thread that waits between epochs; with several devices in processes of their own.

    Files that the module writes without saying where lie in a temporary folder, which goes with the training.
    """

    def __init__(self, module: Any, data: Any, epochs: int, options: Mapping[str, Any], seed: int) -> None:
        self.module, self.epochs, self.options, self.seed = module, epochs, options, seed
        self.framework = framework_of(module)
        self.data = data_for(self.framework, data)
        self.age = 0
        self._error: BaseException | None = None
        self._foreign: list[str] = []
        self._random: RandomState | None = None
        self._connection, reporters_end = Pipe()
        self._reporter = reporter(self.framework.__name__, reporters_end)
        self._folder = tempfile.TemporaryDirectory(prefix="wdsearch-", ignore_cleanup_errors=True)
        self._thread = threading.Thread(target=self._train, daemon=True)

    @property
    def name(self) -> str:
        """Name of the module's class."""
        return type(self.module).__name__

    def _train(self) -> None:
        folder, trainer = Path(self._folder.name), None
        try:
            self.framework.seed_everything(self.seed, verbose=False)
            options = {"default_root_dir": folder} | QUIET | dict(self.options)
            logger = silent_logger(self.framework.__name__, folder)
            trainer = self.framework.Trainer(
                max_epochs=self.epochs, callbacks=[self._reporter], logger=logger, **options
            )
            trainer.fit(self.module, datamodule=self.data)
        except AbandonedError:
            pass
        except BaseException as error:  # told by the waiting thread
            self._error, self._foreign = error, foreign_callbacks(trainer) if trainer else []

    def epoch(self, check: Callable[[], None]) -> LoggedEpoch:
        """Train one epoch; those before the first validation at once, and those that a callback adds with the last.

        `check` is called at the start and while waiting; an error that it raises ends the epoch. Raises TrainingError.
        """
        logged = self._one_epoch(check)
        while not logged.stops and (not logged.validated or self.age >= self.epochs):
            logged = self._one_epoch(check)
        if not logged.learns:
            text = "training_step has returned no loss in an epoch"
            raise TrainingError(
                f"model: {self.name} does not learn: {text}; return one, or set "
                "self.automatic_optimization = False and step the optimizers in it"
            )
        return logged

    def _one_epoch(self, check: Callable[[], None]) -> LoggedEpoch:
        check()
        if self._random is None:
            os.environ.pop("MASTER_PORT", None)  # Lightning's choice for another trial's processes
            self._thread.start()
        else:
            set_random_state(self._random)
            self._connection.send(GO)
        while not self._connection.poll(0.05):
            check()
            if not self._thread.is_alive() and not self._connection.poll():
                raise self._failure() from self._error
        logged: LoggedEpoch = self._connection.recv()
        if logged.stops:
            self._finish(check)
        self._random, self.age = random_state(), min(self.age + 1, self.epochs)
        return logged

    def _finish(self, check: Callable[[], None]) -> None:
        """Let the training end: its last hooks may change the weights, as averages of weights do."""
        while self._thread.is_alive():
            self._thread.join(timeout=0.05)
            check()
        if self._error is not None:
            raise self._failure() from self._error

    def _failure(self) -> TrainingError:
        if self._error is None:
            return TrainingError(
                f"model: the training of {self.name} ended without an epoch; has the data any batches?"
            )
        text = f"model: {self.name} fails in training: {described(self._error)}"
        if self._foreign:
            names, package = " and ".join(self._foreign), self.framework.__name__.removesuffix(".pytorch")
            text += f"; the module is of {package}, and of the other package {names}: import all from {package}"
        return TrainingError(text)

    def state(self) -> Params:
        """State dict of the module between two epochs, or after the training."""
        if self._thread.is_alive():
            self._connection.send(STATE)
            packed = self._connection.recv_bytes()
        else:
            packed = _packed(self.module.state_dict())
        content: Params = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)
        return content

    def end(self) -> None:
        """Stop the training, at the latest after the current batch."""
        self._reporter.abandoned = True
        if self._thread.is_alive():
            self._connection.send(END)
            self._thread.join(timeout=60.0)
        self._connection.close()
        self._folder.cleanup()


def _packed(state: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    plain = {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in state.items()}
    torch.save(plain, buffer)
    return buffer.getvalue()
