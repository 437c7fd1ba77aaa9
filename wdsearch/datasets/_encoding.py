"""Columns of a table encoded as numbers one at a time, and the encoded rows, in memory or in a file read by row numbers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.utils.data import Dataset

from wdsearch.datasets._base import EVAL_BATCH, Rows
from wdsearch.datasets._progress import with_bar
from wdsearch.datasets._scratch import Scratch

WORD = np.dtype(np.float32)
"""Type of an entry: a number, or the bits of a category's number."""
BLOCK = 2**22
"""Entries that are transposed from columns into rows at once."""
ROWS = "rows"
"""Name of the file of rows."""
ORDER = ("number", "gap", "category")
"""Order of the kinds of entries in a row."""


class Entry(NamedTuple):
    """One entry of every row: a number, the mark of a missing number, or the number of one of `size` categories."""

    kind: str
    values: np.ndarray
    size: int = 1


def number_entries(values: np.ndarray, train: np.ndarray) -> Iterator[Entry]:
    """A number standardised by the training rows, gaps filled by their median; and marks of the gaps if there are any.

    Equal to scikit-learn's SimpleImputer(strategy="median", add_indicator=True) and StandardScaler.

    >>> [(entry.kind, entry.values.tolist()) for entry in number_entries(np.array([1.0, 3.0, np.nan]), np.array([0, 1]))]
    [('number', [-1.0, 1.0, 0.0])]
    """
    missing = np.isnan(values)
    known = values[train][~missing[train]]
    filled = np.where(missing, np.median(known) if len(known) else 0.0, values)
    yield Entry("number", _standardised(filled, train))
    if len(known) < len(train):
        yield Entry("gap", _standardised(missing.astype(float), train))


