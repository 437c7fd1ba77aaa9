"""Data of a table: a CSV or Parquet file, or a DataFrame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wdsearch.datasets._base import MOST_EVALUATED, ArrayDataModule, fits
from wdsearch.datasets._encoding import (
    WORD,
    Encoded,
    Entry,
    TableRows,
    category_entry,
    number_entries,
    rows_in_file,
    rows_in_memory,
)
from wdsearch.datasets._progress import with_bar
from wdsearch.datasets._scratch import Scratch
from wdsearch.datasets._splits import split_rows
from wdsearch.datasets._stored import TABLE, StoredTable, stored_csv
from wdsearch.datasets.tables.reading import Reading
from wdsearch.errors import DataError

if TYPE_CHECKING:  # pandas takes half a second
    import pandas as pd

    from wdsearch.datasets.frames import Table, Target
    from wdsearch.datasets.tables.csv_files import Facts
    from wdsearch.datasets.tables.notes import ColumnNote

MISSING = "(missing)"
"""Name of the category of gaps."""


class TableData(ArrayDataModule):
    """Columns of a CSV or Parquet file: numbers standardised, categories one-hot or embedded, gaps filled.

    `path` is a file, relative to the study's folder, or a DataFrame; `target` a column, or several quantities, learned together.
    Rows without a target are left out. All preprocessing is fitted to the training rows: a missing number becomes their
    median, and a further column marks it; a missing category is a category; categories of fewer than `min_frequency` training
    rows, and unseen ones, are one category together. `drop` leaves columns out, `numbers` and `categories` set the kind of
    columns that could be misread.

    How a CSV file is written is judged by all of it, and asked for where it can be read in two ways: `separator`; `decimal`, `.`
    or `,`, or one of them for each column; the `thousands` mark; `missing`, texts of missing values beside the empty cell, in all
    columns or by column; `encoding`; `header`, whether the first row names the columns, `column1`, `column2` ... if not.
    `notes` say what was left out, `column_notes` what became of each column.

    `split` is one of `{stratify: true}` (classes in equal shares: the default; or a column's name, or false), `{group: COLUMN}`
    (rows of a group stay in one part) and `{time: COLUMN}` (trained on the earliest, tested on the latest rows).
    `class_weight` is `balanced`, or a weight for each class: see `torch.nn.CrossEntropyLoss(weight=...)`.

    A file that takes more than a quarter of the free memory is read column by column. Encoded rows that do are written to a
    temporary file and read batch by batch, with the same numbers; the gap is then measured on up to 10,000 training
    rows. `in_memory` decides instead. With `codes`, batches are (numbers, category numbers, targets), `categories`
    counting each column's values.

    Raises DataError for a table that does not allow this.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"age": range(30, 90), "sex": ["f", "m"] * 30, "kind": ["a", "a", "b"] * 20})
    >>> data = TableData(table, target="kind", numbers=["age"])
    >>> data.setup()
    >>> data.about, data.inputs, data.metric
    ('kind, one of 2 classes, from 1 number and 1 category in each of 60 rows', 3, 'balanced_accuracy')
    """

    task = None  # type: ignore[assignment]  # set by the target
    metric = None  # type: ignore[assignment]
    from_study = ("task", "codes", "folder")

    def __init__(
        self,
        path: str | Path | pd.DataFrame,
        target: str | Sequence[str],
        drop: Sequence[str] = (),
        numbers: Sequence[str] = (),
        categories: Sequence[str] = (),
        separator: str | None = None,
        decimal: str | Mapping[str, str] | None = None,
        thousands: str | None = None,
        missing: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
        encoding: str | None = None,
        header: bool | None = None,
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
        self.targets = (target,) if isinstance(target, str) else tuple(target)
        self.drop, self.numbers, self.category_names = tuple(drop), tuple(numbers), tuple(categories)
        self.reading = Reading(separator, decimal, thousands, missing, encoding, header)
        self.split = dict(split or {})
        self.validation, self.test = validation, test
        self.class_weight, self.min_frequency = class_weight, min_frequency
        self.task_of_study, self.codes, self.in_memory = task, codes, in_memory
        self._scratch: Scratch | None = None

    def setup(self, stage: str | None = None) -> None:
        """Judge the columns and the target, split, encode, and keep in memory what fits; once."""
        if self.parts:
            return
        from wdsearch.datasets import frames

        all_rows, facts = self.table()
        self._check_names(all_rows)
        table, unlabelled = frames.rows_with_target(all_rows, self.targets)
        self.notes = (*facts.notes, *([unlabelled] if unlabelled else []))
        target = frames.targets_of([table[name] for name in self.targets], self.task_of_study)
        self.task, self.metric, self.classes = target.task, target.metric, target.classes
        self.columns = frames.columns_of(
            table, self.numbers, self.category_names, self._roles, self._doubts(all_rows, facts, bool(unlabelled))
        )
        self._check_columns(table)
        self._describe(table, target, facts)
        targets = target.encoded([table[name] for name in self.targets])
        stratify = targets if self.task == "classification" else None
        parts = split_rows(table, self.split, (self.validation, self.test), self.split_seed, stratify)
        self.rows = self._encoded(table, parts["train"])
        if self._scratch is not None:
            (self._scratch.path / TABLE).unlink(missing_ok=True)
        self._take(parts, targets)

    @property
    def _roles(self) -> dict[str, str]:
        """Columns that are no inputs, with what becomes of them."""
        splits = {name: "splits the rows" for name in self._split_columns if "stratify" not in self.split}
        return dict.fromkeys(self.drop, "left out by drop") | splits | dict.fromkeys(self.targets, "target")

    def _doubts(self, all_rows: Table, facts: Facts, fewer: bool) -> dict[str, str]:
        """Columns that need a decision by how they are written, or by what all rows hold if `fewer` have a target."""
        from wdsearch.datasets.frames import identities

        if not fewer:
            return facts.doubts
        declared = {*self._roles, *self.numbers, *self.category_names}
        return facts.doubts | identities(all_rows, [name for name in all_rows.columns if name not in declared])

    def _describe(self, table: Table, target: Target, facts: Facts) -> None:
        from wdsearch.datasets.frames import summary
        from wdsearch.datasets.tables.notes import column_notes

        self.about = self._about(summary(self.targets, target, self.columns, len(table)))
        self.column_notes: tuple[ColumnNote, ...] = column_notes(table, self._roles, target, self.columns, facts)

    def _take(self, numbers: Mapping[str, np.ndarray], targets: np.ndarray) -> None:
        """Set the parts to rows by their numbers, in memory or read for each batch."""
        scaler = self.target_scaler(targets[numbers["train"]])
        parts = {
            name: TableRows(self.rows, chosen, self.scaled(targets[chosen], scaler), self.codes)
            for name, chosen in numbers.items()
        }
        if self._fits(len(targets) * self.rows.width(self.codes)):
            self.parts = {name: part.in_memory() for name, part in parts.items()}
            self.rows, self._scratch = self.rows._replace(words=None), None
        else:
            self.parts, self.most_evaluated = parts, MOST_EVALUATED
            self.about += "; read batch by batch"

    def _fits(self, entries: int) -> bool:
        """True if so many entries are kept in memory."""
        return fits(entries * WORD.itemsize) if self.in_memory is None else self.in_memory

    @property
    def scratch(self) -> Scratch:
        """Folder of temporary files, removed with these data."""
        self._scratch = self._scratch or Scratch()
        return self._scratch

    @property
    def _split_columns(self) -> tuple[str, ...]:
        return tuple(name for name in self.split.values() if isinstance(name, str))

    def table(self) -> tuple[Table, Facts]:
        """All rows, read now or column by column, and what is to be known of them."""
        from wdsearch.datasets import files
        from wdsearch.datasets.tables.csv_files import Facts
        from wdsearch.datasets.tables.gaps import without_missing
        from wdsearch.datasets.tables.rules import Roles

        if not isinstance(self.path, Path):
            files.check_typed(self.reading, "this is a DataFrame")
            return without_missing(self.path, self.reading), Facts()
        with files.readable(self.path):
            roles = Roles(self.targets, self.numbers, self.category_names, self.drop)
            whole = fits(files.memory_size(self.path)) if self.in_memory is None else self.in_memory
            if whole:
                frame, facts = files.read_frame(self.path, self.reading, roles)
                return (without_missing(frame, self.reading) if files.is_parquet(self.path) else frame), facts
            if files.is_parquet(self.path):
                files.check_typed(self.reading, f"{self.path} is a Parquet file")
                return without_missing(StoredTable(self.path), self.reading), Facts()
            left_out = {*self.drop} - {*self.targets, *self._split_columns, *self.numbers, *self.category_names}
            return stored_csv(self.path, self.reading, roles, left_out, self.scratch, files.text_size(self.path))

    def _check_names(self, table: Table) -> None:
        from wdsearch.datasets.frames import check_names

        check_names(table, self.targets, "target")
        arguments = {"drop": self.drop, "numbers": self.numbers, "categories": self.category_names}
        for argument, names in arguments.items():
            check_names(table, names, argument)
        check_names(table, self._split_columns, "split")
        if len({*table.columns}) < len(table.columns):
            check_names(table, table.columns, "columns")

    def _check_columns(self, table: Table) -> None:
        """Raise DataError for columns that need a decision of the user."""
        from wdsearch.datasets.frames import DATES, DIFFERENT, IDENTIFIER, INFINITE, NUMBERING, check_any

        doubtful = self.columns.doubtful
        if doubtful:
            reasons = "; ".join(f"{name!r}: {reason}" for name, reason in doubtful.items())
            ways = ["leave them out by drop: [" + ", ".join(map(repr, doubtful)) + "]"]
            ways += ["turn dates into numbers, or split by them: split: {time: COLUMN}"] * (DATES in doubtful.values())
            ways += ["keep a quantity by numbers: [COLUMN]"] * bool(
                {NUMBERING, DIFFERENT, IDENTIFIER} & {*doubtful.values()}
            )
            ways += ["take infinite values for missing by missing: [inf, -inf]"] * (INFINITE in doubtful.values())
            ways += ["keep rows of one together by split: {group: COLUMN}"] * (IDENTIFIER in doubtful.values())
            ways += ["keep a text by categories: [COLUMN]"] * any("text" in reason for reason in doubtful.values())
            raise DataError(f"columns of which it is not plain how to learn from them: {reasons}; {'; '.join(ways)}")
        for name in self.columns.numbers:
            values = table[name]
            if values.dtype.kind not in "iufb":
                raise DataError(f"column {name!r} holds values such as {_no_number(values)!r}, not numbers")
            if infinite := int(np.isinf(values.astype(float)).sum()):
                text = f"column {name!r} has infinite values in {infinite} of {len(values)} rows"
                raise DataError(
                    f"{text}: replace them, take them for missing by missing: [inf, -inf], or leave it out by drop"
                )
        check_any(self.columns, self.targets)

    def _about(self, summary: str) -> str:
        left_out = ", ".join(f"{name} ({reason})" for name, reason in self.columns.useless.items())
        return f"{summary}; left out: {left_out}" if left_out else summary

    def _encoded(self, table: Table, train: np.ndarray) -> Encoded:
        """All rows as numbers and category numbers, fitted to the training rows."""
        most_entries = len(table) * (2 * len(self.columns.numbers) + len(self.columns.categories))
        if self._fits(most_entries):
            return rows_in_memory(self._entries(table, train))
        self.scratch.claim(2 * most_entries * WORD.itemsize, f"reading {len(table):,} rows batch by batch")
        return rows_in_file(self._entries(table, train), len(table), self.scratch)

    def _entries(self, table: Table, train: np.ndarray) -> Iterator[Entry]:
        """Entries of the rows, column after column."""
        from wdsearch.datasets.frames import coded

        for name in with_bar([*self.columns.numbers, *self.columns.categories], "preparing columns"):
            if name in self.columns.numbers:
                yield from number_entries(table[name].astype(float).to_numpy(), train)
            else:
                yield category_entry(coded(table[name], missing=MISSING)[0], train, self.min_frequency)

    @property
    def inputs(self) -> int:
        """Number of features of a row, without its categories if they are an input of their own."""
        self.setup()
        return self.rows.width(self.codes)

    @property
    def categories(self) -> tuple[int, ...]:
        """Number of values of each column of categories, for embeddings; empty if they are one-hot."""
        self.setup()
        # 0 is a category of no training row, if there is no rare one
        return tuple(size + 1 for size in self.rows.sizes) if self.codes else ()


def _no_number(values: pd.Series) -> Any:
    """The first value that is no number."""
    import pandas as pd

    known = values.dropna()
    others = known[pd.to_numeric(known, errors="coerce").isna()]
    return (others if len(others) else known).iloc[0]
