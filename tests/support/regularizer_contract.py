"""The contract of a regularizer in training: neutral changes nothing, some strength does, fused equals alone."""

import math
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import lightning as L
import torch
from support.training import largest_difference, train_alone, train_fused

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.regularizers import Regularizer
from wdsearch.tasks.task import Task
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

SPLITS = {"batch_size": 128, "seed": 1}


def data_name(regularizer: Regularizer) -> str:
    return "digits" if "classification" in regularizer.tasks else "diabetes"


def data(regularizer: Regularizer) -> L.LightningDataModule:
    return DATASETS[data_name(regularizer)](**SPLITS)


def trial(regularizer: Regularizer, optimizer: str, strength: float) -> RegularizedModule:
    """A trial with the regularizer at a strength."""
    return plain(data_name(regularizer), optimizer, {regularizer.key: strength})


def plain(name: str, optimizer: str, strengths: Mapping[str, float] = MappingProxyType({})) -> RegularizedModule:
    """A trial on a data set, learning fast enough to overfit."""
    source = DATASETS[name](**SPLITS)
    torch.manual_seed(0)
    network = MODELS["mlp"](source.inputs, source.outputs, hidden=(16,))
    return RegularizedModule(network, strengths, 0.1, Recipe(optimizer), Task(source.task), seed=1)


def strong(regularizer: Regularizer) -> float:
    """A strength within the usual range that shows: the end further from neutral."""
    low, high, _ = regularizer.usual
    return low if regularizer.neutral == math.inf else high


def weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if "strengths." not in name}


def epochs_of(regularizer: Regularizer) -> int:
    """Epochs that show the regularizer: its effect is there from the first steps on, but patience has to run out."""
    return 16 if regularizer.patience else 3


@cache
def alone(regularizer: Regularizer, optimizer: str, strength: float) -> dict[str, torch.Tensor]:
    """Weights of a trial that was trained by plain Lightning; both halves of the contract need the neutral and the strong one."""
    module = trial(regularizer, optimizer, strength)
    train_alone(module, data(regularizer), epochs_of(regularizer))
    return module.state_dict()


@cache
def without(name: str, optimizer: str, epochs: int) -> dict[str, torch.Tensor]:
    """Weights of a trial on a data set that was trained by plain Lightning without any regularizer."""
    module = plain(name, optimizer)
    train_alone(module, DATASETS[name](**SPLITS), epochs)
    return module.state_dict()


def changes_by_its_strength(regularizer: Regularizer, optimizer: str) -> None:
    unregularized = without(data_name(regularizer), optimizer, epochs_of(regularizer))
    assert (
        largest_difference(weights(unregularized), weights(alone(regularizer, optimizer, regularizer.neutral))) == 0.0
    )
    assert (
        largest_difference(weights(unregularized), weights(alone(regularizer, optimizer, strong(regularizer)))) > 1e-6
    )


def fused_equals_alone(regularizer: Regularizer, optimizer: str) -> None:
    low, high, _ = regularizer.usual
    middle = round((low + high) / 2) if regularizer.integer else (low + high) / 2
    strengths = [regularizer.neutral, low, middle, high]
    trials = {number: trial(regularizer, optimizer, strength) for number, strength in enumerate(strengths)}
    fused = train_fused(trials, data(regularizer), epochs_of(regularizer))
    for number, strength in enumerate(strengths):
        assert largest_difference(alone(regularizer, optimizer, strength), fused.states[number]) < 1e-6, strength
