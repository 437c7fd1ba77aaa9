"""Trials trained as one population, and each alone by plain Lightning; how far they are apart."""

import math
from collections.abc import Callable, Mapping

import lightning as L
import torch

from wdsearch.population.cohort import TrialEpoch
from wdsearch.population.population import Population
from wdsearch.trial.module import RegularizedModule

INF = math.inf


class Ends(L.Callback):
    """Keeps each trial's epochs and, when it ends, its weights; prunes and admits as told."""

    def __init__(
        self,
        prune: Mapping[int, int] | None = None,
        admit: Mapping[int, Callable[[], dict[int, RegularizedModule]]] | None = None,
    ) -> None:
        self.prune, self.admit = prune or {}, admit or {}
        self.epochs: dict[int, list[TrialEpoch]] = {}
        self.states: dict[int, dict[str, torch.Tensor]] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        assert isinstance(population, Population)
        pruned = set()
        for number, epoch in population.trial_epochs.items():
            self.epochs.setdefault(number, []).append(epoch)
            if self.prune.get(number) == epoch.age:
                pruned.add(number)
            if epoch.end or number in pruned:
                self.states[number] = population.state(number)
        population.prune(pruned)
        if trainer.current_epoch in self.admit:
            population.admit(self.admit[trainer.current_epoch]())


def quiet_trainer(epochs: int, precision: str = "64-true", **options: object) -> L.Trainer:
    """A Trainer that prints and writes nothing."""
    return L.Trainer(
        max_epochs=epochs,
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **{"accelerator": "cpu"} | options,  # type: ignore[arg-type]
    )


def train_fused(
    trials: Mapping[int, RegularizedModule],
    data: L.LightningDataModule,
    epochs: int,
    ends: Ends | None = None,
    max_fused: int = 32,
    precision: str = "64-true",
    fuse: bool = True,
    **options: object,
) -> Ends:
    """Train trials as one population; `options` are the Trainer's."""
    ends = ends or Ends()
    population = Population(data, epochs, max_fused)
    population.admit(trials, fuse=fuse)
    quiet_trainer(-1, precision, callbacks=[ends], **options).fit(population)
    return ends


def train_alone(
    module: RegularizedModule,
    data: L.LightningDataModule,
    epochs: int,
    stop_after: int = 0,
    precision: str = "64-true",
    **options: object,
) -> L.Trainer:
    """Train one trial by plain Lightning; `stop_after` ends it early, with the schedule of all `epochs`."""
    callbacks = [_StopAfter(stop_after)] if stop_after else []
    trainer = quiet_trainer(epochs, precision, callbacks=callbacks, **options)
    trainer.fit(module, datamodule=data)
    return trainer


def distance_from_alone(
    ends: Ends, build: Callable[[int], RegularizedModule], data: L.LightningDataModule, epochs: int, **options: object
) -> float:
    """Largest difference, in weights or metrics, between trials that were trained and the same ones alone; NaN if one is."""
    found = []
    for number, state in ends.states.items():
        module, metrics = build(number), ends.epochs[number][-1].metrics
        trainer = train_alone(module, data, epochs, **options)  # type: ignore[arg-type]
        found.append(largest_difference(module.state_dict(), state))
        found += [abs(value - float(trainer.callback_metrics[key])) for key, value in metrics.items()]
    return torch.tensor(found).max().item()


class _StopAfter(L.Callback):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.should_stop |= trainer.current_epoch + 1 >= self.epochs


def largest_difference(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> float:
    """Largest absolute difference between two state dicts of the same keys; NaN if any entry is."""
    assert first.keys() == second.keys()
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)
