"""Validation of a user's module on training rows, where the module stands, without a trace in its training."""

from importlib import import_module
from typing import Any

from wdsearch.population.user.data_modules import adapted
from wdsearch.population.user.random_state import random_state, set_random_state
from wdsearch.population.user.silence import only_watches
from wdsearch.population.user.snapshot import Snapshot
from wdsearch.trial.loaders import train_eval_loader


class TrainingRows:
    """Training rows of a Trainer's data module, on which its module is validated.

    The Trainer's own validation loop runs over them: epoch, step, optimizers, schedulers, data module and callbacks are
    those of the training. Afterwards all of it is as before, random generators included.
    """

    def __init__(self) -> None:
        self._loader: Any = None

    def logged(self, trainer: Any, own: Any) -> tuple[dict[str, float], dict[str, bool]]:
        """Values that the module logs in validation of the training rows, and of torchmetrics if larger is better.

        To be called at the start of validation, before the callback `own` and others have acted.
        Raises ValueError if the data's training rows cannot be drawn, and whatever the module raises.
        """
        random = random_state()
        try:
            if self._loader is None:
                self._loader = train_eval_loader(adapted(import_module("lightning.pytorch"), trainer.datamodule))
            # through the handlers of signals the whole program can be reached, which goes on meanwhile
            apart = [trainer.datamodule, own, trainer._signal_connector, *trainer.loggers, *_loaders(trainer)]
            snapshot = Snapshot([trainer], apart)
            try:
                return self._validate(trainer, own)
            finally:
                snapshot.restore()
        finally:
            set_random_state(random)

    def _validate(self, trainer: Any, own: Any) -> tuple[dict[str, float], dict[str, bool]]:
        epoch_loop = trainer.fit_loop.epoch_loop
        validation = epoch_loop.val_loop
        loop = type(validation)(
            trainer, validation._trainer_fn, validation._stage, verbose=False, inference_mode=validation.inference_mode
        )
        count = validation.num_dataloaders
        loop._data_source.instance = self._loader if count == 1 else [self._loader] * count
        epoch_loop.val_loop = loop
        trainer.callbacks = [one for one in trainer.callbacks if one is not own and not only_watches(one)]
        trainer.save_checkpoint = _ignore
        connector = trainer._logger_connector
        before = dict(connector._callback_metrics)
        loop.run()
        logged = {name: value for name, value in connector._callback_metrics.items() if value is not before.get(name)}
        return numbers(logged), _directions(loop)


def numbers(logged: Any) -> dict[str, float]:
    """Logged values that are single numbers.

    >>> import torch
    >>> numbers({"val_loss": torch.tensor(0.5), "confusion": torch.ones(2, 2)})
    {'val_loss': 0.5}
    """
    return {name: float(value) for name, value in logged.items() if getattr(value, "numel", lambda: 1)() == 1}


def _loaders(trainer: Any) -> list[Any]:
    """Loaders and fetchers of batches in use, whose state is not a module's."""
    loops = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
    return [part for loop in loops for part in (loop._data_fetcher, loop._combined_loader) if part is not None]


def _directions(loop: Any) -> dict[str, bool]:
    """Of each logged object of torchmetrics, whether larger is better, if it says so."""
    metrics = {one.meta.name: one.value for one in loop._results.result_metrics if not one.is_tensor}
    known = {name: getattr(metric, "higher_is_better", None) for name, metric in metrics.items()}
    return {name: larger for name, larger in known.items() if larger is not None}


def _ignore(*_: Any, **__: Any) -> None:
    pass
