"""Batches in an order that depends on (seed, epoch) alone, and the training rows on which the gap is measured."""

from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any

import lightning as L
import torch
from jaxtyping import Int
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from wdsearch.noise import derive_seed, seed_generators
from wdsearch.trial.batches import rows_of

MOST_EVALUATED = 10_000
"""Most training rows on which the gap of data without `train_eval_dataloader` is measured."""


MOST_COUNTED = 100_000
"""Most batches that are counted of data without a length: such as do not end within them may never end."""


def batches_of(loader: Any, seed: int, epoch: int, count: int | None = None) -> Iterator[Any]:
    """Batches of a loader in the order of this epoch, reproducible whatever else draws random numbers.

    A sampler with `set_epoch` gets the epoch; all others draw from generators that are seeded before each batch. At most `count`
    batches, by default the loader's length.

    >>> loader = DataLoader(torch.arange(6), batch_size=3, shuffle=True)
    >>> first, again = (torch.cat(list(batches_of(loader, seed=0, epoch=2))) for _ in range(2))
    >>> torch.equal(first, again), sorted(first.tolist())
    (True, [0, 1, 2, 3, 4, 5])
    """
    samplers = [getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)]
    for sampler in samplers:
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
    for owner in (loader, *samplers):
        generator = getattr(owner, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(derive_seed(seed, "order", epoch))
    _seed(seed, epoch, 0)
    batches = iter(loader)
    for index in range(len(loader) if count is None else count):
        _seed(seed, epoch, index)
        try:
            batch = next(batches)
        except StopIteration:
            return
        yield batch


def has_length(loader: Any) -> bool:
    """True if a loader says its number of batches.

    >>> has_length([1, 2]), has_length(iter([1, 2]))
    (True, False)
    """
    try:
        len(loader)
    except TypeError:
        return False
    return True


def epoch_length(data: L.LightningDataModule) -> int:
    """Number of training batches of an epoch, on which the learning rate's schedule depends.

    Those of a stream without a length are counted once, in one pass over it. Raises ValueError if it does not seem to end.

    >>> class Data(L.LightningDataModule):
    ...     def train_dataloader(self):
    ...         return DataLoader(torch.arange(6), batch_size=4)
    >>> epoch_length(Data())
    2
    """
    loader = data.train_dataloader()
    if has_length(loader):
        return len(loader)
    counted: int | None = vars(data).get(_COUNTED)
    if counted is None:
        counted = sum(1 for _ in batches_of(loader, 0, 0, MOST_COUNTED + 1))
        vars(data)[_COUNTED] = counted
    if counted > MOST_COUNTED:
        text = f"have no length and do not end within {MOST_COUNTED:,} batches"
        raise ValueError(f"the training data {text}: give the data set or its loader a __len__, the length of an epoch")
    return counted


_COUNTED = "_wdsearch_epoch_length"


def _seed(seed: int, epoch: int, index: int) -> None:
    """Seed the generators from which augmentation draws."""
    seed_generators(derive_seed(seed, "data", epoch, index))


def train_eval_loader(data: L.LightningDataModule) -> Any:
    """Training rows in a fixed order, for the gap: the data's own, or a random subset as large as the validation set.

    Only rows that the training loader draws count: a sampler may tell training rows from others of the same data set.

    Of a stream, in which no row can be chosen, they are whole batches at equal distances in its first epoch, which are kept.

    >>> class Data(L.LightningDataModule):
    ...     def train_dataloader(self):
    ...         return DataLoader(torch.arange(6), batch_size=3, shuffle=True)
    ...     def val_dataloader(self):
    ...         return DataLoader(torch.arange(4), batch_size=4)
    >>> [len(batch) for batch in train_eval_loader(Data())]
    [4]
    """
    if hasattr(data, "train_eval_dataloader"):
        return data.train_eval_dataloader()
    train, validation = data.train_dataloader(), data.val_dataloader()
    rows = getattr(train, "dataset", None)
    if not isinstance(train, DataLoader) or isinstance(rows, IterableDataset) or not isinstance(rows, Sized):
        return _of_stream(data, validation)
    most = len(getattr(validation, "dataset", ())) or MOST_EVALUATED
    generator, drawn = torch.Generator().manual_seed(derive_seed("train_eval")), _drawn(train)
    chosen = drawn[torch.randperm(len(drawn), generator=generator)[: min(most, MOST_EVALUATED)]]
    size = getattr(validation, "batch_size", None) or 512
    fixed = _Fixed(rows)
    if _takes_batches(train):
        return DataLoader(fixed, sampler=list(chosen.split(size)), batch_size=None)
    subset: Subset[Any] = Subset(fixed, chosen.tolist())
    return DataLoader(subset, batch_size=size, collate_fn=train.collate_fn, num_workers=train.num_workers)


def _drawn(loader: DataLoader) -> Int[Tensor, " rows"]:
    """Numbers of the rows that a loader draws in its first epoch, each once and ascending: a sampler may leave out others."""
    rows = torch.arange(len(loader.dataset))  # type: ignore[arg-type]
    sampler = loader.sampler
    shuffles = isinstance(sampler, RandomSampler) and not sampler.replacement and sampler.num_samples >= len(rows)
    if type(loader.batch_sampler) is BatchSampler and (shuffles or isinstance(sampler, SequentialSampler)):
        return rows
    _seed(0, 0, 0)
    batches = islice(loader.batch_sampler or sampler, len(loader))
    numbers = [torch.as_tensor(batch).reshape(-1) for batch in batches]
    return torch.cat(numbers).unique() if numbers else rows


def _of_stream(data: L.LightningDataModule, validation: Any) -> DataLoader:
    """Batches at equal distances in a stream's first epoch, with as many rows as the validation set or a batch more."""
    evaluated: list[Any] | None = vars(data).get(_KEPT)
    if evaluated is None:
        count, needed = epoch_length(data), min(_rows_in(validation), MOST_EVALUATED)
        first = next(batches_of(data.train_dataloader(), 0, 0, 1), None)
        number = min(count, -(-needed // max(1, rows_of(first))))
        chosen = {count * index // max(1, number) for index in range(number)}
        batches = enumerate(batches_of(data.train_dataloader(), 0, 0, count))
        vars(data)[_KEPT] = evaluated = [batch for index, batch in batches if index in chosen]
    return DataLoader(evaluated, batch_size=None)  # type: ignore[arg-type]


_KEPT = "_wdsearch_training_rows"


def _rows_in(loader: Any) -> int:
    """Rows of a loader's data set, or of its batches until there are enough."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Sized):
        return len(dataset)
    rows = 0
    for batch in islice(loader, MOST_COUNTED):
        rows += rows_of(batch)
        if rows >= MOST_EVALUATED:
            break
    return rows


def last_batch_rows(loader: Any) -> int | None:
    """Rows of the last batch of an epoch; None if the loader does not tell.

    >>> last_batch_rows(DataLoader(torch.arange(7), batch_size=3)), last_batch_rows([1, 2])
    (1, None)
    """
    size, sampler = getattr(loader, "batch_size", None), getattr(loader, "sampler", None)
    if not size or not isinstance(sampler, Sized) or loader.drop_last:
        return None
    return len(sampler) % size or size


def augments_itself(data: L.LightningDataModule) -> bool:
    """True if the gap is measured on rows that change each time they are drawn for training.

    >>> class Data(L.LightningDataModule):
    ...     def train_dataloader(self):
    ...         return DataLoader(torch.arange(6))
    >>> augments_itself(Data())
    False
    """
    train = data.train_dataloader()
    of_stream = isinstance(getattr(train, "dataset", None), IterableDataset)
    if hasattr(data, "train_eval_dataloader") or of_stream or not hasattr(train, "dataset"):
        return False
    index = torch.tensor([0]) if _takes_batches(train) else 0
    first, second = (_tensors(train.dataset[index]) for _ in range(2))
    return any(not one.equal(other) for one, other in zip(first, second, strict=True))


def _takes_batches(loader: DataLoader) -> bool:
    """True if its data set is indexed by the row numbers of a whole batch at once."""
    return loader.batch_size is None and loader.batch_sampler is None


class _Fixed(Dataset):
    """Rows with the same augmentation each time: generators are seeded by the row number."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        first = int(index.reshape(-1)[0]) if isinstance(index, Tensor) else int(index)
        _seed(0, 0, first)
        return self.rows[index]


def _tensors(batch: Any) -> list[Tensor]:
    tensors: list[Tensor] = []
    apply_to_collection(batch, Tensor, tensors.append)
    return tensors
