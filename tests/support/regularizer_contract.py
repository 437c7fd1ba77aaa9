"""The contract of a regularizer in training: neutral changes nothing, some strength does, fused equals alone."""

import math

import torch
from support.training import largest_difference, train_alone, train_fused

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.regularizers import Regularizer
from wdsearch.tasks import Task
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

EPOCHS = 8


def data(regularizer: Regularizer):
    name = "digits" if "classification" in regularizer.tasks else "diabetes"
    return DATASETS[name](batch_size=128, seed=1)


def trial(regularizer: Regularizer, recipe: Recipe, *strengths: float) -> RegularizedModule:
    """A trial with the regularizer at a strength, or without it; learning fast enough to overfit."""
    source = data(regularizer)
    torch.manual_seed(0)
    network = MODELS["mlp"](source.inputs, source.outputs, hidden=(16,))
    values = {regularizer.key: strengths[0]} if strengths else {}
    return RegularizedModule(network, values, 0.1, recipe, Task(source.task), seed=1)


def strong(regularizer: Regularizer) -> float:
    """A strength within the usual range that shows: the end further from neutral."""
    low, high, _ = regularizer.usual
    return low if regularizer.neutral == math.inf else high


def weights(module: RegularizedModule) -> dict[str, torch.Tensor]:
    return {name: value for name, value in module.state_dict().items() if "strengths." not in name}


def changes_by_its_strength(regularizer: Regularizer, recipe: Recipe) -> None:
    without, neutral = trial(regularizer, recipe), trial(regularizer, recipe, regularizer.neutral)
    active = trial(regularizer, recipe, strong(regularizer))
    epochs = EPOCHS * 5 if regularizer.key == "early_stopping" else EPOCHS // 2
    for module in (without, neutral, active):
        train_alone(module, data(regularizer), epochs)
    assert largest_difference(weights(without), weights(neutral)) == 0.0
    assert largest_difference(weights(without), weights(active)) > 1e-6


def fused_equals_alone(regularizer: Regularizer, recipe: Recipe) -> None:
    low, high, _ = regularizer.usual
    middle = round((low + high) / 2) if regularizer.integer else (low + high) / 2
    strengths = [regularizer.neutral, low, middle, high]
    fused = train_fused({k: trial(regularizer, recipe, s) for k, s in enumerate(strengths)}, data(regularizer), EPOCHS)
    for number, strength in enumerate(strengths):
        alone = trial(regularizer, recipe, strength)
        train_alone(alone, data(regularizer), EPOCHS)
        assert largest_difference(alone.state_dict(), fused.states[number]) < 1e-6, strength
