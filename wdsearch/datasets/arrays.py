"""Data of a user's arrays: NumPy, torch, DataFrames, and arrays in files that are read by row numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from wdsearch.datasets._streams import Reader, StreamDataModule
from wdsearch.errors import DataError

SAMPLED = 64
"""Rows from which the fingerprint of an array too large to be read is computed."""


class ArraysData(StreamDataModule):
    """Arrays of inputs and targets: `X` (rows, features), (rows, channels, length) or (rows, channels, height, width), and `y`.

    Integers, truth values and texts are classes, other numbers quantities, (rows,) or (rows, quantities), unless `task`
    names one. `validation` and `test` are shares of all rows, or rows of their own: `(X, y)`. Rows of one of the
    `groups`, if there are any, stay in one part.

    `X` may be a NumPy or torch array or a DataFrame, or lie in a file and be read by row numbers: `numpy.memmap`, h5py, zarr.
    Larger data than memory are read batch by batch: see `StreamDataModule`. Raises DataError.

    >>> data = ArraysData(np.random.default_rng(0).normal(size=(50, 3)), ["a", "b"] * 25)
    >>> data.setup()
    >>> {name: len(part) for name, part in data.parts.items()}, data.inputs, data.outputs
    ({'train': 30, 'validation': 10, 'test': 10}, 3, 2)
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        validation: float | tuple[Any, Any] = 0.2,
        test: float | tuple[Any, Any] = 0.2,
        groups: Any = None,
        task: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        batch_size: int = 100,
        in_memory: bool | None = None,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(split_seed, seed, batch_size)
        self.class_weight, self.in_memory = class_weight, in_memory
        self.arrays_by_part = {"train": (X, y)}
        for name, part in {"validation": validation, "test": test}.items():
            if isinstance(part, int | float):
                setattr(self, name, part)
            else:
                self.arrays_by_part[name] = part
        targets = _targets(y, "y")
        self.task = task or ("regression" if targets.dtype.kind == "f" else "classification")
        self.metric = "r2" if self.task == "regression" else "accuracy"
        self.names = None if self.task == "regression" else np.unique(targets)
        self.classes = None if self.names is None else tuple(map(str, self.names))
        self.groups = None if groups is None else _targets(groups, "groups")
        self.about = f"one of {len(self.classes)} classes" if self.classes else "a quantity"

    def sources(self) -> dict[str, tuple[Reader, np.ndarray]]:
        """Readers of the arrays, and the targets as numbers."""
        readers = {name: ArrayReader(X, f"X of {name}") for name, (X, _) in self.arrays_by_part.items()}
        targets = {name: self._encoded(y, name) for name, (_, y) in self.arrays_by_part.items()}
        for name, reader in readers.items():
            if len(reader) != len(targets[name]):
                raise DataError(
                    f"{name} has {len(reader)} rows of X and {len(targets[name])} of y; they belong together"
                )
            if reader.shape != readers["train"].shape:
                raise DataError(f"rows of {name} have shape {reader.shape}, those of train {readers['train'].shape}")
        if self.groups is not None and len(self.groups) != len(readers["train"]):
            raise DataError(
                f"there are {len(self.groups)} groups for {len(readers['train'])} rows of X; give one a row"
            )
        return {name: (reader, targets[name]) for name, reader in readers.items()}

    def _encoded(self, y: Any, part: str) -> np.ndarray:
        values = _targets(y, f"y of {part}")
        if self.names is None:
            try:
                return values.astype(float)
            except ValueError:
                raise DataError(
                    f"y of {part} has values such as {str(values[0])!r}; a regression needs numbers"
                ) from None
        unknown = values[~np.isin(values, self.names)]
        if len(unknown):
            raise DataError(f"y of {part} has the class {unknown[0]}, which no training row has")
        return np.searchsorted(self.names, values)


class ArrayReader:
    """Reader of an array by row numbers."""

    def __init__(self, array: Any, name: str) -> None:
        self.array = array.to_numpy() if hasattr(array, "to_numpy") else array
        if isinstance(self.array, torch.Tensor):
            self.array = self.array.detach().cpu().numpy()
        if not hasattr(self.array, "shape"):
            self.array = np.asarray(self.array)
        if not 2 <= len(self.array.shape) <= 4:
            text = "(rows, features), (rows, channels, length) or (rows, channels, height, width)"
            raise DataError(f"{name} has shape {tuple(self.array.shape)}; it is {text}")
        if np.dtype(self.array.dtype).kind not in "iufb":
            raise DataError(
                f"{name} holds {self.array.dtype}, not numbers; for tables with categories: wdsearch.TableData"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return tuple(self.array.shape[1:])

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """Read some rows in ascending order, which is fast in files, and which h5py demands."""
        ascending, inverse = np.unique(numbers, return_inverse=True)
        return np.asarray(self.array[ascending])[inverse]

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes of the shape, the dtype and a few rows."""
        yield repr((tuple(self.array.shape), str(self.array.dtype))).encode()
        chosen = np.linspace(0, len(self) - 1, SAMPLED).astype(int)
        yield self.read(chosen).tobytes()


def _targets(targets: Any, name: str) -> np.ndarray:
    values = targets.to_numpy() if hasattr(targets, "to_numpy") else targets
    values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "O":
        values = values.astype(str)
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.dtype.kind != "f"):
        raise DataError(
            f"{name} has shape {values.shape} of {values.dtype}; it has one value a row, or several numbers"
        )
    return values
