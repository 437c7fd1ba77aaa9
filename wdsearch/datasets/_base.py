"""Data modules of arrays: split, standardised, and in an order that depends on (seed, epoch) alone."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import psutil
import torch
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.utils.data import BatchSampler as InOrder
from torch.utils.data import DataLoader, Sampler, SequentialSampler, TensorDataset

from wdsearch.noise import derive_seed

EVAL_BATCH, EVAL_BYTES = 1024, 2**26
MOST_EVALUATED = 10_000
"""Most training rows on which the gap is measured if rows are read anew each time."""

SHARE_OF_MEMORY = 4


def fits(size: int) -> bool:
    """True if so many bytes are less than a quarter of the free memory; larger data are read batch by batch.

    >>> fits(1000), fits(2**60)
    (True, False)
    """
    return size < psutil.virtual_memory().available / SHARE_OF_MEMORY


class Arrays(NamedTuple):
    """Rows of inputs (an array, or another input of the preprocessor) and their targets.

    >>> Arrays(np.zeros((2, 3)), np.array([0, 1])).targets
    array([0, 1])
    """

    inputs: Any
    targets: np.ndarray


class Rows(TensorDataset):
    """Rows of a part in memory: inputs, and the targets last."""

    @property
    def targets(self) -> Tensor:
        """Class numbers, or quantities."""
        return self.tensors[-1]

    def some(self, numbers: Tensor) -> "Rows":
        """Subset of the rows, by their numbers."""
        return Rows(*self[numbers])

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes that identify the rows."""
        return (tensor.contiguous().numpy().tobytes() for tensor in self.tensors)


