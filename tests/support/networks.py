"""Trials of each network that is shipped, each trial with strengths of its own."""

from typing import Any

import torch
from support.training import INF

from wdsearch.datasets import DATASETS
from wdsearch.models import MODELS
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe

BFLOAT16 = 2.0**-7
"""Relative difference of losses in bfloat16: twice the rounding of a number to its 8 bits."""

STRENGTHS = {
    "weight_decay": [0.0, 0.1, 1.0, 3.0, 0.5, 0.0, 2.0, 0.1, 10.0, 0.3],
    "l2": [0.0, 0.0, 1e-3, 1e-4, 0.0, 1e-2, 0.0, 1e-5, 1e-3, 0.0],
    "l1": [0.0, 1e-4, 0.0, 1e-5, 1e-3, 0.0, 1e-4, 0.0, 0.0, 1e-6],
    "dropout": [0.0, 0.1, 0.5, 0.3, 0.0, 0.7, 0.2, 0.0, 0.4, 0.1],
    "input_noise": [0.1, 0.0, 0.3, 0.0, 0.0, 0.5, 0.1, 0.2, 0.0, 0.1],
    "label_smoothing": [0.0, 0.1, 0.05, 0.0, 0.2, 0.0, 0.1, 0.0, 0.3, 0.0],
    "gradient_clip": [1.0, INF, 0.5, INF, 0.1, INF, 2.0, INF, 1.0, 0.3],
    "ema": [0.0, 0.9, 0.5, 0.0, 0.99, 0.9, 0.0, 0.999, 0.7, 0.95],
    "early_stopping": [INF, INF, INF, INF, 1.0, INF, INF, 2.0, INF, INF],
}

RECIPES = {
    **{key: Recipe(key, schedule="cosine", warmup=0.1) for key in OPTIMIZERS},
    "nesterov": Recipe("sgd", nesterov=True),
}

SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"inputs": 64, "hidden": (23, 13), "norm": "batch"},
    "residual_mlp": {"inputs": 64, "width": 13, "blocks": 2},
    "convnet": {"shape": (1, 8, 8), "channels": (5, 7)},
    "resnet": {"shape": (1, 8, 8), "width": 4, "blocks": (1, 1)},
    "transformer": {"shape": (1, 64), "patch": 8, "width": 10, "heads": 2, "blocks": 1},
}

VARIANTS = SMALL | {
    "mlp layer": {"inputs": 64, "hidden": (23, 13), "norm": "layer"},
    "convnet layer": {"shape": (1, 8, 8), "channels": (5, 7), "norm": "layer"},
    "resnet layer": {"shape": (1, 8, 8), "width": 4, "blocks": (1, 1), "norm": "layer"},
    "residual_mlp layer": {"inputs": 64, "width": 13, "blocks": 1, "norm": "layer"},
    "convnet 1d": {"shape": (1, 64), "channels": (5,), "norm": None},
    "transformer table": {"shape": (64,), "width": 4, "heads": 2, "blocks": 1},
    "transformer batch": {"shape": (1, 64), "patch": 8, "width": 10, "heads": 2, "blocks": 1, "norm": "batch"},
    "transformer table batch": {"shape": (64,), "width": 4, "heads": 2, "blocks": 1, "norm": "batch"},
    "transformer bare": {"shape": (1, 64), "patch": 8, "width": 10, "heads": 2, "blocks": 1, "norm": None},
}


def data(batch_size: int) -> Any:
    return DATASETS["digits"](batch_size=batch_size, seed=3)


def trial(name: str, number: int, scale: float = 1.0) -> RegularizedModule:
    torch.manual_seed(0)
    network = MODELS[name.split()[0]](outputs=10, **VARIANTS[name])
    strengths = {key: values[number] for key, values in STRENGTHS.items()}
    return RegularizedModule(network, strengths, scale * 1e-4 * (number + 1), RECIPES["adamw"], seed=3)
