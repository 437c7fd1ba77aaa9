"""Tests of loaders without a length and of the training rows on which the gap is measured."""

from collections.abc import Iterator

import lightning as L
import pytest
import torch
from support.training import INF, Ends, train_fused
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from wdsearch.trial.loaders import epoch_length, train_eval_loader
from wdsearch.trial.module import RegularizedModule
from wdsearch.trial.recipe import Recipe


class Stream(IterableDataset):
    """Rows in order, and nobody knows how many."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        generator = torch.Generator().manual_seed(self.rows)
        for _ in range(self.rows):
            x = torch.randn(4, generator=generator, dtype=torch.float64)
            yield x, int(x[0] > 0)


class Data(L.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Stream(75), batch_size=10)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Stream(25), batch_size=10)


def test_batches_of_a_stream_are_counted_and_a_schedule_goes_by_them() -> None:
    """Against a plain loop of torch, with a cosine over 2 epochs of 8 batches, the last of 5 rows."""
    torch.manual_seed(0)
    network = nn.Linear(4, 2).double()
    trial = RegularizedModule(network, {"weight_decay": 0.5}, 0.1, Recipe("adamw", schedule="cosine"))
    plain = nn.Linear(4, 2).double()
    plain.load_state_dict(network.state_dict())
    ends: Ends = train_fused({0: trial}, Data(), 2)
    groups = [{"params": [plain.weight], "weight_decay": 0.5}, {"params": [plain.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 16)
    for _ in range(2):
        for inputs, targets in Data().train_dataloader():
            optimizer.zero_grad()
            F.cross_entropy(plain(inputs), targets).backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(ends.states[0]["network.weight"], plain.weight.detach(), rtol=0.0, atol=1e-12)
    assert ends.epochs[0][-1].metrics["loss/gap"] < INF


def test_the_gap_of_a_stream_is_measured_on_batches_from_all_of_it() -> None:
    data = Data()
    assert epoch_length(data) == 8
    first, again = ([batch[0] for batch in train_eval_loader(data)] for _ in range(2))
    assert [len(batch) for batch in first] == [10, 10, 10]
    batches = [batch[0] for batch in data.train_dataloader()]
    assert all(torch.equal(one, batches[place]) for one, place in zip(first, (0, 2, 5), strict=True))
    assert all(map(torch.equal, first, again))


class Shared(L.LightningDataModule):
    """One data set, of which the loaders' samplers draw different rows; each row holds its number."""

    def __init__(self, **loading: object) -> None:
        super().__init__()
        self.rows, self.loading = TensorDataset(torch.arange(100.0)), loading

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, **self.loading)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Subset(self.rows, range(60)), batch_size=30)


class Evens(Sampler[list[int]]):
    """A sampler of whole batches of a user's own."""

    def __iter__(self) -> Iterator[list[int]]:
        return (list(range(start, start + 20, 2)) for start in range(0, 100, 20))

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize(
    ("loading", "drawn"),
    [
        ({"batch_size": 10, "sampler": SubsetRandomSampler(range(70, 100))}, set(range(70, 100))),
        ({"batch_size": 10, "sampler": WeightedRandomSampler([0.0] * 95 + [1.0] * 5, 100)}, set(range(95, 100))),
        ({"batch_sampler": Evens()}, set(range(0, 100, 2))),
        ({"batch_size": None, "sampler": [[4, 5], [7]]}, {4, 5, 7}),
    ],
    ids=["subset", "weights", "own batches", "indices of batches"],
)
def test_the_gap_is_measured_on_rows_that_the_sampler_draws(loading: dict[str, object], drawn: set[int]) -> None:
    measured = [torch.cat([batch[0] for batch in train_eval_loader(Shared(**loading))]) for _ in range(2)]
    assert torch.equal(*measured), "always the same rows"
    assert {int(row) for row in measured[0]} == drawn


def test_of_a_loader_that_draws_all_rows_a_subset_as_large_as_the_validation_set_is_chosen() -> None:
    shuffled = torch.cat([batch[0] for batch in train_eval_loader(Shared(batch_size=10, shuffle=True))])
    in_order = torch.cat([batch[0] for batch in train_eval_loader(Shared(batch_size=7))])
    assert torch.equal(shuffled, in_order)
    assert len(shuffled.unique()) == 60
    assert shuffled.max() > 60
