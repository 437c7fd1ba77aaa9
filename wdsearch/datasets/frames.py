"""Kinds of a table's columns (numbers, categories, of no use), and the task that its target sets."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_float_dtype, is_numeric_dtype

from wdsearch.datasets.tables.rules import FEWEST_OF_A_CLASS, MOST_CATEGORIES
from wdsearch.errors import DataError
from wdsearch.messages import nearest

FEWEST_ROWS = 20
MOST_CLASSES = 20
EMPTY, CONSTANT, NUMBERING, DATES = "it is empty", "it has one value", "it numbers the rows", "it holds dates"
IDENTIFIER = "by its name it identifies something"
DIFFERENT = "each row has another integer, as identifiers have"
INFINITE = "it has infinite values"
_ID_NAME = re.compile(r"(?:.*[_\-. ])?(?i:id|ids|uuid|guid)|.*[a-z](?:Id|ID)|(?i:index|row|rowid|row_number|idx)")


@dataclass(frozen=True)
class Columns:
    """Inputs among a table's columns; `useless` ones are left out, `doubtful` ones are left to the user's decision."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    useless: Mapping[str, str]
    doubtful: Mapping[str, str]


@dataclass(frozen=True)
class Target:
    """What is to be predicted: one of some classes (their names), or, if `classes` is None, as many `quantities`."""

    classes: tuple[str, ...] | None
    balanced: bool = True
    quantities: int = 1

    @property
    def task(self) -> str:
        """Task of a network that predicts it."""
        return "regression" if self.classes is None else "classification"

    @property
    def metric(self) -> str:
        """Accuracy, unless the classes are of unequal size."""
        return "r2" if self.classes is None else "accuracy" if self.balanced else "balanced_accuracy"

    def encoded(self, values: Sequence[pd.Series]) -> np.ndarray:
        """Values as class numbers, or as the quantities themselves: (rows,), or (rows, quantities) if these are several."""
        if self.classes is None:
            quantities = np.stack([column.to_numpy(dtype=float) for column in values], axis=1)
            return quantities[:, 0] if self.quantities == 1 else quantities
        numbers, names = coded(values[0])
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
            raise DataError(f"{where}: the table has no column {name!r}{nearest(str(name), map(str, columns))}")
        if columns.count(name) > 1:
            raise DataError(f"{where}: the table has {columns.count(name)} columns {name!r}; rename all but one")


def columns_of(
    table: Table,
    numbers: Sequence[str] = (),
    categories: Sequence[str] = (),
    without: Iterable[str] = (),
    doubts: Mapping[str, str] | None = None,
) -> Columns:
    """Columns by their kinds, `without` some; those in `numbers` and `categories` are taken as such.

    `doubts` are reasons for which columns need a decision, beside those that their values give.

    >>> columns_of(pd.DataFrame({"age": [30.5, 41.0, 52.5, 30.5], "sex": ["f", "m", "f", "m"], "year": 2020}))
    Columns(numbers=('age',), categories=('sex',), useless={'year': 'it has one value'}, doubtful={})
    """
    declared = dict.fromkeys(numbers, "number") | dict.fromkeys(categories, "category")
    inputs = [name for name in table.columns if name not in {*without}]
    doubtful = doubts or {}
    kinds = {name: declared.get(name) or doubtful.get(name) or _kind(table[name], name) for name in inputs} | declared
    reasons = {name: kind for name, kind in kinds.items() if kind not in ("number", "category")}
    useless = {name: reason for name, reason in reasons.items() if reason in (EMPTY, CONSTANT)}
    undecided = {name: reason for name, reason in reasons.items() if name not in useless}
    return Columns(_of_kind(kinds, "number"), _of_kind(kinds, "category"), useless, undecided)


def _of_kind(kinds: Mapping[str, str], kind: str) -> tuple[str, ...]:
    return tuple(name for name in kinds if kinds[name] == kind)


