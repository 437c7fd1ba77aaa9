"""Metrics as sums over rows, which add up exactly over batches and trials."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Sums = dict[str, Float[Tensor, "..."]]
"""Sums over rows, per trial; the sums of all batches add up to those of the whole set."""


@dataclass(frozen=True)
class Metric:
    """A metric of the outputs: `sums` of one batch of one trial, and the `value` of sums added up.

    `larger_is_better` gives the sign of its gap: a positive gap means overfitting.

    >>> accuracy = METRICS["accuracy"]
    >>> outputs, targets = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]]), torch.tensor([0, 1, 1])
    >>> accuracy.value(accuracy.sums(outputs, targets))
    tensor(0.6667)
    """

    name: str
    task: str
    sums: Callable[[Tensor, Tensor], Sums]
    value: Callable[[Sums], Tensor]
    larger_is_better: bool = True


def _hit_sums(outputs: Float[Tensor, "batch ... classes"], targets: Int[Tensor, "batch ..."]) -> Sums:
    hit = (outputs.argmax(dim=-1) == targets).to(outputs.dtype)
    return {"hits": hit.sum(), "rows": torch.ones_like(hit).sum()}


def _class_sums(outputs: Float[Tensor, "batch ... classes"], targets: Int[Tensor, "batch ..."]) -> Sums:
    outputs, targets = outputs.flatten(0, -2), targets.flatten()
    one_hot = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    hit = (outputs.argmax(dim=-1) == targets).to(outputs.dtype)
    return {"hits": (one_hot * hit.unsqueeze(-1)).sum(0), "members": one_hot.sum(0)}


def _balanced_accuracy(sums: Sums) -> Float[Tensor, "*trials"]:
    """Mean recall over the classes that occur, as `sklearn.metrics.balanced_accuracy_score`."""
    present = sums["members"] > 0
    recall = sums["hits"] / sums["members"].clamp(min=1)
    return (recall * present).sum(-1) / present.sum(-1)


def _square_sums(outputs: Float[Tensor, "batch ..."], targets: Float[Tensor, "batch ..."]) -> Sums:
    """Sums over the rows for each quantity, in 64 bits where the device has them: squares of years cancel in 32."""
    outputs, targets = (values.reshape(len(values), -1).to(exact_dtype(values)) for values in (outputs, targets))
    residual = outputs - targets
    return {
        "residual": residual.square().sum(0),
        "absolute": residual.abs().sum(0),
        "sum": targets.sum(0),
        "squares": targets.square().sum(0),
        "rows": torch.ones_like(residual).sum(0),
    }


def exact_dtype(values: Tensor) -> torch.dtype:
    """64 bits, or 32 on a device that has no more.

    >>> exact_dtype(torch.ones(3))
    torch.float64
    """
    return torch.float32 if values.device.type == "mps" else torch.float64


def _r2(sums: Sums) -> Float[Tensor, "*trials"]:
    """Mean over targets of 1 − residual / total sum of squares, as `sklearn.metrics.r2_score`; NaN for constant targets."""
    total = sums["squares"] - sums["sum"].square() / sums["rows"]
    varies = total > 1e-12 * sums["squares"]
    return (1.0 - sums["residual"] / torch.where(varies, total, torch.nan)).mean(-1)


def _rmse(sums: Sums) -> Float[Tensor, "*trials"]:
    """Mean over targets of the root of the mean square, as `sklearn.metrics.root_mean_squared_error`."""
    return (sums["residual"] / sums["rows"]).sqrt().mean(-1)


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
        Metric("rmse", "regression", _square_sums, _rmse, larger_is_better=False),
        Metric(
            "mae",
            "regression",
            _square_sums,
            lambda sums: (sums["absolute"] / sums["rows"]).mean(-1),
            larger_is_better=False,
        ),
    )
}


def reported(metric: str) -> list[str]:
    """Names of the metrics that are reported where one judges: those of a regression are all sums over the same.

    >>> reported("accuracy"), reported("rmse")
    (['accuracy'], ['rmse', 'r2', 'mae'])
    """
    others = METRICS if METRICS[metric].task == "regression" else ()
    return [metric, *(name for name in others if name != metric and METRICS[name].task == "regression")]


def total(sums: Iterable[Sums]) -> Sums:
    """Sums of several batches added up.

    >>> total([{"rows": torch.tensor(3.0)}, {"rows": torch.tensor(4.0)}])
    {'rows': tensor(7.)}
    """
    result: Sums = {}
    for batch in sums:
        result = {name: result[name] + value for name, value in batch.items()} if result else batch
    return result
