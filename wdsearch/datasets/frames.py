"""What a table's columns hold: numbers, categories, or nothing of use; and what its target asks for."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import psutil
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype

from wdsearch.errors import DataError
from wdsearch.messages import nearest

FEWEST_ROWS, FEWEST_OF_A_CLASS, MOST_CLASSES, MOST_CATEGORIES = 20, 5, 20, 50
EMPTY, CONSTANT, NUMBERING, DATES = "it is empty", "it has one value", "it numbers the rows", "it holds dates"
_PARQUET = (".parquet", ".pq")
_INFLATION = {"": 3, ".gz": 20, ".bz2": 20, ".xz": 30, ".zst": 20, ".zip": 20}
"""Bytes in memory per byte of text, measured on tables of numbers; compressed text is some five to ten times larger."""


@dataclass(frozen=True)
class Columns:
    """The inputs among a table's columns; `useless` ones are left out, `doubtful` ones somebody must decide about."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    useless: Mapping[str, str]
    doubtful: Mapping[str, str]


@dataclass(frozen=True)
class Target:
    """What is to be predicted: one of some classes (their names), or a quantity if `classes` is None."""

    classes: tuple[str, ...] | None
    balanced: bool = True

    @property
    def task(self) -> str:
        """What is learned."""
        return "regression" if self.classes is None else "classification"

    @property
    def metric(self) -> str:
        """Accuracy, unless the classes are of unequal size."""
        return "r2" if self.classes is None else "accuracy" if self.balanced else "balanced_accuracy"

    def encoded(self, values: pd.Series) -> np.ndarray:
        """Class numbers, or the quantity itself."""
        if self.classes is None:
            return values.to_numpy(dtype=float)
        numbers, names = coded(values)
        places = {name: place for place, name in enumerate(self.classes)}
        return np.array([places[name] for name in names], dtype=np.int64)[numbers]


# -- reading -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Table(Protocol):
    """Columns of values by name: a DataFrame, or one that is read column by column."""

    @property
    def columns(self) -> Any:
        """Their names."""

    def __len__(self) -> int: ...

    def __getitem__(self, name: str) -> Any: ...


def read_frame(path: Path, separator: str | None = None, rows: int | None = None) -> pd.DataFrame:
    """All rows, or the first ones, of a CSV file, compressed or not, or of a Parquet file. Raises DataError."""
    with readable(path):
        if rows is None:
            _check_size(path)
        frame = _read_parquet(path, rows) if is_parquet(path) else _read_csv(path, separator, rows)
        frame.columns = frame.columns.map(str)
    return frame


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise DataError, with what to do, for whatever goes wrong while a table is read."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        problem = "there is no such file"
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text; save it as UTF-8"
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        problem = f"it cannot be read as a table: {getattr(error, 'strerror', None) or error}"
    else:
        return
    raise DataError(f"{path}: {problem}")


def is_parquet(path: Path) -> bool:
    """Whether its name says so."""
    return path.suffix in _PARQUET


def _read_csv(path: Path, separator: str | None, rows: int | None) -> pd.DataFrame:
    separator = separator or separator_of(path)
    return pd.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False, nrows=rows)


def _read_parquet(path: Path, rows: int | None) -> pd.DataFrame:
    if rows is None:
        return pd.read_parquet(path)
    from pyarrow import Table as ArrowTable
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        first = next(file.iter_batches(rows), None)
        return (file.schema_arrow.empty_table() if first is None else ArrowTable.from_batches([first])).to_pandas()


def text_size(path: Path) -> int:
    """About how many bytes a CSV file has when it is not compressed."""
    return path.stat().st_size * _INFLATION.get(path.suffix, 3) // 3


def memory_size(path: Path) -> int:
    """About how many bytes a table takes in memory."""
    if not is_parquet(path):
        return 3 * text_size(path)
    from pyarrow.parquet import read_metadata

    return read_metadata(path).num_rows * read_metadata(path).num_columns * 8 * 3


def _check_size(path: Path) -> None:
    """Raise DataError for a file that would not fit into memory."""
    needed, free = memory_size(path), psutil.virtual_memory().available
    if needed > free:
        text = f"it would take about {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free"
        raise DataError(f"{path}: {text}; leave in_memory out, and it is read batch by batch")


def separator_of(path: Path) -> str:
    """What stands between a CSV file's columns, by its first line."""
    options = {"header": None, "nrows": 1, "encoding": "utf-8-sig", "engine": "python", "quoting": csv.QUOTE_NONE}
    header = pd.read_csv(path, sep="\0", **options).iloc[0, 0]
    try:
        return csv.Sniffer().sniff(str(header), ",;\t|").delimiter
    except csv.Error:  # one column, or a header of which nothing can be said
        return ","


# -- columns -------------------------------------------------------------------------------------------------------


def check_names(table: Table, names: Iterable[str], where: str) -> None:
    """Raise DataError for a name that no column has."""
    columns = list(table.columns)
    for name in names:
        if name not in columns:
            raise DataError(f"{where}: the table has no column {name!r}{nearest(name, columns)}")
        if columns.count(name) > 1:
            raise DataError(f"{where}: the table has {columns.count(name)} columns {name!r}; rename all but one")


