"""Rows read from their source: all at once if they fit into memory, else batch by batch."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import Dataset

from wdsearch.datasets._base import MOST_EVALUATED, ArrayDataModule, Rows, fits
from wdsearch.datasets._progress import with_bar
from wdsearch.datasets._splits import check_shares, grouped, shuffled
from wdsearch.noise import derive_seed

MEASURED = 10_000
"""Most training rows from which mean and standard deviation are computed."""
READ_AT_ONCE = 500


@runtime_checkable
class Reader(Protocol):
    """Source of rows that are read by their numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""

    def __len__(self) -> int: ...

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Read some rows, (rows, *shape), in the order of their numbers. Raises DataError."""

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes that identify the rows, if possible without reading them."""


class Part(NamedTuple):
    """Rows of a reader by their numbers, and their targets: class numbers, or quantities."""

    reader: Reader
    numbers: np.ndarray
    targets: np.ndarray


class StreamedRows(Dataset):
    """Rows of a part, flat and standardised, read each time that they are indexed."""

    def __init__(self, part: Part, targets: Tensor, scaler: StandardScaler) -> None:
        self.part, self.targets = part, targets
        self.mean = torch.tensor(scaler.mean_, dtype=torch.float32).unsqueeze(1)
        self.scale = torch.tensor(scaler.scale_, dtype=torch.float32).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, numbers: Any) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(numbers)
        rows = torch.from_numpy(_by_channel(self.part.reader.read(self.part.numbers[chosen.numpy()]), np.float32))
        return ((rows - self.mean) / self.scale).flatten(1), self.targets[chosen]

    def some(self, numbers: Tensor) -> "StreamedRows":
        """Subset of the rows, by their numbers."""
        subset = object.__new__(StreamedRows)
        part = self.part._replace(numbers=self.part.numbers[numbers.numpy()])
        subset.__dict__ = self.__dict__ | {"part": part, "targets": self.targets[numbers]}
        return subset

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes that identify the rows, as far as possible without reading them."""
        yield from self.part.reader.fingerprint()
        yield self.part.numbers.tobytes()
        yield self.targets.numpy().tobytes()

    def in_memory(self, what: str) -> Rows:
        """All rows, read now with a progress bar titled `what`."""
        inputs = torch.empty(len(self), int(np.prod(self.part.reader.shape)))
        for block in with_bar(torch.arange(len(self)).split(READ_AT_ONCE), what):
            inputs[block], _ = self[block]
        return Rows(inputs, self.targets)


def _by_channel(rows: np.ndarray, dtype: type) -> np.ndarray:
    """Rows as (rows, features, 1) or (rows, channels, entries): the second axis is standardised entry by entry."""
    return rows.reshape(len(rows), rows.shape[1], -1).astype(dtype)


class StreamDataModule(ArrayDataModule):
    """Rows of a subclass's readers, standardised: by feature, or by channel where rows have several axes.

    Mean and standard deviation are those of up to 10,000 training rows. Rows are kept in memory if `in_memory`, by default if
    they take less than a quarter of what is free; otherwise they are read for each batch, and the gap is measured on
    up to 10,000 training rows. The numbers are the same either way.
    """

    in_memory: bool | None = None
    groups: np.ndarray | None = None

    def sources(self) -> dict[str, tuple[Reader, np.ndarray]]:
        """Readers and targets of `train`, and of `validation` and `test` unless these are split from `train`."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Split, fit the scaler, and read the rows that fit into memory; once."""
        if self.parts:
            return
        parts = self._parts(self.sources())
        self.row_shape = parts["train"].reader.shape
        scaler, target_scaler = self._scaler(parts["train"]), self.target_scaler(parts["train"].targets)
        streams = {
            name: StreamedRows(part, self.scaled(part.targets, target_scaler), scaler) for name, part in parts.items()
        }
        size = 4 * int(np.prod(self.row_shape)) * sum(map(len, streams.values()))
        if fits(size) if self.in_memory is None else self.in_memory:
            self.parts = {name: stream.in_memory(f"reading {name} rows") for name, stream in streams.items()}
        else:
            self.parts, self.most_evaluated = streams, MOST_EVALUATED
            self.about += "; read batch by batch"

    @property
    def inputs(self) -> int:
        """Number of features of a row."""
        return int(np.prod(self.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row, which is stored flat."""
        self.setup()
        assert self.row_shape is not None
        return self.row_shape

    def _parts(self, sources: dict[str, tuple[Reader, np.ndarray]]) -> dict[str, Part]:
        """Parts with a source of their own, and the others split from the training rows."""
        reader, targets = sources["train"]
        strata = targets if self.task == "classification" else None
        rest, rest_share = np.arange(len(reader)), 1.0
        seed = self.split_seed % 2**32
        shares = {"test": self.test, "validation": self.validation}
        shares = {name: share for name, share in shares.items() if name not in sources}
        check_shares(shares)
        parts = {name: Part(rows, np.arange(len(rows)), y) for name, (rows, y) in sources.items()}
        for name, share in shares.items():
            rest, chosen = (
                shuffled(rest, strata, share / rest_share, seed)
                if self.groups is None
                else grouped(rest, self.groups, share / rest_share, seed)
            )
            parts[name] = Part(reader, chosen, targets[chosen])
            rest_share -= share
        parts["train"] = Part(reader, rest, targets[rest])
        return {name: parts[name] for name in ("train", "validation", "test")}

    def _scaler(self, part: Part) -> StandardScaler:
        generator = torch.Generator().manual_seed(derive_seed(self.split_seed, "scale"))
        chosen = torch.randperm(len(part.numbers), generator=generator)[:MEASURED].sort().values
        scaler = StandardScaler()
        blocks = chosen.split(READ_AT_ONCE)
        for block in with_bar(blocks, "measuring mean and deviation"):
            rows = _by_channel(part.reader.read(part.numbers[block.numpy()]), np.float64)
            scaler.partial_fit(rows.transpose(0, 2, 1).reshape(-1, rows.shape[1]))
        return scaler
