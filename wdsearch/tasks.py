"""What a trial learns: loss, and metrics as sums over rows, so that batches and trials add up exactly."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from wdsearch.types import Scalar

Sums = dict[str, Float[Tensor, "..."]]
"""Sums over rows, per trial; adding those of all batches gives those of the whole set."""


@dataclass(frozen=True)
class Metric:
    """A metric of the outputs: `sums` of one batch of one trial, and the `value` of the added sums.

    `larger_is_better` gives the sign of its gap: positive means overfitting.
    """

    name: str
    task: str
    sums: Callable[[Tensor, Tensor], Sums]
    value: Callable[[Sums], Tensor]
    larger_is_better: bool = True


def _hit_sums(outputs: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]) -> Sums:
    hit = (outputs.argmax(dim=-1) == targets).to(outputs.dtype)
    return {"hits": hit.sum(), "rows": torch.ones_like(hit).sum()}


def _class_sums(outputs: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]) -> Sums:
    one_hot = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    hit = (outputs.argmax(dim=-1) == targets).to(outputs.dtype)
    return {"hits": (one_hot * hit.unsqueeze(-1)).sum(0), "members": one_hot.sum(0)}


def _balanced_accuracy(sums: Sums) -> Float[Tensor, "*trials"]:
    """Mean recall over the classes that occur, as `sklearn.metrics.balanced_accuracy_score`."""
    present = sums["members"] > 0
    recall = sums["hits"] / sums["members"].clamp(min=1)
    return (recall * present).sum(-1) / present.sum(-1)


def _square_sums(outputs: Float[Tensor, "batch ..."], targets: Float[Tensor, "batch ..."]) -> Sums:
    outputs, targets = outputs.reshape(len(outputs), -1), targets.reshape(len(outputs), -1)
    residual = (outputs - targets).square().sum(0)
    ones = torch.ones_like(outputs).sum(0)
    return {"residual": residual, "sum": targets.sum(0), "squares": targets.square().sum(0), "rows": ones}


def _r2(sums: Sums) -> Float[Tensor, "*trials"]:
    """Mean over targets of 1 − residual / total sum of squares, as `sklearn.metrics.r2_score`."""
    total = sums["squares"] - sums["sum"].square() / sums["rows"]
    return (1.0 - sums["residual"] / total).mean(-1)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "classification",
            _hit_sums,
            lambda sums: sums["hits"] / sums["rows"],
        ),
        Metric("balanced_accuracy", "classification", _class_sums, _balanced_accuracy),
        Metric("r2", "regression", _square_sums, _r2),
    )
}


def _squared_error(outputs: Float[Tensor, "batch ..."], targets: Float[Tensor, "batch ..."]) -> Scalar:
    flat, wanted = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if flat.shape != wanted.shape:  # which F.mse_loss would broadcast
        given = f"the network gives {flat.shape[1]} numbers a row, the targets are {wanted.shape[1]}"
        raise ValueError(f"{given}; for a regression they must be as many")
    return F.mse_loss(flat, wanted)


def _cross_entropy(outputs: Float[Tensor, "batch classes"], targets: Int[Tensor, " batch"]) -> Scalar:
    """`torch.nn.functional.cross_entropy`, which vmap takes apart at twice the cost."""
    return -outputs.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).mean()


@lru_cache(maxsize=8)
def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": _cross_entropy,
    "regression": _squared_error,
}
DEFAULT_METRIC = {"classification": "accuracy", "regression": "r2"}


@dataclass(frozen=True)
class Task:
    """A loss (mean over rows; nats, or squared target units) and a metric.

    With `class_weights` the mean is weighted by those of the rows' classes, as by `torch.nn.CrossEntropyLoss(weight=...)`.
    """

    name: str = "classification"
    metric_name: str | None = None
    class_weights: tuple[float, ...] | None = None

    @property
    def metric(self) -> Metric:
        """The metric of this task."""
        return METRICS[self.metric_name or DEFAULT_METRIC[self.name]]

    def loss(self, outputs: Float[Tensor, "batch ..."], targets: Shaped[Tensor, "batch ..."]) -> Scalar:
        """Mean loss of a batch."""
        if self.class_weights is None:
            return LOSSES[self.name](outputs, targets)
        weights = self.weights_like(outputs)[targets]
        nats = -outputs.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return (weights * nats).sum() / weights.sum()

    def size(self, loss: Scalar, targets: Shaped[Tensor, "batch ..."]) -> Scalar:
        """What a batch's mean loss was divided by: its rows, or the weights of their classes."""
        if self.class_weights is None:
            return torch.tensor(len(targets), dtype=loss.dtype, device=loss.device)
        return self.weights_like(loss)[targets].sum()

    def weights_like(self, values: Float[Tensor, "..."]) -> Float[Tensor, " classes"]:
        """The classes' weights in the type of some values and where they are."""
        assert self.class_weights is not None
        return _tensor(self.class_weights, values.dtype, values.device)


def widened(value: Any) -> Any:
    """A tensor of 16 bits in 32, in which losses and counts of rows add up; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


def total(sums: Iterable[Sums]) -> Sums:
    """The sums of several batches added up."""
    result: Sums = {}
    for batch in sums:
        result = {name: result[name] + value for name, value in batch.items()} if result else batch
    return result


def losses_and_gaps(task: Task, train: Sums, validation: Sums) -> dict[str, Float[Tensor, "*trials"]]:
    """`loss/train`, `loss/val`, `loss/gap` and the same for the metric, from sums of one trial or of several."""
    metric = task.metric
    sign = -1.0 if metric.larger_is_better else 1.0
    return {
        "loss/train": train["loss"] / train["size"],
        "loss/val": validation["loss"] / validation["size"],
        "loss/gap": generalization_gap(train["loss"] / train["size"], validation["loss"] / validation["size"]),
        f"{metric.name}/train": metric.value(train),
        f"{metric.name}/val": metric.value(validation),
        f"{metric.name}/gap": sign * generalization_gap(metric.value(train), metric.value(validation)),
    }


def generalization_gap(
    train: Float[Tensor, "*trials"], validation: Float[Tensor, "*trials"]
) -> Float[Tensor, "*trials"]:
    """Validation minus training loss per trial; both in eval mode, without penalties, on the same weights."""
    return validation - train
