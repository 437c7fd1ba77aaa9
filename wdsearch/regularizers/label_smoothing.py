"""Label smoothing with a rate that is data (torch's own takes a float only)."""

from jaxtyping import Float, Shaped
from torch import Tensor

from wdsearch.regularizers._base import Regularizer
from wdsearch.tasks.task import Task
from wdsearch.types import Interval, Range, Scalar


def _loss(
    value: Scalar,
    outputs: Float[Tensor, "batch ... classes"],
    targets: Shaped[Tensor, "batch ..."],
    strength: Scalar,
    task: Task,
) -> Scalar:
    """(1 − ε)·CE + ε·mean over classes of −log p (Szegedy et al. 1512.00567, section 7), averaged over the batch.

    With class weights as torch does it: every class's −log p counts by its weight, also where it is spread evenly.
    """
    nats = -outputs.log_softmax(dim=-1)
    if task.class_weights is None:
        uniform = nats.mean()
    else:
        uniform = (nats * task.weights_like(outputs)).mean(dim=-1).sum() / task.size(value, targets)
    return (1.0 - strength) * value + strength * uniform


label_smoothing = Regularizer(
    key="label_smoothing",
    summary="share of the target spread evenly over all classes (Szegedy et al. 1512.00567)",
    unit="share of the target",
    neutral=0.0,
    domain=Interval(0.0, 1.0, high_open=True),
    usual=Range(0.0, 0.2),
    torch=lambda strength, _: f"torch.nn.CrossEntropyLoss(label_smoothing={strength:.6g})",
    tasks=("classification",),
    loss=_loss,
    code="label_smoothing={strength}",
)
