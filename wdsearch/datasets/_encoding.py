"""Columns of a table as numbers, one column at a time; then rows of them, in memory or in a file read by row numbers."""

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
from wdsearch.datasets._progress import shown
from wdsearch.datasets._scratch import Scratch

WORD = np.dtype(np.float32)
"""What an entry takes: a number, or a category's number in its place."""
BLOCK = 2**22
"""Entries that are turned from columns into rows at once."""
ROWS = "rows"
"""Their file."""
ORDER = ("number", "gap", "category")
"""In which kinds of entries stand in a row."""


class Entry(NamedTuple):
    """An entry of every row: a number, where a number was missing, or the number of a category, of which there are `size`."""

    kind: str
    values: np.ndarray
    size: int = 1


def number_entries(values: np.ndarray, train: np.ndarray) -> Iterator[Entry]:
    """A number standardised by the training rows, gaps filled by their median; and where, if they have gaps.

    As scikit-learn's SimpleImputer(strategy="median", add_indicator=True) and StandardScaler do.
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

    What no training row has counts as rare, or is 0 if there are no rare ones: as scikit-learn's
    OneHotEncoder(handle_unknown="infrequent_if_exist") does.
    """
    counts = np.bincount(numbers[train], minlength=numbers.max() + 1)
    frequent = counts >= max(1, min_frequency)
    last = int(frequent.sum())
    size = last + int((counts[~frequent] > 0).any())
    places = np.where(frequent, np.cumsum(frequent), size if size > last else 0)
    return Entry("category", places.astype(np.int32)[numbers].view(WORD), size)


# -- rows ----------------------------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """All rows: words of an array or a RowFile, of which the first are numbers, the others categories of these sizes."""

    words: Any
    numbers: int
    sizes: tuple[int, ...]

    def width(self, codes: bool) -> int:
        """Entries of the first input: numbers and, unless they are an input of their own, one-hot categories."""
        return self.numbers + (0 if codes else sum(self.sizes))

    def read(self, rows: np.ndarray, codes: bool) -> tuple[Tensor, ...]:
        """Numbers and one-hot categories of some rows; or numbers, and category numbers."""
        words = self.words[rows]
        numbers, categories = words[:, : self.numbers], words[:, self.numbers :].view(np.int32)
        if codes and self.sizes:
            return torch.tensor(numbers), torch.tensor(categories, dtype=torch.int64)
        found = np.zeros((len(rows), self.width(codes=False)), WORD)
        found[:, : self.numbers] = numbers
        firsts = self.numbers - 1 + np.cumsum([0, *self.sizes[:-1]], dtype=int)[: len(self.sizes)]
        row, column = categories.nonzero()
        found[row, firsts[column] + categories[row, column]] = 1.0
        return (torch.from_numpy(found),)


def kept(entries: Iterable[Entry]) -> Encoded:
    """Rows in memory."""
    ordered = sorted(entries, key=lambda entry: ORDER.index(entry.kind))
    sizes = tuple(entry.size for entry in ordered if entry.kind == "category")
    return Encoded(np.stack([entry.values for entry in ordered], axis=1), len(ordered) - len(sizes), sizes)


def written(entries: Iterable[Entry], rows: int, scratch: Scratch) -> Encoded:
    """Rows in a file: columns are written one after another as they come, and then turned into rows."""
    columns: dict[str, list[int]] = {kind: [] for kind in ORDER}
    with ExitStack() as stack:
        files = {kind: stack.enter_context(TemporaryFile(dir=scratch.path)) for kind in ORDER}
        for kind, values, size in entries:
            values.tofile(files[kind])
            columns[kind].append(size)
        places = [(files[kind], place) for kind in ORDER for place in range(len(columns[kind]))]
        _turn(places, rows, scratch.path / ROWS)
    width = len(places)
    words = RowFile(scratch, rows, width)
    return Encoded(words, width - len(columns["category"]), tuple(columns["category"]))


def _turn(columns: Sequence[tuple[Any, int]], rows: int, path: Path) -> None:
    """Write as rows what lies in files column after column."""
    height = max(1, BLOCK // len(columns))
    with path.open("wb") as file:
        for start in shown(range(0, rows, height), "writing rows"):
            block = np.empty((min(height, rows - start), len(columns)), WORD)
            for entry, (column, place) in enumerate(columns):
                column.seek((place * rows + start) * WORD.itemsize)
                block[:, entry] = np.fromfile(column, WORD, len(block))
            block.tofile(file)


class RowFile:
    """Rows of words in a file, (rows, width), read by their numbers; not mapped, so that they take no memory."""

    def __init__(self, scratch: Scratch, rows: int, width: int) -> None:
        self.scratch, self.rows, self.width = scratch, rows, width
        self._file: int | None = None

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        if self._file is None:
            self._file = os.open(self.scratch.path / ROWS, os.O_RDONLY)
        found = np.empty((len(numbers), self.width), WORD)
        for row, place in zip(found, (numbers * self.width * WORD.itemsize).tolist(), strict=True):
            os.preadv(self._file, [row.data], place)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the file itself."""
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        if self._file is not None:  # before its folder is removed
            os.close(self._file)


class TableRows(Dataset):
    """A part's rows, read each time that they are asked for."""

    def __init__(self, encoded: Encoded, rows: np.ndarray, targets: Tensor, codes: bool) -> None:
        self.encoded, self.rows, self.targets, self.codes = encoded, rows, targets, codes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: Any) -> tuple[Tensor, ...]:
        chosen = torch.as_tensor(numbers)
        return *self.encoded.read(self.rows[chosen.numpy()], self.codes), self.targets[chosen]

    def some(self, numbers: Tensor) -> TableRows:
        """A part of them."""
        return TableRows(self.encoded, self.rows[numbers.numpy()], self.targets[numbers], self.codes)

    def in_memory(self) -> Rows:
        """All of them, read now."""
        return Rows(*self[torch.arange(len(self))])

    def fingerprint(self) -> Iterator[bytes]:
        """What is another for other rows: the bytes that the same rows in memory give, so that a study may go on with either."""
        blocks = torch.arange(len(self)).split(EVAL_BATCH)
        for place in range(1 + bool(self.codes and self.encoded.sizes)):
            for block in shown(blocks, "looking for changes in the table"):
                yield self[block][place].numpy().tobytes()
        yield self.targets.numpy().tobytes()