def coded(values: pd.Series, missing: str | None = None) -> tuple[np.ndarray, list[str]]:
    """Code of each row's value, and the different values as sorted texts, which the codes index.

    A gap is a text of its own if `missing` names it, else -1. Only different values become texts: a column may be long.

    >>> coded(pd.Series(["b", "a", None, "b"]))
    (array([ 1,  0, -1,  1]), ['a', 'b'])
    """
    unsorted_codes, different = pd.factorize(values, use_na_sentinel=missing is None)
    if is_float_dtype(values) and all(float(value).is_integer() for value in different[pd.notna(different)]):
        different = pd.array(different, dtype="Int64")  # 1, where a column has gaps, as where it has none
    texts = pd.Series(different).astype("string").fillna(missing or "").to_numpy(dtype=object)
    names, sorted_codes = np.unique(texts, return_inverse=True)
    return np.append(sorted_codes, -1)[unsorted_codes], names.tolist()


def check_any(columns: Columns, targets: Sequence[str]) -> None:
    """Raise DataError if there is nothing to learn from.

    >>> check_any(Columns((), (), {"year": CONSTANT}, {}), ["kind"])
    Traceback (most recent call last):
    wdsearch.errors.DataError: the table has no column of use beside 'kind': year (it has one value)
    """
    if not columns.numbers and not columns.categories:
        reasons = {**columns.useless, **columns.doubtful}
        others = ", ".join(f"{name} ({reason})" for name, reason in reasons.items()) or "there is none"
        raise DataError(f"the table has no column of use beside {' and '.join(map(repr, targets))}: {others}")


def _kind(values: pd.Series, name: str) -> str:
    """Kind of a column: `number`, `category`, or the reason for which it is neither."""
    numeric = _is_number(values)
    if values.isna().all():
        return EMPTY
    if numeric:
        if values.min() == values.max():
            return CONSTANT
        return INFINITE if np.isinf(values.astype(float)).any() else _identity(values, name) or "number"
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


def identities(table: Table, names: Iterable[str]) -> dict[str, str]:
    """Reason to take a column for identifiers, of each of these columns for which there is one.

    >>> identities(pd.DataFrame({"n": [1, 2, 3], "x": [0.5, 1.5, 2.5]}), ["n", "x"])
    {'n': 'it numbers the rows'}
    """
    reasons = {name: _identity(values, name) for name in names if _is_number(values := table[name])}
    return {name: reason for name, reason in reasons.items() if reason}


def _identity(values: pd.Series, name: str) -> str:
    """Reason to take integers for identifiers: by the column's name, or because each row has another; empty for quantities.

    >>> _identity(pd.Series([5, 3, 9]), "PassengerId"), _identity(pd.Series([1, 2, 3]), "n"), _identity(pd.Series([5, 3, 9]), "n")
    ('each row has another integer, as identifiers have', 'it numbers the rows', '')
    """
    known = values.dropna()
    if known.nunique() < 2 or np.isinf(known.astype(float)).any():
        return ""
    integers = not is_float_dtype(values) or (len(known) < len(values) and bool((known % 1 == 0).all()))
    if not integers:
        return ""
    is_id = _ID_NAME.fullmatch(name) is not None
    if not known.is_unique:
        return IDENTIFIER if is_id else ""
    first, last = int(known.min()), int(known.max())
    ascending = len(known) > 5 and known.is_monotonic_increasing
    codes = len(known) > 5 and first >= 10**4 and len(str(first)) == len(str(last))
    dense = last - first < 2 * len(known)
    return NUMBERING if dense else DIFFERENT if is_id or ascending or codes else ""


# -- the target ----------------------------------------------------------------------------------------------------


