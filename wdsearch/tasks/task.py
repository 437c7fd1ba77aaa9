"""Tasks: what a network's outputs and targets mean, and the losses and metrics that judge them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from wdsearch.tasks.metrics import METRICS, Metric, Sums, exact_dtype, reported
from wdsearch.types import Scalar

LOGITS = ("logits", "out", "output", "outputs", "prediction", "predictions", "preds", "scores", "y_hat")
"""Keys or attributes under which a network may give its outputs among others."""
REMEDY = (
    "give them as a tensor or as .logits, or subclass RegularizedModule and override forward, or loss and evaluation"
)


def logits_of(outputs: Any) -> Tensor:
    """Scores or predictions among what a network gives, in at least 32 bits.

    Those of a tuple or list are its first tensor with a row each, of a mapping or dataclass (as Hugging Face's heads give) the
    entry of one of `LOGITS`; a loss that the network computes as well is not used. Raises ValueError if there are none.

    >>> logits_of((torch.tensor(0.5), torch.zeros(2, 3), "attention")).shape
    torch.Size([2, 3])
    """
    if isinstance(outputs, Tensor):
        return widened(outputs)
    entries = outputs if isinstance(outputs, Mapping) else {name: getattr(outputs, name, None) for name in LOGITS}
    names = [name for name in LOGITS if isinstance(entries.get(name), Tensor | tuple)]
    if names and (len(names) == 1 or names[0] == "logits"):
        return logits_of(entries[names[0]])
    if isinstance(outputs, tuple | list):
        for part in outputs:
            if isinstance(part, Tensor) and part.ndim:
                return widened(part)
    kind = type(outputs).__name__
    of = f"a {kind} of {', '.join(map(str, outputs)) or 'nothing'}" if isinstance(outputs, Mapping) else f"a {kind}"
    raise ValueError(f"the network gives {of}, in which its outputs cannot be told; {REMEDY}")


def _class_scores(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores with the classes last, and class numbers (batch, ...) or shares of classes (batch, classes).

    Of rows with several targets (pixels, words) the classes are the scores' second axis, as in torch's `cross_entropy`, or the
    last one, by the targets' shape. One logit z per row is that of the second of two classes: the scores are 0 and z, whose
    cross-entropy is `torch.nn.functional.binary_cross_entropy_with_logits`. Raises ValueError for targets that torch would
    refuse, too.
    """
    if outputs.ndim in (1, 2) and len(outputs) == outputs.numel() == targets.numel() == len(targets):
        return _two_classes(outputs.reshape(-1, 1), targets.reshape(-1, 1))
    outputs, targets = _classes_last(outputs, targets)
    if not targets.is_floating_point():
        if targets.shape != outputs.shape[:-1]:
            text = f"class numbers have shape {tuple(outputs.shape[:-1])}, one a row; the targets have {tuple(targets.shape)}"
            raise ValueError(f"{text} and the network's outputs {tuple(outputs.shape)}")
        _check_range(targets, outputs.shape[-1])
        return outputs, targets.long()
    if targets.shape != outputs.shape:
        text = f"the targets are {targets.dtype} of shape {tuple(targets.shape)}, the outputs {tuple(outputs.shape)}"
        raise ValueError(f"{text}; class numbers must be integers (.long()), shares of classes have the outputs' shape")
    if targets.device.type == "cpu" and not torch.allclose(
        targets.sum(-1), torch.ones_like(targets.sum(-1)), atol=1e-3
    ):
        text = "the targets are shares of classes, which add up to 1 in each row, and these do not"
        raise ValueError(f"{text}; for several classes a row override loss in a subclass of RegularizedModule")
    return outputs, targets.to(outputs.dtype)


def _classes_last(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Scores with the axis of the classes moved to the end. Raises ValueError if the second axis may be it, or the last."""
    if outputs.ndim < 3:
        return outputs, targets
    is_second, is_last = targets.shape == outputs.shape[:1] + outputs.shape[2:], targets.shape == outputs.shape[:-1]
    if (is_second and is_last) or targets.shape == outputs.shape:
        text = f"the network's outputs are {tuple(outputs.shape)} and the targets {tuple(targets.shape)}"
        remedy = "override loss and evaluation in a subclass of RegularizedModule"
        raise ValueError(f"{text}: either the second axis or the last may be that of the classes; {remedy}")
    return (outputs.movedim(1, -1) if is_second else outputs), targets


def _two_classes(logits: Float[Tensor, "batch 1"], targets: Shaped[Tensor, "batch 1"]) -> tuple[Tensor, Tensor]:
    if targets.device.type == "cpu" and (targets.min() < 0 or targets.max() > 1):
        text = f"the network gives one logit a row, for two classes, and targets go from {targets.min()} to {targets.max()}"
        raise ValueError(f"{text}; with more classes it gives one for each")
    scores = torch.cat([torch.zeros_like(logits), logits], -1)
    if not targets.is_floating_point():
        return scores, targets.squeeze(-1).long()
    return scores, torch.cat([1 - targets, targets], -1).to(logits.dtype)


def _check_range(targets: Shaped[Tensor, "batch ..."], classes: int) -> None:
    """Raise ValueError for class numbers without a score; on a CPU only, where to look costs nothing."""
    if targets.device.type == "cpu" and targets.numel() and (targets.min() < 0 or targets.max() >= classes):
        text = f"targets go from {targets.min()} to {targets.max()}, and the network gives scores of {classes} classes"
        remedy = "it is to give one for each class, numbered from 0"
        if targets.min() == -100:  # which torch's loss ignores
            remedy += "; to ignore targets of -100 override loss and evaluation in a subclass of RegularizedModule"
        raise ValueError(f"{text}; {remedy}")


def _real(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    flat_outputs, flat_targets = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if flat_outputs.shape != flat_targets.shape:  # which F.mse_loss would broadcast
        counts = f"the network gives {flat_outputs.shape[1]} numbers a row, the targets are {flat_targets.shape[1]}"
        raise ValueError(f"{counts}; for a regression they must be as many")
    return flat_outputs, flat_targets.to(outputs.dtype)


def _nats(
    scores: Float[Tensor, "batch ... classes"], targets: Shaped[Tensor, "batch ..."]
) -> Float[Tensor, "batch ..."]:
    """Cross-entropy of each row, as `torch.nn.functional.cross_entropy`, which costs twice as much under vmap."""
    if targets.is_floating_point():
        return -(scores.log_softmax(dim=-1) * targets).sum(-1)
    return -scores.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@lru_cache(maxsize=8)
def _tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _cross_entropy(scores: Float[Tensor, "batch ... classes"], targets: Shaped[Tensor, "batch ..."]) -> Scalar:
    return _nats(scores, targets).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"classification": _cross_entropy, "regression": F.mse_loss}
"""Mean loss of outputs and targets as `Task.read` gives them, by task."""
DEFAULT_METRIC = {"classification": "accuracy", "regression": "r2"}


@dataclass(frozen=True)
class Task:
    """A loss (mean over rows; nats, or squares of the targets as they are given) and a metric.

    Metrics of a regression are measured on targets times `scale`, their unit before they were standardised, and R² about
    `center`, the mean of the training targets, which changes no digit but those lost to rounding.
    With `class_weights` the mean is weighted by those of the rows' classes, as by `torch.nn.CrossEntropyLoss(weight=...)`.

    >>> task, targets = Task(class_weights=(1.0, 3.0)), torch.tensor([0, 1])
    >>> task.loss(torch.zeros(2, 2), targets)
    tensor(0.6931)
    >>> task.size(torch.tensor(0.0), targets)
    tensor(4.)
    """

    name: str = "classification"
    metric_name: str | None = None
    class_weights: tuple[float, ...] | None = None
    scale: tuple[float, ...] = ()
    center: tuple[float, ...] = ()

    @property
    def metric(self) -> Metric:
        """Metric by which the task is judged."""
        return METRICS[self.metric_name or DEFAULT_METRIC[self.name]]

    def read(self, outputs: Any, targets: Shaped[Tensor, "batch ..."]) -> tuple[Tensor, Tensor]:
        """Outputs of a network as scores of classes or as numbers (batch, numbers), and targets in the form to compare.

        Raises ValueError, in words, for outputs and targets that do not fit each other.

        >>> Task().read(torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 0]))
        (tensor([[ 0.,  2.],
                [ 0., -1.]]), tensor([1, 0]))
        """
        return (_class_scores if self.name == "classification" else _real)(logits_of(outputs), targets)

    def loss(self, outputs: Any, targets: Shaped[Tensor, "batch ..."]) -> Scalar:
        """Mean loss of a batch."""
        outputs, targets = self.read(outputs, targets)
        if self.class_weights is None:
            return LOSSES[self.name](outputs, targets)
        weights = self.weights_like(outputs)
        if targets.is_floating_point():
            return _nats(outputs, targets * weights).mean()
        return (weights[targets] * _nats(outputs, targets)).sum() / weights[targets].sum()

    def sums(self, outputs: Any, targets: Shaped[Tensor, "batch ..."]) -> Sums:
        """Sums over a batch's rows for the metric; a row of shares of classes counts as one of the largest."""
        outputs, targets = self.read(outputs, targets)
        if self.name == "classification" and targets.is_floating_point():
            targets = targets.argmax(dim=-1)
        if self.name == "regression":
            outputs, targets = self._in_units(outputs), self._in_units(targets)
        return self.metric.sums(outputs, targets)

    def _in_units(self, values: Float[Tensor, "batch quantities"]) -> Float[Tensor, "batch quantities"]:
        values = values.to(exact_dtype(values))
        if self.center:
            values = values - _tensor(self.center, values.dtype, values.device)
        return values * _tensor(self.scale, values.dtype, values.device) if self.scale else values

    def size(self, loss: Scalar, targets: Shaped[Tensor, "batch ..."]) -> Scalar:
        """Divisor of a batch's mean loss: its number of rows, or the sum of their classes' weights."""
        if self.class_weights is None or targets.is_floating_point():
            return torch.tensor(len(targets), dtype=loss.dtype, device=loss.device)
        return self.weights_like(loss)[targets.long()].sum()

    def weights_like(self, values: Float[Tensor, "..."]) -> Float[Tensor, " classes"]:
        """The classes' weights, with the dtype and on the device of `values`."""
        assert self.class_weights is not None
        return _tensor(self.class_weights, values.dtype, values.device)


