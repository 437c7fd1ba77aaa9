"""Kinds of a table's columns (numbers, categories, of no use), and the task that its target sets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype

from wdsearch.errors import DataError
from wdsearch.messages import nearest

FEWEST_ROWS, FEWEST_OF_A_CLASS = 20, 5
MOST_CLASSES, MOST_CATEGORIES = 20, 50
EMPTY, CONSTANT, NUMBERING, DATES = "it is empty", "it has one value", "it numbers the rows", "it holds dates"


@dataclass(frozen=True)
class Columns:
    """Inputs among a table's columns; `useless` ones are left out, `doubtful` ones are left to the user's decision."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    useless: Mapping[str, str]
    doubtful: Mapping[str, str]


@dataclass(frozen=True)
class Target:
    """The column to be predicted: one of some classes (their names), or a quantity if `classes` is None."""

    classes: tuple[str, ...] | None
    balanced: bool = True

    @property
    def task(self) -> str:
        """Task of a network that predicts it."""
        return "regression" if self.classes is None else "classification"

    @property
    def metric(self) -> str:
        """Accuracy, unless the classes are of unequal size."""
        return "r2" if self.classes is None else "accuracy" if self.balanced else "balanced_accuracy"

    def encoded(self, values: pd.Series) -> np.ndarray:
        """Values as class numbers, or as the quantity itself."""
        if self.classes is None:
            return values.to_numpy(dtype=float)
        numbers, names = coded(values)
        class_numbers = {name: number for number, name in enumerate(self.classes)}
        return np.array([class_numbers[name] for name in names], dtype=np.int64)[numbers]


@runtime_checkable
class Table(Protocol):
    """Columns of values by name: a DataFrame, or a table that is read column by column."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""

    def __len__(self) -> int: ...

    def __getitem__(self, name: str) -> Any: ...


# -- columns -------------------------------------------------------------------------------------------------------


def check_names(table: Table, names: Iterable[str], where: str) -> None:
    """Raise DataError for a name that no column has.

    >>> check_names(pd.DataFrame({"age": [1.0]}), ["agee"], "drop")
    Traceback (most recent call last):
    wdsearch.errors.DataError: drop: the table has no column 'agee'; did you mean age? known: age
    """
    columns = list(table.columns)
    for name in names:
        if name not in columns:
            raise DataError(f"{where}: the table has no column {name!r}{nearest(name, columns)}")
        if columns.count(name) > 1:
            raise DataError(f"{where}: the table has {columns.count(name)} columns {name!r}; rename all but one")


def columns_of(
    table: Table, numbers: Sequence[str] = (), categories: Sequence[str] = (), without: Iterable[str] = ()
) -> Columns:
    """Columns by their kinds, `without` some; those in `numbers` and `categories` are taken as such.

    >>> columns_of(pd.DataFrame({"age": [30.5, 41.0, 52.5, 30.5], "sex": ["f", "m", "f", "m"], "year": 2020}))
    Columns(numbers=('age',), categories=('sex',), useless={'year': 'it has one value'}, doubtful={})
    """
    declared = dict.fromkeys(numbers, "number") | dict.fromkeys(categories, "category")
    inputs = [name for name in table.columns if name not in {*without}]
    kinds = {name: declared.get(name) or _kind(table[name], name) for name in inputs} | declared
    reasons = {name: kind for name, kind in kinds.items() if kind not in ("number", "category")}
    useless = {name: reason for name, reason in reasons.items() if reason in (EMPTY, CONSTANT)}
    doubtful = {name: reason for name, reason in reasons.items() if name not in useless}
    return Columns(_of_kind(kinds, "number"), _of_kind(kinds, "category"), useless, doubtful)


def _of_kind(kinds: Mapping[str, str], kind: str) -> tuple[str, ...]:
    return tuple(name for name in kinds if kinds[name] == kind)


def coded(values: pd.Series, missing: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Code of each row's value, and the different values as sorted texts, which the codes index.

    A gap is a text of its own if `missing` names it, else -1. Only different values become texts: a column may be long.

    >>> coded(pd.Series(["b", "a", None, "b"]))
    (array([ 1,  0, -1,  1]), ['a', 'b'])
    """
    unsorted_codes, different = pd.factorize(values, use_na_sentinel=missing is None)
    texts = pd.Series(different).astype("string").fillna(missing or "").to_numpy(dtype=object)
    names, sorted_codes = np.unique(texts, return_inverse=True)
    return np.append(sorted_codes, -1)[unsorted_codes], names.tolist()