class ShuffledBatches(Sampler[torch.Tensor]):
    """Batches of row numbers in an order of (seed, epoch); Lightning calls `set_epoch` before each epoch.

    A single row that would be left over joins the last batch: one row has no variance, by which batch norm divides.

    >>> [len(batch) for batch in ShuffledBatches(rows=7, batch_size=3, seed=0)]
    [3, 4]
    >>> sampler = ShuffledBatches(rows=5, batch_size=3, seed=0)
    >>> sampler.set_epoch(2)
    >>> [len(batch) for batch in sampler], sorted(torch.cat(list(sampler)).tolist())
    ([3, 2], [0, 1, 2, 3, 4])
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size = rows, min(batch_size, rows)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch for the iterators that begin from now on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        # a generator: where a checkpoint is continued, Lightning makes the iterator before it tells the epoch
        order = torch.randperm(self.rows, generator=generator)
        sizes = [self.batch_size] * len(self)
        sizes[-1] += self.rows - sum(sizes)
        yield from order.split(sizes)

    def __len__(self) -> int:
        whole, rest = divmod(self.rows, self.batch_size)
        return whole + (rest > 1 or (rest == 1 and whole == 0))


class ArrayDataModule(L.LightningDataModule):
    """Train, validation and test rows of arrays, which a subclass provides.

    `split_seed` draws the split and the rows on which the training loss is evaluated, `seed` the order of the batches.
    `validation` and `test` are shares of all rows. Classification is split with equal class shares. Inputs, and the
    target of a regression, are standardised by mean and standard deviation of the training rows.
    `from_study` names those of `task`, `codes` and `folder` that are arguments of a subclass; the study sets them, not the user.
    Targets of a regression are (y − `target_mean`) / `target_scale`. `about` is a line for people.
    `class_weight` is `balanced`, or a weight for each class by its name in `classes` or its number.

    >>> class Parity(ArrayDataModule):
    ...     def arrays(self):
    ...         return Arrays(np.arange(100.0).reshape(-1, 1), np.arange(100) % 2)
    >>> data = Parity(batch_size=20)
    >>> data.setup()
    >>> {name: len(part) for name, part in data.parts.items()}, data.inputs, data.outputs
    ({'train': 60, 'validation': 20, 'test': 20}, 1, 2)
    """

    task: str = "classification"
    metric: str = "accuracy"
    row_shape: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    class_weight: str | Mapping[Any, float] | None = None
    from_study: tuple[str, ...] = ()
    about: str = ""
    target_mean: tuple[float, ...] = ()
    target_scale: tuple[float, ...] = ()
    most_evaluated: int = 10**9
    validation: float = 0.2
    test: float = 0.2

    def __init__(self, split_seed: int = 0, seed: int = 0, batch_size: int = 100) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it is a number of rows, 1 or more")
        self.split_seed, self.seed, self.batch_size = split_seed, seed, batch_size
        self.parts: dict[str, Any] = {}

    def arrays(self) -> Arrays:
        """All rows."""
        raise NotImplementedError

    def splits(self) -> dict[str, Arrays]:
        """Rows of `train`, `validation` and `test`."""
        rest, test = _split(self.arrays(), self.test, self.split_seed, self.task)
        train, validation = _split(rest, self.validation / (1 - self.test), self.split_seed, self.task)
        return {"train": train, "validation": validation, "test": test}

    def preprocessor(self) -> Any:
        """A scikit-learn transformer that is fitted to the training inputs and applied to those of every part."""
        return StandardScaler()

    def setup(self, stage: str | None = None) -> None:
        """Split and standardise, once."""
        if self.parts:
            return
        splits = self.splits()
        scaler = self.preprocessor().fit(splits["train"].inputs)
        target_scaler = self.target_scaler(splits["train"].targets)
        for name, part in splits.items():
            inputs = torch.tensor(scaler.transform(part.inputs), dtype=torch.float32)
            self.parts[name] = Rows(inputs, self.scaled(part.targets, target_scaler))

    def target_scaler(self, targets: np.ndarray) -> StandardScaler | None:
        """Scaler of the quantities of a regression; None for classes. Sets `target_mean` and `target_scale`."""
        if self.task != "regression":
            return None
        scaler = StandardScaler().fit(targets.reshape(len(targets), -1))
        self.target_mean, self.target_scale = tuple(scaler.mean_.tolist()), tuple(scaler.scale_.tolist())
        return scaler

    def scaled(self, targets: np.ndarray, scaler: StandardScaler | None) -> Tensor:
        """Targets as class numbers, or as standardised quantities (rows, quantities)."""
        if scaler is None:
            return torch.tensor(targets, dtype=torch.int64)
        return torch.tensor(scaler.transform(targets.reshape(len(targets), -1)), dtype=torch.float32)

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
        targets = self.parts["train"].targets
        if self.classes is not None:
            return len(self.classes)
        return int(targets.max()) + 1 if self.task == "classification" else targets.shape[1]

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Weight of each class in the loss; None if all count alike. Raises ValueError for a wrong `class_weight`."""
        if self.class_weight is None:
            return None
        if self.task != "classification":
            raise ValueError("class_weight is for classification; the target is a quantity")
        names = self.classes or tuple(map(str, range(self.outputs)))
        return _class_weights(self.class_weight, names, self.parts["train"].targets.numpy())

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training rows."""
        sampler = ShuffledBatches(len(self.parts["train"]), self.batch_size, self.seed)
        return DataLoader(self.parts["train"], sampler=sampler, batch_size=None)

    def train_eval_dataloader(self) -> DataLoader:
        """A fixed random subset of the training rows, as large as the validation set: the gap's training side.

        Not more than `most_evaluated`.
        """
        rows = min(len(self.parts["validation"]), len(self.parts["train"]), self.most_evaluated)
        generator = torch.Generator().manual_seed(derive_seed(self.split_seed, "train_eval"))
        chosen = torch.randperm(len(self.parts["train"]), generator=generator)[:rows]
        return self.in_order(self.parts["train"].some(chosen))

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation rows, in order."""
        return self.in_order(self.parts["validation"])

    def test_dataloader(self) -> DataLoader:
        """Batches of the test rows, in order."""
        return self.in_order(self.parts["test"])

    def in_order(self, part: Any) -> DataLoader:
        """Batches of a part's rows in order, of at most 64 MiB."""
        rows = max(1, min(EVAL_BATCH, EVAL_BYTES // (4 * self.inputs)))
        sampler = InOrder(SequentialSampler(part), rows, drop_last=False)
        return DataLoader(part, sampler=sampler, batch_size=None)


def _class_weights(choice: str | Mapping[Any, float], names: tuple[str, ...], targets: np.ndarray) -> tuple[float, ...]:
    """scikit-learn's `balanced` weights, rows / (classes · rows of the class), or those chosen; 1 for a class not named."""
    if choice == "balanced":
        missing = [name for number, name in enumerate(names) if number not in targets]
        if missing:
            raise ValueError(f"class_weight is balanced, but no training row is of class {', '.join(missing)}")
        weights = compute_class_weight("balanced", classes=np.arange(len(names)), y=targets)
    elif isinstance(choice, Mapping):
        by_name = {str(name): weight for name, weight in choice.items()}
        unknown = sorted(by_name.keys() - set(names))
        if unknown:
            raise ValueError(f"class_weight names {', '.join(unknown)}; the classes are {', '.join(names)}")
        weights = np.array([by_name.get(name, 1.0) for name in names], dtype=float)
    else:
        raise ValueError(f"class_weight is {choice!r}; it is balanced, or a weight for each class")
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"class_weight is {choice!r}; a weight is a number above 0")
    return tuple(weights.tolist())


def _split(rows: Arrays, share: float, seed: int, task: str) -> tuple[Arrays, Arrays]:
    stratify = rows.targets if task == "classification" else None
    first, second, first_targets, second_targets = train_test_split(
        rows.inputs, rows.targets, test_size=share, random_state=seed % 2**32, stratify=stratify
    )
    return Arrays(first, first_targets), Arrays(second, second_targets)
