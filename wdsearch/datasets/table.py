"""A table of the user's: a CSV or Parquet file, or a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wdsearch.datasets._base import MOST_EVALUATED, ArrayDataModule, fits
from wdsearch.datasets._encoding import WORD, Encoded, Entry, TableRows, category_entry, kept, number_entries, written
from wdsearch.datasets._progress import shown
from wdsearch.datasets._scratch import Scratch
from wdsearch.datasets._splits import split_rows
from wdsearch.datasets._stored import TABLE, StoredTable, stored_csv
from wdsearch.errors import DataError

if TYPE_CHECKING:  # pandas takes half a second
    import pandas as pd

    from wdsearch.datasets.frames import Table

MISSING = "(missing)"
"""A category that is not there is a category as well."""


class TableData(ArrayDataModule):
    """Columns of a CSV or Parquet file: numbers standardised, categories one-hot or embedded, gaps filled.

    `path` is a file, seen from the study's folder, or a DataFrame. All preprocessing is fitted to the training rows: a missing
    number becomes their median, and a column says where that was done; a missing category is a category; categories of
    fewer than `min_frequency` training rows, and unseen ones, are one category together. `drop` leaves columns out,
    `numbers` and `categories` say what a column is where that could be misread.

    `split` is one of `{stratify: true}` (classes in equal shares: the default; or a column's name, or false), `{group: COLUMN}`
    (rows of a group stay in one part) and `{time: COLUMN}` (trained on the earliest, tested on the latest rows).
    `class_weight` is `balanced`, or a weight for each class: see `torch.nn.CrossEntropyLoss(weight=...)`.

    A file that takes more than a quarter of the free memory is read column by column. Encoded rows that do are written to a
    temporary file and read batch by batch, with the same numbers; the gap is then measured on up to 10,000 training
    rows. `in_memory` says which instead. With `codes`, batches are (numbers, category numbers, targets), `categories`
    counting each column's values.

    Raises DataError for a table of which that cannot be made.
    """

    task = None  # type: ignore[assignment]  # the target says
    metric = None  # type: ignore[assignment]
    from_study = ("task", "codes", "folder")

    def __init__(
        self,
        path: str | Path | pd.DataFrame,
        target: str,
        drop: Sequence[str] = (),
        numbers: Sequence[str] = (),
        categories: Sequence[str] = (),
        separator: str | None = None,
        split: Mapping[str, Any] | None = None,
        validation: float = 0.2,
        test: float = 0.2,
        class_weight: str | Mapping[Any, float] | None = None,
        min_frequency: int = 5,
        batch_size: int = 100,
        in_memory: bool | None = None,
        split_seed: int = 0,
        seed: int = 0,
        task: str | None = None,
        codes: bool = False,
        folder: Path | None = None,
    ) -> None:
        super().__init__(split_seed, seed, batch_size)
        self.path = Path(folder or "", path) if isinstance(path, str | Path) else path
        self.target, self.drop, self.named = target, tuple(drop), (tuple(numbers), tuple(categories))
        self.separator, self.split, self.validation, self.test = separator, dict(split or {}), validation, test
        self.class_weight, self.min_frequency, self.asked, self.codes = class_weight, min_frequency, task, codes
        self.in_memory = in_memory
        self._scratch: Scratch | None = None

    def setup(self, stage: str | None = None) -> None:
        """Decide what the columns and the target are, split, encode, and keep in memory what fits; once."""
        if self.parts:
            return
        from wdsearch.datasets import frames

        table = self.table()
        self._check_names(table)
        table = frames.rows_with_target(table, self.target)
        asked = frames.target_of(table[self.target], self.asked)
        self.task, self.metric, self.classes = asked.task, asked.metric, asked.classes
        unused = {self.target, *self.drop, *(self._split_columns if "stratify" not in self.split else ())}
        self.columns = frames.columns_of(table, *self.named, without=unused)
        self._check_columns(table)
        self.about = self._about(frames.summary(self.target, asked, self.columns, len(table)))
        targets = asked.encoded(table[self.target])
        stratify = targets if self.task == "classification" else None
        parts = split_rows(table, self.split, (self.validation, self.test), self.split_seed, stratify)
        self.rows = self._encoded(table, parts["train"])
        if self._scratch is not None:
            (self._scratch.path / TABLE).unlink(missing_ok=True)
        self._take(parts, targets)

    def _take(self, numbers: Mapping[str, np.ndarray], targets: np.ndarray) -> None:
        """The parts' rows by their numbers, in memory or read for each batch."""
        scaler = self.target_scaler(targets[numbers["train"]])
        parts = {
            name: TableRows(self.rows, chosen, self.scaled(targets[chosen], scaler), self.codes)
            for name, chosen in numbers.items()
        }
        if self._kept(len(targets) * self.rows.width(self.codes)):
            self.parts = {name: part.in_memory() for name, part in parts.items()}
            self.rows, self._scratch = self.rows._replace(words=None), None
        else:
            self.parts, self.most_evaluated = parts, MOST_EVALUATED
            self.about += "; read batch by batch"

    def _kept(self, entries: int) -> bool:
        """Whether so many are kept in memory."""
        return fits(entries * WORD.itemsize) if self.in_memory is None else self.in_memory

    @property
    def scratch(self) -> Scratch:
        """Where temporary files go; they are gone with these data."""
        self._scratch = self._scratch or Scratch()
        return self._scratch

    @property
    def _split_columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.split.values() if isinstance(name, str))

    def table(self) -> Table:
        """All rows, read now or column by column."""
        from wdsearch.datasets import frames

        if not isinstance(self.path, Path):
            return self.path
        with frames.readable(self.path):
            whole = fits(frames.memory_size(self.path)) if self.in_memory is None else self.in_memory
            if whole:
                return frames.read_frame(self.path, self.separator)
            if frames.is_parquet(self.path):
                return StoredTable(self.path)
            separator = self.separator or frames.separator_of(self.path)
            left_out = {*self.drop} - {self.target, *self._split_columns, *self.named[0], *self.named[1]}
            return stored_csv(self.path, separator, left_out, self.scratch, frames.text_size(self.path))

    def _check_names(self, table: Table) -> None:
        from wdsearch.datasets.frames import check_names

        check_names(table, [self.target], "target")
        for where, names in {"drop": self.drop, "numbers": self.named[0], "categories": self.named[1]}.items():
            check_names(table, names, where)
        check_names(table, self._split_columns, "split")

    def _check_columns(self, table: Table) -> None:
        """Raise DataError for columns that somebody must decide about."""
        from wdsearch.datasets.frames import DATES, NUMBERING, check_any

        doubtful = self.columns.doubtful
        if doubtful:
            said = "; ".join(f"{name!r}: {why}" for name, why in doubtful.items())
            ways = ["leave them out by drop: [" + ", ".join(map(repr, doubtful)) + "]"]
            ways += ["turn dates into numbers, or split by them: split: {time: COLUMN}"] * (DATES in doubtful.values())
            ways += ["keep a quantity by numbers: [COLUMN]"] * (NUMBERING in doubtful.values())
            ways += ["keep a text by categories: [COLUMN]"] * any("text" in why for why in doubtful.values())
            raise DataError(f"columns of which it is not plain how to learn from them: {said}; {'; '.join(ways)}")
        for name in self.columns.numbers:
            values = table[name]
            if values.dtype.kind not in "iufb":
                raise DataError(f"column {name!r} holds values such as {values.iloc[0]!r}, not numbers")
            if np.isinf(values.astype(float)).any():
                raise DataError(f"column {name!r} has infinite values: replace them, or leave it out by drop")
        check_any(self.columns, self.target)

    def _about(self, summary: str) -> str:
        left_out = ", ".join(f"{name} ({why})" for name, why in self.columns.useless.items())
        return f"{summary}; left out: {left_out}" if left_out else summary

    def _encoded(self, table: Table, train: np.ndarray) -> Encoded:
        """All rows as numbers and category numbers, fitted to the training rows."""
        most = len(table) * (2 * len(self.columns.numbers) + len(self.columns.categories))
        if self._kept(most):
            return kept(self._entries(table, train))
        self.scratch.claim(2 * most * WORD.itemsize, f"reading {len(table):,} rows batch by batch")
        return written(self._entries(table, train), len(table), self.scratch)

    def _entries(self, table: Table, train: np.ndarray) -> Iterator[Entry]:
        """Column after column."""
        from wdsearch.datasets.frames import coded

        for name in shown([*self.columns.numbers, *self.columns.categories], "preparing columns"):
            if name in self.columns.numbers:
                yield from number_entries(table[name].astype(float).to_numpy(), train)
            else:
                yield category_entry(coded(table[name], missing=MISSING)[0], train, self.min_frequency)

    @property
    def inputs(self) -> int:
        """Number of features of a row; not of its categories, if they are an input of their own."""
        self.setup()
        return self.rows.width(self.codes)

    @property
    def categories(self) -> tuple[int, ...]:
        """How many values each column of categories has, for embeddings; empty if they are one-hot."""
        self.setup()
        # 0 is what no training row had and no rare category stands for
        return tuple(size + 1 for size in self.rows.sizes) if self.codes else ()
