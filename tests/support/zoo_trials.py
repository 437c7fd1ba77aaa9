"""Trials of the networks of the zoo."""

import torch
from support.zoo import ZOO

from wdsearch.trial.module import RegularizedModule

STRENGTHS = [
    {"weight_decay": 0.1, "dropout": 0.1, "l1": 1e-4, "l2": 0.0, "input_noise": 0.0, "label_smoothing": 0.1},
    {"weight_decay": 3.0, "dropout": 0.5, "l1": 0.0, "l2": 1e-3, "input_noise": 0.2, "label_smoothing": 0.0},
    {"weight_decay": 0.0, "dropout": 0.0, "l1": 1e-3, "l2": 1e-2, "input_noise": 0.1, "label_smoothing": 0.2},
]


def trial(name: str, number: int) -> RegularizedModule:
    torch.manual_seed(0)
    return RegularizedModule(ZOO[name].build(), STRENGTHS[number], 1e-3 * (number + 1), seed=3)