def _standardised(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    scaler = StandardScaler().fit(values[train].reshape(-1, 1))
    return scaler.transform(values.reshape(-1, 1))[:, 0].astype(WORD)


def category_entry(numbers: np.ndarray, train: np.ndarray, min_frequency: int) -> Entry:
    """Categories that are frequent in the training rows in their order from 1, the rare ones together after them.

    A category of no training row counts as rare, or is 0 if there are no rare ones, as in scikit-learn's
    OneHotEncoder(handle_unknown="infrequent_if_exist").

    >>> entry = category_entry(np.array([0, 0, 1, 1, 2]), train=np.arange(5), min_frequency=2)
    >>> entry.values.view(np.int32), entry.size
    (array([1, 1, 2, 2, 3], dtype=int32), 3)
    """
    counts = np.bincount(numbers[train], minlength=numbers.max() + 1)
    frequent = counts >= max(1, min_frequency)
    last = int(frequent.sum())
    size = last + int((counts[~frequent] > 0).any())
    encoded = np.where(frequent, np.cumsum(frequent), size if size > last else 0)
    return Entry("category", encoded.astype(np.int32)[numbers].view(WORD), size)


# -- rows ----------------------------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """All rows of an array or a RowFile: first the `numbers`, then categories of these sizes."""

    words: Any
    numbers: int
    sizes: tuple[int, ...]

    def width(self, codes: bool) -> int:
        """Entries of the first input: numbers and, unless they are an input of their own, one-hot categories."""
        return self.numbers + (0 if codes else sum(self.sizes))

    def read(self, rows: np.ndarray, codes: bool) -> tuple[Tensor, ...]:
        """Numbers and one-hot categories of some rows; with `codes` numbers, and category numbers."""
        words = self.words[rows]
        numbers, categories = words[:, : self.numbers], words[:, self.numbers :].view(np.int32)
        if codes and self.sizes:
            return torch.tensor(numbers), torch.tensor(categories, dtype=torch.int64)
        inputs = np.zeros((len(rows), self.width(codes=False)), WORD)
        inputs[:, : self.numbers] = numbers
        firsts = self.numbers - 1 + np.cumsum([0, *self.sizes[:-1]], dtype=int)[: len(self.sizes)]
        row, column = categories.nonzero()
        inputs[row, firsts[column] + categories[row, column]] = 1.0
        return (torch.from_numpy(inputs),)


def rows_in_memory(entries: Iterable[Entry]) -> Encoded:
    """Encode rows in memory.

    >>> encoded = rows_in_memory(number_entries(np.array([1.0, 3.0]), np.arange(2)))
    >>> encoded.read(np.array([1, 0]), codes=False)
    (tensor([[ 1.],
            [-1.]]),)
    """
    ordered = sorted(entries, key=lambda entry: ORDER.index(entry.kind))
    sizes = tuple(entry.size for entry in ordered if entry.kind == "category")
    return Encoded(np.stack([entry.values for entry in ordered], axis=1), len(ordered) - len(sizes), sizes)


def rows_in_file(entries: Iterable[Entry], rows: int, scratch: Scratch) -> Encoded:
    """Encode rows in a file: columns are written one after another, and then transposed.

    >>> encoded = rows_in_file(number_entries(np.array([1.0, 3.0]), np.arange(2)), rows=2, scratch=Scratch())
    >>> encoded.read(np.array([1]), codes=False)
    (tensor([[1.]]),)
    """
    columns: dict[str, list[int]] = {kind: [] for kind in ORDER}
    with ExitStack() as stack:
        files = {kind: stack.enter_context(TemporaryFile(dir=scratch.path)) for kind in ORDER}
        for kind, values, size in entries:
            values.tofile(files[kind])
            columns[kind].append(size)
        ordered = [(files[kind], index) for kind in ORDER for index in range(len(columns[kind]))]
        _transpose(ordered, rows, scratch.path / ROWS)
    width = len(ordered)
    words = RowFile(scratch, rows, width)
    return Encoded(words, width - len(columns["category"]), tuple(columns["category"]))


def _transpose(columns: Sequence[tuple[Any, int]], rows: int, path: Path) -> None:
    """Write as rows the columns of files, each given by its file and its index in it."""
    height = max(1, BLOCK // len(columns))
    with path.open("wb") as file:
        for start in with_bar(range(0, rows, height), "writing rows"):
            block = np.empty((min(height, rows - start), len(columns)), WORD)
            for entry, (source, index) in enumerate(columns):
                source.seek((index * rows + start) * WORD.itemsize)
                block[:, entry] = np.fromfile(source, WORD, len(block))
            block.tofile(file)


class RowFile:
    """Rows in a file, (rows, width), read by their numbers; not memory-mapped, so that they take no memory."""

    def __init__(self, scratch: Scratch, rows: int, width: int) -> None:
        self.scratch, self.rows, self.width = scratch, rows, width
        self._file: int | None = None

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        if self._file is None:
            self._file = os.open(self.scratch.path / ROWS, os.O_RDONLY)
        rows = np.empty((len(numbers), self.width), WORD)
        offsets = (numbers * self.width * WORD.itemsize).tolist()
        for row, offset in zip(rows, offsets, strict=True):
            os.preadv(self._file, [row.data], offset)
        return rows

    def __getstate__(self) -> dict[str, Any]:
        """State without the open file, which another process opens itself."""
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if self._file is not None:  # before its folder is removed
            os.close(self._file)


class TableRows(Dataset):
    """Rows of a part, read each time that they are indexed."""

    def __init__(self, encoded: Encoded, rows: np.ndarray, targets: Tensor, codes: bool) -> None:
        self.encoded, self.codes = encoded, codes
        self.rows, self.targets = rows, targets

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: Any) -> tuple[Tensor, ...]:
        chosen = torch.as_tensor(numbers)
        return *self.encoded.read(self.rows[chosen.numpy()], self.codes), self.targets[chosen]

    def some(self, numbers: Tensor) -> TableRows:
        """Subset of the rows, by their numbers."""
        return TableRows(self.encoded, self.rows[numbers.numpy()], self.targets[numbers], self.codes)

    def in_memory(self) -> Rows:
        """All rows, read now."""
        return Rows(*self[torch.arange(len(self))])

    def fingerprint(self) -> Iterator[bytes]:
        """Bytes that identify the rows: those of the same rows in memory, so that a study may go on with either."""
        blocks = torch.arange(len(self)).split(EVAL_BATCH)
        for input_number in range(1 + bool(self.codes and self.encoded.sizes)):
            for block in with_bar(blocks, "looking for changes in the table"):
                yield self[block][input_number].numpy().tobytes()
        yield self.targets.numpy().tobytes()