def check_any(columns: Columns, target: str) -> None:
    """Raise DataError if there is nothing to learn from.

    >>> check_any(Columns((), (), {"year": CONSTANT}, {}), "kind")
    Traceback (most recent call last):
    wdsearch.errors.DataError: the table has no column of use beside 'kind': year (it has one value)
    """
    if not columns.numbers and not columns.categories:
        reasons = {**columns.useless, **columns.doubtful}
        others = ", ".join(f"{name} ({reason})" for name, reason in reasons.items()) or "there is none"
        raise DataError(f"the table has no column of use beside {target!r}: {others}")


def _kind(values: pd.Series, name: str) -> str:
    """Kind of a column: `number`, `category`, or the reason for which it is neither."""
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
    """True if values are dates, or texts that all read as dates.

    >>> holds_dates(pd.Series(["2026-01-31", "2026-02-01"])), holds_dates(pd.Series(["a", "1"]))
    (True, False)
    """
    if is_datetime64_any_dtype(values):
        return True
    texts = values.dropna()
    if is_numeric_dtype(values) or not all(map(_may_be_date, texts)):
        return False
    return bool(pd.to_datetime(texts, errors="coerce", format="mixed").notna().all())


def _may_be_date(value: object) -> bool:
    """True if a value looks like a date: pandas reads `a` and `1` as one too."""
    text = str(value)
    return sum(letter.isdigit() for letter in text) >= 4 and any(mark in text for mark in "-/:. ")


def _numbers_rows(values: pd.Series, name: str) -> bool:
    if is_float_dtype(values):
        return False
    is_id = name.lower() == "id" or name.lower().endswith("_id")
    return (is_id or bool(values.max() - values.min() + 1 == len(values))) and values.is_unique


# -- the target ----------------------------------------------------------------------------------------------------


def target_of(values: pd.Series, task: str | None = None) -> Target:
    """Classes, or a quantity: numbers other than a few different integers; unless `task` names one. Raises DataError.

    >>> target_of(pd.Series(["yes", "no"] * 5, name="bought"))
    Target(classes=('no', 'yes'), balanced=True)
    >>> target_of(pd.Series([0.5, 1.25], name="price")).task
    'regression'
    """
    name, numeric = str(values.name), is_numeric_dtype(values) and not is_bool_dtype(values)
    if task == "regression" and not numeric:
        raise DataError(f"the target {name!r} has values such as {values.iloc[0]!r}; a regression needs numbers")
    if task is None and holds_dates(values):
        raise DataError(f"the target {name!r} holds dates; turn it into numbers, or set task: classification")
    integers = numeric and bool((values % 1 == 0).all())
    if task == "regression" or (task is None and numeric and not (integers and values.nunique() <= MOST_CLASSES)):
        return Target(None)
    numbers, names = coded(values)
    sizes = np.bincount(numbers)
    rarest, rows = names[sizes.argmin()], int(sizes.min())
    if len(names) < 2:
        raise DataError(f"the target {name!r} has one value, {rarest}: there is nothing to predict")
    if rows < FEWEST_OF_A_CLASS:
        text = f"{rarest} of the target {name!r} has {rows} rows; every class needs {FEWEST_OF_A_CLASS}"
        hint = "; if it is a quantity, set task: regression" if numeric else ""
        raise DataError(f"{text} to be in all parts of a split: leave it out, or join it with another{hint}")
    return Target(tuple(sorted(names, key=_by_number)), balanced=bool(sizes.min() >= 0.8 * sizes.mean()))


def _by_number(name: str) -> tuple[float, str]:
    """Sort key of classes: numbers in their order, then others by name."""
    try:
        return float(name), name
    except ValueError:
        return math.inf, name


def rows_with_target(table: Any, target: str) -> Any:
    """Rows of a table with a known target. Raises DataError.

    >>> len(rows_with_target(pd.DataFrame({"kind": ["a", None] * 20}), "kind"))
    20
    """
    rows = np.flatnonzero(table[target].notna().to_numpy())
    if len(rows) < FEWEST_ROWS:
        raise DataError(f"the table has {len(rows)} rows with a target; at least {FEWEST_ROWS} are needed")
    if isinstance(table, pd.DataFrame):
        return table.iloc[rows].reset_index(drop=True)
    return table if len(rows) == len(table) else table.of(rows)


def summary(target: str, asked: Target, columns: Columns, rows: int) -> str:
    """Description of a table in one line.

    >>> summary("kind", Target(("a", "b")), Columns(("age",), ("sex", "city"), {}, {}), 1200)
    'kind, one of 2 classes, from 1 number and 2 categories in each of 1,200 rows'
    """
    predicted = "a quantity" if asked.classes is None else f"one of {len(asked.classes)} classes"
    counts = {"number": len(columns.numbers), "category": len(columns.categories)}
    inputs = " and ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items() if count)
    return f"{target}, {predicted}, from {inputs} in each of {rows:,} rows"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else {"category": "categories"}.get(noun, f"{noun}s")
