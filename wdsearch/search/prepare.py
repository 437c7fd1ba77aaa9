"""Builds a study's data and its trial factory before anything trains, with the libraries' own notes silenced."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
import torch

from wdsearch.datasets.examine import AUGMENTED, examine
from wdsearch.population.user.module import UserModules
from wdsearch.search.progress import SearchProgress
from wdsearch.study.build import build_data, check_trainer
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import StudyConfig

LIGHTNINGS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
"""Loggers of Lightning, under both of its names."""


def prepare(config: StudyConfig, progress: SearchProgress) -> TrialFactory:
    """Factory of a study's trials; what looks wrong with the data is warned of. Raises BuildError and DataError."""
    progress.say("preparing data")
    check_trainer(config)
    if config.trainer.threads != "auto":
        torch.set_num_threads(int(config.trainer.threads))
    factory = TrialFactory(config, build_data(config))
    if factory.augmented:
        progress.warn(f"data: {AUGMENTED}")
    for text in (
        []
        if factory.solo
        else examine(factory.data, factory.task.name, [*config.objective.goals, *config.objective.limits])
    ):
        progress.warn(f"data: {text}")
    factory.checked_baseline()
    for text in factory.notes:
        progress.warn(text)
    return factory


def user_modules(factory: TrialFactory) -> UserModules:
    """Training of a study's user-defined LightningModules, each by a Trainer of its own."""
    config, goals = factory.config, factory.config.objective
    options = config.trainer.model_dump(include={"accelerator", "devices", "precision"}) | config.trainer.options
    if config.trainer.devices > 1:  # a launcher that starts this program again would start the search again
        options = {"strategy": "ddp_spawn"} | options
    directions = dict.fromkeys(goals.minimize, False) | dict.fromkeys(goals.maximize, True)
    return UserModules(
        factory.data, config.budget.epochs, options, config.seed, {*goals.goals, *goals.limits}, directions
    )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence Optuna's and Lightning's notes, which are for those who call them directly."""
    verbosity = optuna.logging.get_verbosity()
    loggers = [logging.getLogger(name) for name in LIGHTNINGS]
    levels = [logger.level for logger in loggers]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(lightning|pytorch_lightning|lightning_fabric|optuna)\..*")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