def targets_of(columns: Sequence[pd.Series], task: str | None = None) -> Target:
    """The target of one column, or several quantities. Raises DataError.

    >>> targets_of([pd.Series([0.5, 1.25], name="heat"), pd.Series([2.5, 0.75], name="cool")])
    Target(classes=None, balanced=True, quantities=2)
    """
    if len(columns) == 1:
        return target_of(columns[0], task)
    for values in columns:
        if task != "classification" and (task or _is_number(values)) and target_of(values, task).classes is None:
            continue
        hint = "" if task or not _is_number(values) else ", or set task: regression if it is a quantity"
        names = ", ".join(str(column.name) for column in columns)
        text = f"several targets ({names}) must be quantities, and {str(values.name)!r} holds classes"
        raise DataError(f"{text}; make a study for each, with the others under drop{hint}")
    return Target(None, quantities=len(columns))


def _is_number(values: pd.Series) -> bool:
    return is_numeric_dtype(values) and not is_bool_dtype(values)


def target_of(values: pd.Series, task: str | None = None) -> Target:
    """Classes, or a quantity: numbers other than a few different integers; unless `task` names one. Raises DataError.

    >>> target_of(pd.Series(["yes", "no"] * 5, name="bought"))
    Target(classes=('no', 'yes'), balanced=True, quantities=1)
    >>> target_of(pd.Series([0.5, 1.25], name="price")).task
    'regression'
    """
    name, numeric = str(values.name), _is_number(values)
    if task == "regression" and not numeric:
        raise DataError(f"the target {name!r} has values such as {values.iloc[0]!r}; a regression needs numbers")
    if task is None and holds_dates(values):
        raise DataError(f"the target {name!r} holds dates; turn it into numbers, or set task: classification")
    if numeric and (infinite := int(np.isinf(values.astype(float)).sum())):
        text = f"the target {name!r} is infinite in {infinite} of {len(values)} rows"
        raise DataError(f"{text}; set missing: [inf, -inf] to leave these rows out, or replace the values")
    integers = numeric and bool((values % 1 == 0).all())
    if task == "regression" or (task is None and numeric and not (integers and values.nunique() <= MOST_CLASSES)):
        return Target(None)
    return _classes_of(values, numeric)


def _classes_of(values: pd.Series, numeric: bool) -> Target:
    name = str(values.name)
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


def rows_with_target(table: Any, targets: Sequence[str]) -> tuple[Any, str]:
    """Rows of a table whose targets are known, and a note about the others, if there are any. Raises DataError.

    >>> rows, note = rows_with_target(pd.DataFrame({"kind": ["a", None] * 20}), ["kind"])
    >>> len(rows), note
    (20, '20 of 40 rows are left out: they have no kind')
    """
    rows = np.flatnonzero(np.all([table[target].notna().to_numpy() for target in targets], axis=0))
    if len(rows) < FEWEST_ROWS:
        raise DataError(f"the table has {len(rows)} rows with a target; at least {FEWEST_ROWS} are needed")
    if len(rows) == len(table):
        return table, ""
    lacking = len(table) - len(rows)
    verbs = "is left out: it has" if lacking == 1 else "are left out: they have"
    note = f"{lacking:,} of {len(table):,} rows {verbs} no {' or '.join(targets)}"
    return table.iloc[rows].reset_index(drop=True) if isinstance(table, pd.DataFrame) else table.of(rows), note


def summary(targets: Sequence[str], asked: Target, columns: Columns, rows: int) -> str:
    """Description of a table in one line.

    >>> summary(["kind"], Target(("a", "b")), Columns(("age",), ("sex", "city"), {}, {}), 1200)
    'kind, one of 2 classes, from 1 number and 2 categories in each of 1,200 rows'
    """
    quantities = "a quantity" if asked.quantities == 1 else f"{asked.quantities} quantities"
    predicted = quantities if asked.classes is None else f"one of {len(asked.classes)} classes"
    counts = {"number": len(columns.numbers), "category": len(columns.categories)}
    inputs = " and ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items() if count)
    return f"{' and '.join(targets)}, {predicted}, from {inputs} in each of {rows:,} rows"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else {"category": "categories"}.get(noun, f"{noun}s")