def widened(value: Any) -> Any:
    """A 16-bit tensor as 32 bits, in which losses and counts of rows add up; any other value as it is.

    >>> widened(torch.ones(2, dtype=torch.bfloat16)).dtype, widened("text")
    (torch.float32, 'text')
    """
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value


def losses_and_gaps(task: Task, train: Sums, validation: Sums) -> dict[str, Float[Tensor, "*trials"]]:
    """Training value, validation value and gap of the loss and of the metrics, from sums of one trial or of several.

    >>> train = {"loss": torch.tensor(2.0), "size": torch.tensor(4.0), "hits": torch.tensor(4.0), "rows": torch.tensor(4.0)}
    >>> validation = train | {"loss": torch.tensor(3.0), "hits": torch.tensor(3.0)}
    >>> {name: float(value) for name, value in losses_and_gaps(Task(), train, validation).items() if "gap" in name}
    {'loss/gap': 0.25, 'accuracy/gap': 0.25}
    """
    columns = _sides("loss", train["loss"] / train["size"], validation["loss"] / validation["size"], 1.0)
    for metric in map(METRICS.__getitem__, reported(task.metric.name)):
        sign = -1.0 if metric.larger_is_better else 1.0
        columns |= _sides(metric.name, metric.value(train), metric.value(validation), sign)
    return columns


def _sides(
    name: str, train: Float[Tensor, "*trials"], validation: Float[Tensor, "*trials"], sign: float
) -> dict[str, Float[Tensor, "*trials"]]:
    gap = sign * generalization_gap(train, validation)
    return {f"{name}/train": train, f"{name}/val": validation, f"{name}/gap": gap}


def generalization_gap(
    train: Float[Tensor, "*trials"], validation: Float[Tensor, "*trials"]
) -> Float[Tensor, "*trials"]:
    """Validation minus training loss per trial; both in eval mode, without penalties, on the same weights.

    >>> generalization_gap(torch.tensor([0.25, 0.5]), torch.tensor([0.75, 0.5]))
    tensor([0.5000, 0.0000])
    """
    return validation - train