def columns_of(
    table: Table, numbers: Sequence[str] = (), categories: Sequence[str] = (), without: Iterable[str] = ()
) -> Columns:
    """Columns by what they hold, `without` some; those named are taken as such."""
    named = dict.fromkeys(numbers, "number") | dict.fromkeys(categories, "category")
    left = [name for name in table.columns if name not in {*without}]
    kinds = {name: named.get(name) or _kind(table[name], name) for name in left} | named
    of_kind = {kind: tuple(name for name in kinds if kinds[name] == kind) for kind in ("number", "category")}
    rest = {name: kind for name, kind in kinds.items() if kind not in of_kind}
    useless = {name: why for name, why in rest.items() if why in (EMPTY, CONSTANT)}
    doubtful = {name: why for name, why in rest.items() if name not in useless}
    return Columns(of_kind["number"], of_kind["category"], useless, doubtful)


def coded(values: pd.Series, missing: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Each row's number among the different values as texts, and these in their order.

    A gap is a text of its own if `missing` names it, else -1. Only different values become texts: a column may be long.
    """
    found, different = pd.factorize(values, use_na_sentinel=missing is None)
    texts = pd.Series(different).astype("string").fillna(missing or "").to_numpy(dtype=object)
    names, places = np.unique(texts, return_inverse=True)
    return np.append(places, -1)[found], names.tolist()


def check_any(columns: Columns, target: str) -> None:
    """Raise DataError if there is nothing to learn from."""
    if not columns.numbers and not columns.categories:
        found = {**columns.useless, **columns.doubtful}
        said = ", ".join(f"{name} ({why})" for name, why in found.items()) or "there is none"
        raise DataError(f"the table has no column of use beside {target!r}: {said}")


def _kind(values: pd.Series, name: str) -> str:
    """`number`, `category`, or why the column is neither."""
    numeric = is_numeric_dtype(values) and not is_bool_dtype(values)
    if values.isna().all():
        return EMPTY
    if numeric:
        return CONSTANT if values.min() == values.max() else NUMBERING if _numbers_rows(values, name) else "number"
    different = values.nunique()
    if different == 1:
        return CONSTANT
    if holds_dates(values):
        return DATES
    if different > min(MOST_CATEGORIES, len(values) // 2):
        return f"text of {different} different values"
    return "category"


def holds_dates(values: pd.Series) -> bool:
    """Whether values are dates, or texts that all read as dates."""
    if is_datetime64_any_dtype(values):
        return True
    texts = values.dropna()
    if is_numeric_dtype(values) or not all(map(_may_be_date, texts)):
        return False
    return bool(pd.to_datetime(texts, errors="coerce", format="mixed").notna().all())


def _may_be_date(value: object) -> bool:
    """Whether it can be a date: pandas reads `a` and `1` as one too."""
    text = str(value)
    return sum(letter.isdigit() for letter in text) >= 4 and any(mark in text for mark in "-/:. ")


def _numbers_rows(values: pd.Series, name: str) -> bool:
    if is_float_dtype(values):
        return False
    named = name.lower() == "id" or name.lower().endswith("_id")
    return (named or bool(values.max() - values.min() + 1 == len(values))) and values.is_unique


# -- the target ----------------------------------------------------------------------------------------------------


def target_of(values: pd.Series, task: str | None = None) -> Target:
    """Classes, or a quantity: numbers that are not few whole ones, unless `task` says what it is. Raises DataError."""
    name, numeric = str(values.name), is_numeric_dtype(values) and not is_bool_dtype(values)
    if task == "regression" and not numeric:
        raise DataError(f"the target {name!r} has values such as {values.iloc[0]!r}; a regression needs numbers")
    if task is None and holds_dates(values):
        raise DataError(f"the target {name!r} holds dates; turn it into numbers, or set task: classification")
    whole = numeric and bool((values % 1 == 0).all())
    if task == "regression" or (task is None and numeric and not (whole and values.nunique() <= MOST_CLASSES)):
        return Target(None)
    numbers, names = coded(values)
    sizes = np.bincount(numbers)
    rarest, rows = names[sizes.argmin()], int(sizes.min())
    if len(names) < 2:
        raise DataError(f"the target {name!r} has one value, {rarest}: there is nothing to predict")
    if rows < FEWEST_OF_A_CLASS:
        text = f"{rarest} of the target {name!r} has {rows} rows; every class needs {FEWEST_OF_A_CLASS}"
        more = "; if it is a quantity, set task: regression" if numeric else ""
        raise DataError(f"{text} to be in all parts of a split: leave it out, or join it with another{more}")
    ordered = sorted(names, key=_by_number)
    return Target(tuple(ordered), balanced=bool(sizes.min() >= 0.8 * sizes.mean()))


def _by_number(name: str) -> tuple[float, str]:
    """Classes that are numbers in their order, others by name."""
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def rows_with_target(table: Any, target: str) -> Any:
    """The rows of a table of which the target is known. Raises DataError."""
    rows = np.flatnonzero(table[target].notna().to_numpy())
    if len(rows) < FEWEST_ROWS:
        raise DataError(f"the table has {len(rows)} rows with a target; at least {FEWEST_ROWS} are needed")
    if isinstance(table, pd.DataFrame):
        return table.iloc[rows].reset_index(drop=True)
    return table if len(rows) == len(table) else table.of(rows)


def summary(target: str, asked: Target, columns: Columns, rows: int) -> str:
    """A table in a line."""
    learned = "a quantity" if asked.classes is None else f"one of {len(asked.classes)} classes"
    counts = {"number": len(columns.numbers), "category": len(columns.categories)}
    said = " and ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items() if count)
    return f"{target}, {learned}, from {said} in each of {rows:,} rows"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else {"category": "categories"}.get(noun, f"{noun}s")
