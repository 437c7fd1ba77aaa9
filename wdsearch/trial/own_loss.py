"""Comparison of the loss that a network computes itself, as heads of Hugging Face do, with the one that it is trained with."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wdsearch.messages import shown_number
from wdsearch.trial.batches import TARGETS, Batch, own_copy
from wdsearch.trial.module import RegularizedModule

ROUNDING = 1e-3
"""Relative difference of two losses in 32 bits that rounding explains."""
_NAMES = {"classification": "the cross-entropy of its outputs", "regression": "the mean squared error of its outputs"}


def own_loss_note(module: RegularizedModule, batch: Batch) -> str | None:
    """Sentence on a network that computes another loss from a batch than it is trained with; None if it does not.

    A head for causal language modelling, for example, compares each output with the next word, a masked one with some words. A
    subclass with a `loss` of its own is not asked.

    >>> class Head(torch.nn.Linear):
    ...     def forward(self, x, labels=None):
    ...         logits = super().forward(x)
    ...         return {"loss": None if labels is None else 2.0 * logits.square().mean(), "logits": logits}
    >>> batch = {"x": torch.zeros(4, 3), "labels": torch.tensor([0, 1, 0, 1])}
    >>> own_loss_note(RegularizedModule(Head(3, 2, bias=False)), batch)
    'model: the network computes a loss itself, 0 on the first batch, and is trained with ..., 0.6931: ...'
    """
    takes = inspect.signature(module.network.forward).parameters
    keys = [key for key in TARGETS if isinstance(batch, Mapping) and key in batch]
    argument = next((name for name in (*keys, "labels") if name in takes), None)
    if not keys or argument is None or type(module).loss is not RegularizedModule.loss:
        return None
    inputs, targets = module.split(own_copy(batch))
    with torch.no_grad():
        outputs = module.eval()(*inputs.args, **{**inputs.kwargs, argument: targets})
        trained = float(module.loss(outputs, targets))
    own = _loss_in(outputs)
    if own is None or math.isclose(own, trained, rel_tol=ROUNDING, abs_tol=ROUNDING):
        return None
    text = f"model: the network computes a loss itself, {shown_number(own)} on the first batch, and is trained with"
    remedy = "to train with its own, override loss (and forward, if need be) in a subclass of RegularizedModule"
    return f"{text} {_NAMES[module.task.name]} and the targets, {shown_number(trained)}: {remedy}"


def _loss_in(outputs: Any) -> float | None:
    """Loss among the outputs of a network, which names it so; None if there is none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
    return float(loss) if isinstance(loss, Tensor) and loss.numel() == 1 else None
