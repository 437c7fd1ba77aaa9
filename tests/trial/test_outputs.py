"""Tests of what networks give and data hold as targets: the losses are torch's, or a refusal says what to do."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch import Tensor
from torch.nn import functional as F

from wdsearch.tasks.task import Task, logits_of

SCORES = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LOGIT = SCORES[:, 0]
CLASSES = torch.tensor([0, 2, 1, 1, 0, 2])
BINARY = torch.tensor([0, 1, 1, 0, 1, 0])
SHARES = SCORES.softmax(-1)


@dataclass
class Output:
    """As the heads of Hugging Face give it."""

    loss: Tensor | None
    logits: Tensor


@pytest.mark.parametrize(
    "outputs",
    [
        (SCORES, "attention"),
        [SCORES, SCORES[:1]],
        (torch.tensor(1.0), SCORES),
        {"loss": torch.tensor(1.0), "logits": SCORES, "scores": None},
        {"out": SCORES},
        Output(None, SCORES),
        Output(torch.tensor(1.0), (SCORES, SCORES[:1])),  # type: ignore[arg-type]
    ],
)
def test_the_logits_are_found_among_outputs(outputs: Any) -> None:
    assert logits_of(outputs) is SCORES
    assert torch.equal(Task().loss(outputs, CLASSES), Task().loss(SCORES, CLASSES))


@pytest.mark.parametrize("outputs", [{"a": SCORES, "b": SCORES}, {"out": SCORES, "scores": SCORES}, (), None, "text"])
def test_outputs_in_which_the_logits_cannot_be_told_are_refused_with_what_to_do(outputs: Any) -> None:
    with pytest.raises(ValueError, match=r"cannot be told; give them as a tensor or as \.logits, or subclass"):
        logits_of(outputs)


@pytest.mark.parametrize("outputs", [LOGIT, LOGIT.unsqueeze(-1)])
@pytest.mark.parametrize("targets", [BINARY, BINARY.unsqueeze(-1), BINARY.bool(), BINARY.double(), 0.25 + 0.5 * BINARY])
def test_one_logit_is_the_binary_cross_entropy_of_torch(outputs: Tensor, targets: Tensor) -> None:
    expected = F.binary_cross_entropy_with_logits(LOGIT, targets.reshape(-1).double())
    torch.testing.assert_close(Task().loss(outputs, targets), expected, rtol=1e-14, atol=0.0)
    sums = Task().sums(outputs, targets)
    assert sums["hits"] == ((LOGIT > 0) == (targets.reshape(-1) > 0.5)).sum()


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8])
def test_class_numbers_of_any_integer_type_give_the_cross_entropy_of_torch(kind: torch.dtype) -> None:
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(Task().loss(SCORES, CLASSES.to(kind)), F.cross_entropy(SCORES, CLASSES))
    task = Task(class_weights=(1.0, 2.0, 0.5))
    torch.testing.assert_close(task.loss(SCORES, CLASSES.to(kind)), F.cross_entropy(SCORES, CLASSES, weights))
    torch.testing.assert_close(task.size(SCORES.sum(), CLASSES.to(kind)), weights[CLASSES].sum())


PIXELS = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
PIXEL_CLASSES = torch.arange(40).reshape(2, 4, 5) % 3


@pytest.mark.parametrize(("outputs", "first"), [(PIXELS, PIXELS), (PIXELS.movedim(1, -1), PIXELS)])
def test_classes_of_pixels_and_words_are_the_second_axis_or_the_last(outputs: Tensor, first: Tensor) -> None:
    expected = F.cross_entropy(first, PIXEL_CLASSES)
    torch.testing.assert_close(Task().loss(outputs, PIXEL_CLASSES), expected)
    for metric, scored in (("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score)):
        task = Task(metric_name=metric)
        value = task.metric.value(task.sums(outputs, PIXEL_CLASSES))
        assert float(value) == pytest.approx(scored(PIXEL_CLASSES.flatten(), first.argmax(1).flatten()))


@pytest.mark.parametrize("targets", [SHARES, F.one_hot(CLASSES, 3).double(), SHARES.float()])
def test_shares_of_classes_give_the_cross_entropy_of_torch(targets: Tensor) -> None:
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(Task().loss(SCORES, targets), F.cross_entropy(SCORES, targets.double()))
    task = Task(class_weights=(1.0, 2.0, 0.5))
    torch.testing.assert_close(task.loss(SCORES, targets), F.cross_entropy(SCORES, targets.double(), weights))
    assert task.size(SCORES.sum(), targets) == 6


@pytest.mark.parametrize(
    ("outputs", "targets", "text"),
    [
        (SCORES, CLASSES.unsqueeze(-1), r"class numbers have shape \(6,\), one a row; the targets have \(6, 1\)"),
        (SCORES, CLASSES + 1, "targets go from 1 to 3, and the network gives scores of 3 classes; .* numbered from 0"),
        (SCORES, CLASSES - 1, "targets go from -1 to 1"),
        (
            SCORES,
            torch.where(CLASSES > 1, -100, CLASSES),
            "to ignore targets of -100 override loss and evaluation",
        ),
        (
            PIXELS[:, :, :3, :3],
            PIXEL_CLASSES[:, :3, :3],
            "either the second axis or the last may be that of the classes",
        ),
        (PIXELS, PIXELS.softmax(1), "either the second axis or the last may be that of the classes; override loss and"),
        (SCORES, CLASSES.double(), r"class numbers must be integers \(\.long\(\)\)"),
        (SCORES, SHARES.round(), "add up to 1 in each row, and these do not; for several classes a row override loss"),
        (LOGIT, CLASSES, "one logit a row, for two classes, and targets go from 0 to 2; with more classes"),
        (SCORES[:4], CLASSES, r"class numbers have shape \(4,\)"),
    ],
)
def test_targets_that_do_not_fit_the_outputs_are_refused(outputs: Tensor, targets: Tensor, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Task().loss(outputs, targets)


def test_a_regression_takes_outputs_and_targets_of_any_form_and_number_type() -> None:
    task, targets = Task("regression"), torch.arange(6)
    torch.testing.assert_close(task.loss((LOGIT.unsqueeze(-1), 0), targets), F.mse_loss(LOGIT, targets.double()))
    assert task.loss(LOGIT.float(), targets.double()).dtype == torch.float32
    with pytest.raises(ValueError, match="gives 3 numbers a row, the targets are 1"):
        task.loss(SCORES, targets)
