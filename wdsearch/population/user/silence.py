"""A logger that takes everything and keeps nothing, and callbacks that only watch: what a user's module may ask of a Trainer."""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

WATCHERS = ("Checkpoint", "EarlyStopping", "ProgressBar", "LearningRateMonitor", "DeviceStatsMonitor", "Timer")
"""Callbacks of Lightning that watch a training, and change nothing in what a module computes."""


class SilentExperiment:
    """Stands for the run of any logger: every call and attribute gives the experiment again; as a path it is `folder`.

    >>> run = SilentExperiment(Path("scratch"))
    >>> run.add_scalar("loss", 1.0) is run, run.config.update({"lr": 0.1}) is run, Path(run).name
    (True, True, 'scratch')
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def __getattr__(self, name: str) -> "SilentExperiment":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: Any, **__: Any) -> "SilentExperiment":
        return self

    def __getitem__(self, _: Any) -> "SilentExperiment":
        return self

    def __setitem__(self, *_: Any) -> None:
        pass

    def __iter__(self) -> Any:
        return iter(())

    def __enter__(self) -> "SilentExperiment":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def __fspath__(self) -> str:
        return self._folder

    __str__ = __fspath__


class _Logger:
    """Lightning's own DummyLogger, which it uses for trial runs, with a folder and with the experiment of any logger."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._experiment = SilentExperiment(folder)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return super().__getattr__(name)  # type: ignore[misc]

    def __reduce__(self) -> Any:
        return silent_logger, (type(self).__module__, self._folder)

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    log_dir = root_dir = save_dir


def silent_logger(framework: str, folder: Path) -> Any:
    """Logger for a Trainer of `lightning.pytorch` or `pytorch_lightning`; files that a module writes belong in `folder`.

    >>> logger = silent_logger("lightning.pytorch", Path("scratch"))
    >>> logger.experiment.add_scalar("loss", 1.0), logger.log_metrics({"loss": 1.0}), logger.log_dir  # doctest: +ELLIPSIS
    (<...SilentExperiment object at ...>, None, 'scratch')
    """
    return _kind(framework)(folder)


@cache
def _kind(framework: str) -> Any:
    base = import_module(f"{framework}.loggers.logger").DummyLogger
    return type("SilentLogger", (_Logger, base), {"__module__": framework})


def only_watches(callback: Any) -> bool:
    """True for a callback of Lightning's that changes nothing in what a module computes.

    >>> from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
    >>> only_watches(EarlyStopping("val_loss")), only_watches(WeightAveraging())
    (True, False)
    """
    return any(base.__name__ in WATCHERS for base in type(callback).__mro__)
