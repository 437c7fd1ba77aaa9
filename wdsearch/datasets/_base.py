"""Arrays as a LightningDataModule: split, standardised, and in an order that depends on (seed, epoch) alone."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.data import BatchSampler as InOrder
from torch.utils.data import DataLoader, Sampler, SequentialSampler, TensorDataset

from wdsearch.noise import derive_seed

EVAL_BATCH = 1024


class Arrays(NamedTuple):
    """Rows of inputs (an array, or what the preprocessor takes) and their targets."""

    inputs: Any
    targets: np.ndarray


class ShuffledBatches(Sampler[torch.Tensor]):
    """Batches of row numbers in an order of (seed, epoch); Lightning calls `set_epoch` before each epoch."""

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed, self.epoch = rows, min(batch_size, rows), seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch for the iterators made from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        return iter(torch.randperm(self.rows, generator=generator).split(self.batch_size))

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)


class ArrayDataModule(L.LightningDataModule):
    """Train, validation and test rows of arrays; a subclass says where they come from.

    `split_seed` draws the split and the rows on which the training loss is evaluated, `seed` the order of the batches.
    `validation` and `test` are shares of all rows. Classification is split with equal class shares. Inputs, and the
    target of a regression, are standardised by mean and standard deviation of the training rows.
    """

    task: str = "classification"
    metric: str = "accuracy"
    row_shape: tuple[int, ...] | None = None
    validation: float = 0.2
    test: float = 0.2

    def __init__(self, split_seed: int = 0, seed: int = 0, batch_size: int = 100) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it is a number of rows, 1 or more")
        self.split_seed, self.seed, self.batch_size = split_seed, seed, batch_size
        self.parts: dict[str, TensorDataset] = {}

    def arrays(self) -> Arrays:
        """All rows."""
        raise NotImplementedError

    def splits(self) -> dict[str, Arrays]:
        """The rows of `train`, `validation` and `test`."""
        rest, test = _split(self.arrays(), self.test, self.split_seed, self.task)
        train, validation = _split(rest, self.validation / (1 - self.test), self.split_seed, self.task)
        return {"train": train, "validation": validation, "test": test}

    def preprocessor(self) -> Any:
        """What is fitted to the training inputs and transforms those of every part, as scikit-learn's do."""
        return StandardScaler()

    def setup(self, stage: str | None = None) -> None:
        """Split and standardise, once."""
        if self.parts:
            return
        splits = self.splits()
        scaler = self.preprocessor().fit(splits["train"].inputs)
        target_scaler = StandardScaler()
        if self.task == "regression":
            target_scaler.fit(splits["train"].targets.reshape(-1, 1))
        for name, part in splits.items():
            inputs = torch.tensor(scaler.transform(part.inputs), dtype=torch.float32)
            self.parts[name] = TensorDataset(inputs, self._targets(part.targets, target_scaler))

    def _targets(self, targets: np.ndarray, scaler: StandardScaler) -> torch.Tensor:
        if self.task == "classification":
            return torch.tensor(targets, dtype=torch.int64)
        return torch.tensor(scaler.transform(targets.reshape(-1, 1)), dtype=torch.float32)

    @property
    def inputs(self) -> int:
        """Number of features of a row."""
        self.setup()
        return self.parts["train"].tensors[0].shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row, which is stored flat: (features,), (channels, length) or (channels, height, width)."""
        return self.row_shape or (self.inputs,)

    @property
    def outputs(self) -> int:
        """Number of classes, or of targets."""
        self.setup()
        targets = self.parts["train"].tensors[1]
        return int(targets.max()) + 1 if self.task == "classification" else targets.shape[1]

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training rows."""
        sampler = ShuffledBatches(len(self.parts["train"]), self.batch_size, self.seed)
        return DataLoader(self.parts["train"], sampler=sampler, batch_size=None)

    def train_eval_dataloader(self) -> DataLoader:
        """A fixed random subset of the training rows, as large as the validation set: the gap's training side."""
        rows = min(len(self.parts["validation"]), len(self.parts["train"]))
        generator = torch.Generator().manual_seed(derive_seed(self.split_seed, "train_eval"))
        chosen = torch.randperm(len(self.parts["train"]), generator=generator)[:rows]
        return _in_order(TensorDataset(*self.parts["train"][chosen]))

    def val_dataloader(self) -> DataLoader:
        """The validation rows."""
        return _in_order(self.parts["validation"])

    def test_dataloader(self) -> DataLoader:
        """The test rows."""
        return _in_order(self.parts["test"])


def _in_order(part: TensorDataset) -> DataLoader:
    sampler = InOrder(SequentialSampler(part), EVAL_BATCH, drop_last=False)
    return DataLoader(part, sampler=sampler, batch_size=None)


def _split(rows: Arrays, share: float, seed: int, task: str) -> tuple[Arrays, Arrays]:
    stratify = rows.targets if task == "classification" else None
    first, second, first_targets, second_targets = train_test_split(
        rows.inputs, rows.targets, test_size=share, random_state=seed % 2**32, stratify=stratify
    )
    return Arrays(first, first_targets), Arrays(second, second_targets)
