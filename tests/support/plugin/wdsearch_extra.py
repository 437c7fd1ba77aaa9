"""A package of somebody else's that adds an entry to each of wdsearch's tables."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from sklearn.datasets import make_moons
from torch import nn

from wdsearch.datasets import ArrayDataModule, Arrays
from wdsearch.launch.engines import LauncherOptions, Order
from wdsearch.launch.engines.local import Local
from wdsearch.optimizers import OPTIMIZERS
from wdsearch.regularizers import Regularizer
from wdsearch.tracking.jsonl import JsonlTracker
from wdsearch.types import Interval, Params, Range, Scalar


def _penalty(weights: Params, strength: Scalar) -> Scalar:
    return strength * torch.stack([weight.square().sum() for weight in weights.values()]).sum()


ridge = Regularizer(
    key="ridge",
    summary="the penalty of l2 under another name",
    unit="λ per squared weight",
    neutral=0.0,
    domain=Interval(0.0, math.inf, high_open=True),
    usual=Range(1e-6, 1e-2, log=True),
    torch=lambda strength, _: f"torch.optim.Adam(weight_decay={2 * strength:.6g})",
    penalty=_penalty,
)


heavy_ball = replace(OPTIMIZERS["sgd"], key="heavy_ball", summary="SGD with momentum (Polyak 1964)")


class Lines(JsonlTracker):
    """Lines of JSON, under another name."""

    name, summary = "lines", "lines of JSON in a folder"


def bottleneck(inputs: int, outputs: int, width: int = 4) -> nn.Module:
    """One narrow hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))


class Moons(ArrayDataModule):
    """Two interleaved half circles of scikit-learn."""

    def arrays(self) -> Arrays:
        inputs, targets = make_moons(200, noise=0.2, random_state=0)
        return Arrays(inputs, targets)


class Here(Local):
    """Processes on this machine, under another name."""

    name, summary = "here", "processes on this machine, one at a time"

    def start(self, order: Order, options: LauncherOptions) -> Sequence[str]:
        return super().start(replace(order, workers=1), options)  # type: ignore[arg-type]


here = Here()
