"""The contract of every data set in the table."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)
from support.samples import dataset

from wdsearch.datasets import DATASETS, ArrayDataModule, ArraysData
from wdsearch.datasets._base import ShuffledBatches
from wdsearch.datasets._streams import StreamDataModule
from wdsearch.tasks.metrics import METRICS, total
from wdsearch.tasks.task import Task, losses_and_gaps

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
    [
        ("accuracy", accuracy_score),
        ("balanced_accuracy", balanced_accuracy_score),
        ("r2", r2_score),
        ("rmse", root_mean_squared_error),
        ("mae", mean_absolute_error),
    ],
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


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e4, 1e5])
def test_r2_is_scikit_learns_where_the_mean_is_far_larger_than_the_spread(mean: float) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = mean + torch.randn(1000, 1, generator=generator)
    outputs = targets + 0.5 * torch.randn(1000, 1, generator=generator)
    for task in (Task("regression"), Task("regression", center=(mean,))):
        sums = total(task.sums(o, t) for o, t in zip(outputs.split(100), targets.split(100), strict=True))
        assert float(task.metric.value(sums)) == pytest.approx(r2_score(targets.double(), outputs.double()), abs=1e-4)
    energies = 1e9 + torch.randn(100, 1, generator=generator, dtype=torch.float64)
    guesses, about = energies + 0.5, Task("regression", center=(1e9,))
    r2 = float(about.metric.value(about.sums(guesses, energies)))
    assert r2 == pytest.approx(r2_score(energies - 1e9, guesses - 1e9), abs=1e-6)


def test_r2_of_constant_targets_is_undefined() -> None:
    task, targets = Task("regression", center=(4.0,)), torch.full((10, 1), 5.0)
    assert task.metric.value(task.sums(torch.randn(10, 1), targets)).isnan()


def test_errors_are_in_the_unit_of_the_target_before_it_was_standardised() -> None:
    targets = np.stack([np.arange(100.0) * 7 + 300, np.sin(np.arange(100.0))], axis=1)
    data = ArraysData(np.random.default_rng(0).normal(size=(100, 3)), targets)
    data.setup()
    standardised = data.parts["validation"].targets
    original = standardised.double().numpy() * data.target_scale + data.target_mean
    guesses = torch.zeros_like(standardised)
    task = Task("regression", scale=data.target_scale)
    sums = {"loss": torch.tensor(0.0), "size": torch.tensor(1.0)} | task.sums(guesses, standardised)
    found = losses_and_gaps(task, sums, sums)
    means = np.broadcast_to(data.target_mean, original.shape)
    assert float(found["rmse/val"]) == pytest.approx(root_mean_squared_error(original, means), rel=1e-6)
    assert float(found["mae/val"]) == pytest.approx(mean_absolute_error(original, means), rel=1e-6)
    assert float(found["r2/val"]) == pytest.approx(r2_score(original, means), abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "sizes"), [(201, [100, 101]), (200, [100, 100]), (202, [100, 100, 2]), (1, [1]), (101, [101])]
)
def test_no_single_row_is_left_over_to_a_batch(rows: int, sizes: list[int]) -> None:
    batches = ShuffledBatches(rows, 100, seed=0)
    assert ([len(batch) for batch in batches], len(batches)) == (sizes, len(sizes))
    assert sorted(torch.cat(list(batches)).tolist()) == list(range(rows))


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
