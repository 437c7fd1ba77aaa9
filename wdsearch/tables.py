"""What a table's columns hold: numbers, categories, or nothing of use; and what its target asks for."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype

from wdsearch.errors import DataError
from wdsearch.studyfile import nearest

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
        return pd.Categorical(values.astype(str), categories=self.classes).codes.astype(np.int64)


# -- reading -------------------------------------------------------------------------------------------------------


def read_frame(path: Path, separator: str | None = None) -> pd.DataFrame:
    """All rows of a CSV file, compressed or not, or of a Parquet file. Raises DataError."""
    try:
        _check_size(path)
        frame = pd.read_parquet(path) if path.suffix in _PARQUET else _read_csv(path, separator)
    except FileNotFoundError:
        problem = "there is no such file"
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text; save it as UTF-8"
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        problem = f"it cannot be read as a table: {getattr(error, 'strerror', None) or error}"
    else:
        frame.columns = frame.columns.map(str)
        return frame
    raise DataError(f"{path}: {problem}")


def _read_csv(path: Path, separator: str | None) -> pd.DataFrame:
    return pd.read_csv(path, sep=separator or separator_of(path), encoding="utf-8-sig", low_memory=False)


def _check_size(path: Path) -> None:
    """Raise DataError for a file that would not fit into memory."""
    if path.suffix in _PARQUET:
        from pyarrow.parquet import read_metadata

        needed = read_metadata(path).num_rows * read_metadata(path).num_columns * 8 * 3
    else:
        needed = path.stat().st_size * _INFLATION.get(path.suffix, 3)
    free = psutil.virtual_memory().available
    if needed > free:
        text = f"it would take about {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free"
        raise DataError(
            f"{path}: {text}; take a sample of its rows, or read it piece by piece in a LightningDataModule"
        )


def separator_of(path: Path) -> str:
    """What stands between a CSV file's columns, by its first line."""
    header = pd.read_csv(path, sep="\0", header=None, nrows=1, encoding="utf-8-sig", engine="python").iloc[0, 0]
    try:
        return csv.Sniffer().sniff(str(header), ",;\t|").delimiter
    except csv.Error:  # one column, or a header of which nothing can be said
        return ","


# -- columns -------------------------------------------------------------------------------------------------------


def check_names(frame: pd.DataFrame, names: Iterable[str], where: str) -> None:
    """Raise DataError for a name that no column has."""
    columns = list(frame.columns)
    for name in names:
        if name not in columns:
            raise DataError(f"{where}: the table has no column {name!r}{nearest(name, columns)}")
        if columns.count(name) > 1:
            raise DataError(f"{where}: the table has {columns.count(name)} columns {name!r}; rename all but one")


def columns_of(frame: pd.DataFrame, numbers: Sequence[str] = (), categories: Sequence[str] = ()) -> Columns:
    """Columns by what they hold; those named are taken as such."""
    kinds = {name: _kind(frame[name], name) for name in frame.columns}
    kinds |= dict.fromkeys(numbers, "number") | dict.fromkeys(categories, "category")
    of_kind = {kind: tuple(name for name in kinds if kinds[name] == kind) for kind in ("number", "category")}
    rest = {name: kind for name, kind in kinds.items() if kind not in of_kind}
    useless = {name: why for name, why in rest.items() if why in (EMPTY, CONSTANT)}
    doubtful = {name: why for name, why in rest.items() if name not in useless}
    return Columns(of_kind["number"], of_kind["category"], useless, doubtful)


def check_any(columns: Columns, target: str) -> None:
    """Raise DataError if there is nothing to learn from."""
    if not columns.numbers and not columns.categories:
        found = {**columns.useless, **columns.doubtful}
        said = ", ".join(f"{name} ({why})" for name, why in found.items()) or "there is none"
        raise DataError(f"the table has no column of use beside {target!r}: {said}")


def _kind(values: pd.Series, name: str) -> str:
    """`number`, `category`, or why the column is neither."""
    different = values.nunique()
    if different < 2:
        return CONSTANT if different else EMPTY
    if holds_dates(values):
        return DATES
    if is_numeric_dtype(values) and not is_bool_dtype(values):
        return NUMBERING if _numbers_rows(values, name) else "number"
    if different > min(MOST_CATEGORIES, len(values) // 2):
        return f"text of {different} different values"
    return "category"


def holds_dates(values: pd.Series) -> bool:
    """Whether values are dates, or texts that all read as dates."""
    if is_datetime64_any_dtype(values):
        return True
    texts = values.dropna()
    if is_numeric_dtype(values) or not texts.map(_may_be_date).all():
        return False
    return bool(pd.to_datetime(texts, errors="coerce", format="mixed").notna().all())


def _may_be_date(value: object) -> bool:
    """Whether it can be a date: pandas reads `a` and `1` as one too."""
    text = str(value)
    return sum(letter.isdigit() for letter in text) >= 4 and any(mark in text for mark in "-/:. ")


def _numbers_rows(values: pd.Series, name: str) -> bool:
    if is_float_dtype(values) or not values.is_unique:
        return False
    named = name.lower() == "id" or name.lower().endswith("_id")
    return named or bool(values.max() - values.min() + 1 == len(values))


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
    sizes = values.astype(str).value_counts()
    rarest, rows = sizes.index[-1], int(sizes.iloc[-1])
    if len(sizes) < 2:
        raise DataError(f"the target {name!r} has one value, {rarest}: there is nothing to predict")
    if rows < FEWEST_OF_A_CLASS:
        text = f"{rarest} of the target {name!r} has {rows} rows; every class needs {FEWEST_OF_A_CLASS}"
        more = "; if it is a quantity, set task: regression" if numeric else ""
        raise DataError(f"{text} to be in all parts of a split: leave it out, or join it with another{more}")
    ordered = sorted(sizes.index, key=_by_number)
    return Target(tuple(ordered), balanced=bool(sizes.min() >= 0.8 * sizes.mean()))


def _by_number(name: str) -> tuple[float, str]:
    """Classes that are numbers in their order, others by name."""
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def rows_with_target(frame: pd.DataFrame, target: str) -> pd.DataFrame:
    """The rows of which the target is known. Raises DataError."""
    known = frame.dropna(subset=[target])
    if len(known) < FEWEST_ROWS:
        raise DataError(f"the table has {len(known)} rows with a target; at least {FEWEST_ROWS} are needed")
    return known


def summary(target: str, asked: Target, columns: Columns, rows: int) -> str:
    """A table in a line."""
    learned = "a quantity" if asked.classes is None else f"one of {len(asked.classes)} classes"
    counts = {"number": len(columns.numbers), "category": len(columns.categories)}
    said = " and ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items() if count)
    return f"{target}, {learned}, from {said} in each of {rows:,} rows"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else {"category": "categories"}.get(noun, f"{noun}s")
