"""A population goes on from its checkpoint as if it had never been interrupted, whatever its regularizers remember."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import lightning as L
import pytest
import torch
from support.training import Ends, largest_difference, quiet_trainer, train_fused

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.population.checkpoint import read_checkpoint, write_checkpoint
from wdsearch.population.population import Population
from wdsearch.regularizers import REGULARIZERS, Regularizer
from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule

EPOCHS, INTERRUPTED_AFTER = 5, 2
CPU = torch.device("cpu")
every_regularizer = pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
every_way = pytest.mark.parametrize("fuse", [True, False], ids=["fused", "looped"])


def data(regularizer: Regularizer) -> L.LightningDataModule:
    return DATASETS["digits" if "classification" in regularizer.tasks else "diabetes"](batch_size=256, seed=1)


def trials(regularizer: Regularizer, numbers: Iterable[int]) -> dict[int, RegularizedModule]:
    """A neutral trial, and three from the low to the high end of the usual range, which may all stop early."""
    low, high, _ = regularizer.usual
    values = [regularizer.neutral, low, round((low + high) / 2) if regularizer.integer else (low + high) / 2, high]
    modules, source = {}, data(regularizer)
    for number in numbers:
        torch.manual_seed(0)
        network = MODELS["mlp"](source.inputs, source.outputs, hidden=(12,), norm="batch")
        strengths = {"early_stopping": 3.0, regularizer.key: values[number]}
        modules[number] = RegularizedModule(network, strengths, 0.02, task=Task(source.task), seed=1)
    return modules


class Interruption(L.Callback):
    """Writes a checkpoint after an epoch, and ends the training there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == INTERRUPTED_AFTER:
            write_checkpoint(self.path, 7, population.cohorts, CPU)
            population.prune(set(population.live))


def continued(path: Path, modules: Mapping[int, RegularizedModule], source: L.LightningDataModule, fuse: bool) -> Ends:
    """Trials trained to their end from a checkpoint."""
    tick, (saved,) = read_checkpoint(path, modules, CPU)
    assert tick == 7
    ends, population = Ends(), Population(source, EPOCHS)
    population.admit(modules, saved, fuse)
    quiet_trainer(-1, callbacks=[ends]).fit(population)
    return ends


@every_way
@every_regularizer
def test_interrupted_and_continued_is_as_uninterrupted(regularizer: Regularizer, fuse: bool, tmp_path: Path) -> None:
    """Of four trials one is not continued: its rows leave all that is remembered."""
    path = tmp_path / "population.pt"
    uninterrupted = train_fused(trials(regularizer, range(4)), data(regularizer), EPOCHS, fuse=fuse)
    population = Population(data(regularizer), EPOCHS)
    population.admit(trials(regularizer, range(4)), fuse=fuse)
    quiet_trainer(-1, callbacks=[Interruption(path)]).fit(population)
    resumed = continued(path, trials(regularizer, (0, 2, 3)), data(regularizer), fuse)
    assert set(resumed.states) == {0, 2, 3}
    for number, state in resumed.states.items():
        assert largest_difference(uninterrupted.states[number], state) == 0.0, number
        assert resumed.epochs[number] == uninterrupted.epochs[number][INTERRUPTED_AFTER:], number
