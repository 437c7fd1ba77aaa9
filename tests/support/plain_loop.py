"""A network as a plain loop of torch trains it, beside the same trial of a study."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from support.training import train_fused
from torch import Tensor, nn
from torch.nn import functional as F

from wdsearch.noise import derive_seed
from wdsearch.study.build import build_data
from wdsearch.study.factory import TrialFactory
from wdsearch.study.load import load_study
from wdsearch.study.space import Configuration
from wdsearch.trial.loaders import train_eval_loader

EPOCHS = 2
NAMES = {"val_loss": "loss/val", "train_loss": "loss/train", "gap": "loss/gap"}
Call = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
"""Outputs and targets of a network for a batch, as a user's own loop computes them."""


def study_of(model: Any, data: Any, **changes: Any) -> dict[str, Any]:
    """A study of weight decay; dropout is fixed at 0, where its masks do not matter."""
    return {
        "study": "as-in-a-loop",
        "data": data,
        "model": model,
        "space": {"weight_decay": {"low": 0.1, "high": 3.0}, "dropout": 0.0},
        "budget": {"trials": 2, "epochs": EPOCHS},
        "trainer": {"accelerator": "cpu"},
    } | changes


def searched(
    study: dict[str, Any], strengths: Collection[float] = (0.0, 2.0)
) -> tuple[str | None, list[dict[str, float]]]:
    """Reason why a study's trials are not fused, and the losses and gap of a trial for each weight decay."""
    config = load_study(study)
    factory = TrialFactory(config, build_data(config))
    alone = factory.why_alone({})
    settings = [Configuration(0.01, {"weight_decay": value, "dropout": 0.0}, {}) for value in strengths]
    trials = {number: factory.module(one) for number, one in enumerate(settings)}
    precision = "64-true" if str(config.trainer.precision).startswith("64") else "32-true"
    ends = train_fused(trials, factory.data, EPOCHS, precision=precision, fuse=alone is None)
    metrics = [ends.epochs[number][-1].metrics for number in trials]
    return alone, [{name: one[key] for name, key in NAMES.items()} for one in metrics]


def plain_loop(
    build: Callable[[], nn.Module],
    data: Any,
    decayed: Collection[str],
    weight_decay: float,
    call: Call,
    loss: Any = F.cross_entropy,
) -> dict[str, float]:
    """Losses and gap of a network that torch's AdamW has trained, from the initial weights and on the batches of a study."""
    torch.manual_seed(derive_seed(0, "weights"))
    network = build()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
        if isinstance(layer, nn.MultiheadAttention):
            layer.dropout = 0.0
    named = dict(network.named_parameters())
    assert set(decayed) <= named.keys()
    rest = [value for name, value in named.items() if name not in decayed]
    groups = [
        {"params": [named[name] for name in decayed], "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    for _ in range(EPOCHS):
        network.train()
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            loss(*call(network, batch)).backward()
            optimizer.step()
    losses = [
        _mean_loss(network.eval(), loader, call, loss) for loader in (data.val_dataloader(), train_eval_loader(data))
    ]
    return {"val_loss": losses[0], "train_loss": losses[1], "gap": losses[0] - losses[1]}


@torch.no_grad()
def _mean_loss(network: nn.Module, loader: Any, call: Call, loss: Any) -> float:
    pairs = [call(network, batch) for batch in loader]
    rows = [len(targets) for _, targets in pairs]
    return sum(float(loss(*pair)) * count for pair, count in zip(pairs, rows, strict=True)) / sum(rows)
