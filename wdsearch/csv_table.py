"""What a CSV file holds, as far as a study needs to know it: which columns are numbers, categories, or of no use."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_numeric_dtype

from wdsearch.studyfile import nearest

FEWEST_ROWS, FEWEST_OF_A_CLASS, MOST_CLASSES, MOST_CATEGORIES = 20, 5, 20, 50


class TableError(Exception):
    """A CSV file of which no study can be made."""


@dataclass(frozen=True)
class CsvTable:
    """A table's target and columns; `classes` is None for a regression, `left_out` says why by name."""

    path: Path
    separator: str
    rows: int
    target: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    left_out: Mapping[str, str]
    classes: int | None
    balanced: bool

    @property
    def task(self) -> str:
        """What is learned."""
        return "regression" if self.classes is None else "classification"

    @property
    def metric(self) -> str:
        """Accuracy unless the classes are of unequal size."""
        return "r2" if self.classes is None else "accuracy" if self.balanced else "balanced_accuracy"


def read_table(path: Path, target: str | None) -> CsvTable:
    """Look at a CSV file; raises TableError."""
    separator, rows = _rows(path)
    columns = [str(name) for name in rows.columns]
    if target is None:
        raise TableError(f"which column of {path} is to be predicted? --target COLUMN; it has: {', '.join(columns)}")
    if target not in columns:
        raise TableError(f"{path} has no column {target!r}{nearest(target, columns)}")
    rows = rows.dropna(subset=[target])
    if len(rows) < FEWEST_ROWS:
        raise TableError(f"{path} has {len(rows)} rows with a target; at least {FEWEST_ROWS} are needed")
    kinds = {name: _kind(rows[name], name) for name in columns if name != target}
    numbers = tuple(name for name, kind in kinds.items() if kind == "number")
    categories = tuple(name for name, kind in kinds.items() if kind == "category")
    left_out = {name: kind for name, kind in kinds.items() if kind not in ("number", "category")}
    if not numbers and not categories:
        raise TableError(f"{path} has no column of use beside {target!r}: {_said(left_out) or 'there is none'}")
    sizes = _class_sizes(rows[target], path)
    balanced = sizes is None or sizes.min() >= 0.8 * sizes.mean()
    classes = None if sizes is None else len(sizes)
    return CsvTable(path, separator, len(rows), target, numbers, categories, left_out, classes, bool(balanced))


def _said(left_out: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({why})" for name, why in left_out.items())


def _rows(path: Path) -> tuple[str, pd.DataFrame]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = _separator(file.readline())
        return separator, pd.read_csv(path, sep=separator)
    except FileNotFoundError:
        problem = "there is no such file"
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text; save it as UTF-8"
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        problem = f"it cannot be read as a table: {getattr(error, 'strerror', None) or error}"
    raise TableError(f"{path}: {problem}")


def _separator(header: str) -> str:
    try:
        return csv.Sniffer().sniff(header, ",;\t|").delimiter
    except csv.Error:  # one column, or a header of which nothing can be said
        return ","


def _kind(values: pd.Series, name: str) -> str:
    """`number`, `category`, or why the column is left out."""
    different = values.nunique()
    if different < 2:
        return "it has one value" if different else "it is empty"
    if is_numeric_dtype(values) and not is_bool_dtype(values):
        return "it numbers the rows" if _numbers_rows(values, name) else "number"
    if different > min(MOST_CATEGORIES, len(values) // 2):
        return f"text of {different} different values"
    return "category"


def _numbers_rows(values: pd.Series, name: str) -> bool:
    if is_float_dtype(values) or not values.is_unique:
        return False
    named = name.lower() == "id" or name.lower().endswith("_id")
    return named or bool(values.max() - values.min() + 1 == len(values))


def _class_sizes(target: pd.Series, path: Path) -> Any:
    """Rows of each class, or None if the target is a quantity."""
    numeric = is_numeric_dtype(target) and not is_bool_dtype(target)
    whole = numeric and bool((target % 1 == 0).all())
    sizes = target.value_counts()
    if numeric and not (whole and len(sizes) <= MOST_CLASSES):
        return None
    rarest, rows = sizes.index[-1], int(sizes.iloc[-1])
    if len(sizes) < 2:
        raise TableError(f"{path}: the target {target.name!r} has one value, {rarest}: there is nothing to predict")
    if rows < FEWEST_OF_A_CLASS:
        text = f"{rarest} of the target {target.name!r} has {rows} rows; every class needs {FEWEST_OF_A_CLASS}"
        raise TableError(f"{path}: {text} to be in all parts of a split: leave it out, or join it with another")
    return sizes
