"""The contract of every data set in the table."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, r2_score
from support.samples import dataset

from wdsearch.datasets import DATASETS, ArrayDataModule
from wdsearch.datasets._streams import StreamDataModule
from wdsearch.tasks import METRICS, Task, losses_and_gaps, total

every_dataset = pytest.mark.parametrize("name", DATASETS)


def part(data: ArrayDataModule, name: str) -> tuple[torch.Tensor, ...]:
    return data.parts[name].tensors


@every_dataset
def test_parts_share_no_row_and_depend_on_the_split_seed_alone(name: str) -> None:
    first, again, other = (dataset(name, split_seed=s, seed=seed) for s, seed in ((1, 0), (1, 9), (2, 0)))
    for rows in ("train", "validation", "test"):
        assert torch.equal(part(first, rows)[0], part(again, rows)[0])
    assert not torch.equal(part(first, "train")[0], part(other, "train")[0])
    rows = [{row.numpy().tobytes() for row in part(first, rows)[0]} for rows in ("train", "validation", "test")]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


@every_dataset
def test_inputs_are_standardised_by_the_training_rows_alone(name: str) -> None:
    data = dataset(name)
    inputs = part(data, "train")[0].double()
    if isinstance(data, StreamDataModule) and len(data.shape) > 1:  # by channel
        inputs = inputs.reshape(len(inputs), data.shape[0], -1).movedim(1, -1).flatten(0, 1)
    deviations = inputs.std(0, unbiased=False)
    torch.testing.assert_close(inputs.mean(0), torch.zeros_like(deviations), atol=1e-5, rtol=0)
    assert ((deviations - 1).abs() < 1e-4).logical_or(deviations == 0).all()
    assert part(data, "validation")[0].mean().abs() > 1e-6


@every_dataset
def test_class_shares_are_alike_in_all_parts(name: str) -> None:
    data = dataset(name)
    if data.task == "classification":
        shares = [np.bincount(part(data, rows)[1]) / len(part(data, rows)[1]) for rows in ("train", "validation")]
        np.testing.assert_allclose(shares[0], shares[1], atol=0.02)
    assert data.outputs == (len(np.unique(part(data, "train")[1])) if data.task == "classification" else 1)


@every_dataset
def test_batches_depend_on_seed_and_epoch_alone(name: str) -> None:
    def epoch(seed: int, number: int) -> torch.Tensor:
        data = dataset(name, seed=seed, batch_size=50)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        batches = [inputs for inputs, _ in loader]
        assert len(batches) == len(loader)
        return torch.cat(batches)

    assert torch.equal(epoch(0, 3), epoch(0, 3))
    assert not torch.equal(epoch(0, 3), epoch(0, 4))
    assert not torch.equal(epoch(0, 3), epoch(1, 3))
    assert torch.equal(epoch(0, 3).sort(0).values, epoch(1, 4).sort(0).values), "each row once an epoch"


@every_dataset
def test_the_training_side_of_the_gap_is_as_large_as_the_validation_set(name: str) -> None:
    data = dataset(name)
    rows = sum(len(targets) for _, targets in data.train_eval_dataloader())
    assert rows == len(data.parts["validation"])


def test_mnist1d_is_the_published_set() -> None:
    data = dataset("mnist1d")
    assert [len(data.parts[name]) for name in ("train", "validation", "test")] == [3200, 800, 1000]


@pytest.mark.parametrize(
    ("metric", "sklearns"),
    [("accuracy", accuracy_score), ("balanced_accuracy", balanced_accuracy_score), ("r2", r2_score)],
)
def test_metrics_are_scikit_learns_however_batched(metric: str, sklearns) -> None:
    generator = torch.Generator().manual_seed(0)
    if METRICS[metric].task == "classification":
        outputs = torch.randn(200, 4, generator=generator, dtype=torch.float64)
        targets = torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1]), 200, replacement=True, generator=generator)
        expected = sklearns(targets, outputs.argmax(1))
    else:
        targets = torch.randn(200, 1, generator=generator, dtype=torch.float64)
        outputs = targets + 0.5 * torch.randn(200, 1, generator=generator, dtype=torch.float64)
        expected = sklearns(targets, outputs)
    task = Task(METRICS[metric].task, metric)
    batches = [
        {"loss": task.loss(o, t) * len(t), "size": torch.tensor(float(len(t)))} | task.metric.sums(o, t)
        for o, t in zip(outputs.split(64), targets.split(64), strict=True)
    ]
    found = losses_and_gaps(task, total(batches), total(batches))
    assert float(found[f"{metric}/val"]) == pytest.approx(expected, abs=1e-9)
    assert float(found["loss/val"]) == pytest.approx(float(task.loss(outputs, targets)), abs=1e-6)
    assert float(found["loss/gap"]) == 0.0


@pytest.mark.parametrize("weights", [None, (1.0, 0.2, 7.0, 0.1)])
def test_cross_entropy_is_torchs_however_batched(weights: tuple[float, ...] | None) -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(30, 4, dtype=torch.float64), torch.randint(0, 4, (30,))
    task, weight = Task(class_weights=weights), None if weights is None else torch.tensor(weights).double()
    torchs = torch.nn.functional.cross_entropy(outputs, targets, weight)
    torch.testing.assert_close(task.loss(outputs, targets), torchs)
    parts = []
    for some, theirs in zip(outputs.split(7), targets.split(7), strict=True):
        loss = task.loss(some, theirs)
        size = task.size(loss, theirs)
        parts.append({"loss": loss * size, "size": size} | task.metric.sums(some, theirs))
    found = losses_and_gaps(task, total(parts), total(parts))
    torch.testing.assert_close(found["loss/val"], torchs)
    assert float(found["accuracy/val"]) == pytest.approx(float((outputs.argmax(1) == targets).double().mean()))
