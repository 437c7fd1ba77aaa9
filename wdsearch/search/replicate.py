"""Trains configurations again on fresh seeds, all of one seed in one population, whatever for."""

import copy
import gc
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import lightning as L
from torch import Tensor

from wdsearch.datasets import ArrayDataModule
from wdsearch.noise import derive_seed
from wdsearch.population.memory import available, device_of, footprint, is_out_of_memory
from wdsearch.population.population import Population
from wdsearch.population.training import Training, TrainingCallback
from wdsearch.study.build import population_trainer
from wdsearch.study.factory import TrialFactory
from wdsearch.study.schema import StudyConfig
from wdsearch.study.space import Configuration
from wdsearch.trial.result import Metrics, Result, flat


@dataclass(frozen=True)
class Replica:
    """Result of a configuration with one fresh seed: why and after how many epochs it ended, metrics, its network's measures."""

    end: str
    epochs: int
    metrics: Metrics
    measures: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Fields, for Optuna's attributes."""
        return asdict(self)


Measure = Callable[[Training, int], dict[str, float]]
Watch = Callable[[float], None]


def measures_of(training: Training, number: int) -> dict[str, float]:
    """The network-wide diagnostics of a trial that has just ended; none of a network that cannot be looked at."""
    with suppress(Exception):  # whatever a user's network raises
        return training.diagnosis(number).whole
    return {}


def replicate(
    config: StudyConfig,
    data: L.LightningDataModule,
    configurations: Mapping[str, Configuration],
    seed: int,
    watch: Watch = lambda share: None,
    measure: Measure = measures_of,
) -> dict[str, Replica]:
    """Train configurations with one fresh seed; the replica of each, by its name.

    Fresh seeds are counted from 0. One changes initial weights, the order of the data and the noise, not the split; a network
    given as an object keeps its initial weights. No result depends on which other configurations are trained beside it.
    `watch` hears every few steps which share is done; what it raises ends the training. `measure` is called for each trial
    when it ends, while its weights are still there.

    Raises BuildError for a network that cannot be built.
    """
    factory = TrialFactory(*reseeded(config, data, seed))
    max_fused = _max_fused(factory, configurations)
    while True:
        try:
            return _trained(
                factory, configurations, max_fused, _Ends(configurations, config.budget.epochs, watch, measure)
            )
        except Exception as error:
            if max_fused == 1 or not is_out_of_memory(error):
                raise
        max_fused = max(1, max_fused // 2)
        gc.collect()  # Trainer and population refer to each other, and would keep their memory


def configuration_of(result: Result) -> Configuration:
    """Configuration that a trial had."""
    return Configuration(result.lr, result.strengths, result.model)


def trained_again(
    factory: TrialFactory, settings: Configuration, watch: Watch = lambda share: None
) -> tuple[Metrics, dict[str, Tensor]]:
    """Metrics and weights of a trial trained as it was: with the study's own seed. `watch` is as in `replicate`."""
    states: dict[str, Tensor] = {}

    def take(training: Training, number: int) -> dict[str, float]:
        states.update(training.state(number))
        return {}

    replicas = _trained(factory, {"": settings}, 1, _Ends([""], factory.config.budget.epochs, watch, take))
    return replicas[""].metrics, states


def reseeded(config: StudyConfig, data: L.LightningDataModule, seed: int) -> tuple[StudyConfig, L.LightningDataModule]:
    """A study and its data with a fresh seed: the same rows in every part, in another order."""
    fresh = derive_seed(config.seed, "replicate", seed)
    if isinstance(data, ArrayDataModule):  # others have no order of their own: the population draws it
        data = copy.copy(data)
        data.seed = fresh
    return config.model_copy(update={"seed": fresh}), data


def _max_fused(factory: TrialFactory, configurations: Mapping[str, Configuration]) -> int:
    """Number of trials in a call: all, or as many as the study allows or memory holds."""
    trainer, count = factory.config.trainer, len(configurations)
    limit = count if trainer.population == "auto" else min(count, trainer.population)
    module = factory.module(next(iter(configurations.values())))
    batch = next(iter(factory.data.train_dataloader()))
    needed = footprint(module, batch, stops_early="early_stopping" in factory.config.space)
    return needed.max_fused(count, limit, available(device_of(trainer.accelerator)))


def _trained(
    factory: TrialFactory, configurations: Mapping[str, Configuration], max_fused: int, ends: "_Ends"
) -> dict[str, Replica]:
    """Every configuration, trained to its end in one population; those of one network with the same keys share a cohort."""
    config = factory.config
    population = Population(factory.data, config.budget.epochs, max_fused, config.seed)
    networks: dict[str, dict[int, Configuration]] = {}
    for number, settings in enumerate(configurations.values()):
        alike = repr((sorted(settings.model.items()), sorted(settings.strengths)))
        networks.setdefault(alike, {})[number] = settings
    for members in networks.values():
        alone = factory.why_alone(next(iter(members.values())).model)
        modules = {number: factory.module(settings) for number, settings in members.items()}
        population.admit(modules, fuse=alone is None)
    population_trainer(config.trainer, ends).fit(population)
    return ends.replicas


class _Ends(TrainingCallback):
    """Records how each trial ends, and reports to the watcher how far the population is."""

    def __init__(self, names: Iterable[str], epochs: int, watch: Watch, measure: Measure) -> None:
        self.names, self.epochs, self.watch, self.measure = list(names), epochs, watch, measure
        self.done = dict.fromkeys(range(len(self.names)), 0)
        self.replicas: dict[str, Replica] = {}

    def check(self) -> None:
        """Report to the watcher, which may raise."""
        self.watch(sum(self.done.values()) / (self.epochs * len(self.names)))

    def end_epoch(self, training: Training) -> None:
        """Record the trials that end."""
        for number, epoch in training.trial_epochs.items():
            self.done[number] = self.epochs if epoch.end else epoch.age
            if epoch.end:
                metrics = {name: value for name, value in flat(epoch.result).items() if isfinite(value)}
                measures = self.measure(training, number)
                self.replicas[self.names[number]] = Replica(epoch.end, epoch.age, metrics, measures)
        self.check()
