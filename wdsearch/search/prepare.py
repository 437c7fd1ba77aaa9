"""Builds a study's data and its trial factory before anything trains, with the libraries' own notes silenced."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import torch

from wdsearch.datasets.examine import AUGMENTED, examine
from wdsearch.search.progress import SearchProgress
from wdsearch.study.build import build_data, check_trainer
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig


def prepare(config: StudyConfig, progress: SearchProgress) -> TrialFactory:
    """Factory of a study's trials; what looks wrong with the data is warned of. Raises BuildError and DataError."""
    progress.say("preparing data")
    check_trainer(config)
    if config.trainer.threads != "auto":
        torch.set_num_threads(int(config.trainer.threads))
    factory = TrialFactory(config, build_data(config))
    if factory.augmented:
        progress.warn(f"data: {AUGMENTED}")
    for text in [] if factory.solo else examine(factory.data, factory.task.name):
        progress.warn(f"data: {text}")
    factory.checked_baseline()
    for text in factory.notes:
        progress.warn(f"model: {text}")
    return factory


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence Optuna's and Lightning's notes, which are for those who call them directly."""
    verbosity, logger = optuna.logging.get_verbosity(), logging.getLogger("lightning.pytorch")
    level = logger.level
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*|optuna\..*")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        logger.setLevel(level)
