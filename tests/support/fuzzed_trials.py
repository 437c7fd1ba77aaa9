"""One fuzzed network trained in several ways, which must all give the numbers of plain Lightning."""

from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from support.fuzzed_networks import FuzzData, Fuzzed
from support.training import Ends, largest_difference, quiet_trainer, train_alone, train_fused

from wdsearch.population.checkpoint import read_checkpoint, write_checkpoint
from wdsearch.population.fusibility import why_alone
from wdsearch.population.population import Population
from wdsearch.trial.module import RegularizedModule

EPOCHS = 2
STRENGTHS = [
    {"weight_decay": 0.1, "dropout": 0.1, "l1": 1e-4},
    {"weight_decay": 3.0, "dropout": 0.5, "l1": 0.0},
    {"weight_decay": 0.0, "dropout": 0.0, "l1": 1e-3},
]
CPU = torch.device("cpu")
ROUNDING = 1e-8
"""Difference in weights that rounding explains after a few steps in 64 bits."""


def trial(seed: int, number: int) -> RegularizedModule:
    """A trial of a fuzzed network; its strengths go by its number."""
    torch.manual_seed(seed)
    return RegularizedModule(Fuzzed(seed), STRENGTHS[number], 1e-3 * (number + 1), seed=3)


def trials(seed: int, numbers: Iterable[int]) -> dict[int, RegularizedModule]:
    """Trials by number."""
    return {number: trial(seed, number) for number in numbers}


def silent_difference(seed: int, folder: Path) -> str | None:
    """Way of training in which a fuzzed network gives other numbers than plain Lightning; None if there is none.

    Left out are networks that torch cannot train, and those that are said not to be reproducible, even alone.
    """
    data, one = FuzzData(), seed % 3
    alone = trial(seed, one)
    try:
        trainer = train_alone(alone, data, EPOCHS)
    except RuntimeError:
        return None
    reason = why_alone(list(trials(seed, range(3)).values()), *data.train_dataloader())
    if reason and "called again" in reason:
        return None
    fuse, allowed = reason is None, ROUNDING if reason is None else 0.0
    ways = {
        "together": train_fused(trials(seed, range(3)), data, EPOCHS, fuse=fuse),
        "in calls of two": train_fused(trials(seed, range(3)), data, EPOCHS, max_fused=2, fuse=fuse),
        "lone": train_fused(trials(seed, [one]), data, EPOCHS, fuse=fuse),
        "pruned": train_fused(trials(seed, range(3)), data, EPOCHS, Ends(prune={(one + 1) % 3: 1}), fuse=fuse),
        "resumed": _resumed(seed, data, fuse, folder / f"{seed}.pt"),
    }
    for way, ends in ways.items():
        if ends is None:
            continue
        metrics = ends.epochs[one][-1].metrics
        difference = largest_difference(alone.state_dict(), ends.states[one])
        difference = max(
            difference, *(abs(value - float(trainer.callback_metrics[key])) for key, value in metrics.items())
        )
        if not difference <= allowed:
            return f"{seed}: {Fuzzed(seed).described()}; {way}, {reason or 'fused'}: {difference:.1e}"
    return None


class _Interruption(L.Callback):
    """Writes a checkpoint after the first epoch, and ends the training there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, population: L.LightningModule) -> None:
        assert isinstance(population, Population)
        write_checkpoint(self.path, 1, population.cohorts, CPU)
        population.prune(set(population.live))


def _resumed(seed: int, data: L.LightningDataModule, fuse: bool, path: Path) -> Ends | None:
    """Trials that go on from a checkpoint; None if the checkpoint lacks them, and they begin again."""
    first = Population(data, EPOCHS)
    first.admit(trials(seed, range(3)), fuse=fuse)
    quiet_trainer(-1, callbacks=[_Interruption(path)]).fit(first)
    _, saved = read_checkpoint(path, range(3), CPU)
    path.unlink()
    if not saved:
        return None
    ends, population = Ends(), Population(data, EPOCHS)
    population.admit(trials(seed, range(3)), saved[0], fuse)
    quiet_trainer(-1, callbacks=[ends]).fit(population)
    return ends
