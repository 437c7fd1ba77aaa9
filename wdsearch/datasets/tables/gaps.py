"""Missing values of tables with types, DataFrames and Parquet files, as the option `missing` names them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from wdsearch.datasets.tables.reading import Reading

if TYPE_CHECKING:
    from wdsearch.datasets.frames import Table


class TableWithGaps:
    """A table read column by column, in whose columns some values are missing ones."""

    def __init__(self, table: Any, reading: Reading) -> None:
        self.table, self.reading = table, reading

    @property
    def columns(self) -> Any:
        """Names of the columns."""
        return self.table.columns

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, name: str) -> pd.Series:
        return _gapped(self.table[name], self.reading.missing_in(name))

    def of(self, rows: np.ndarray) -> TableWithGaps:
        """Same columns of some rows, by their numbers."""
        return TableWithGaps(self.table.of(rows), self.reading)


def without_missing(table: Any, reading: Reading) -> Table:
    """A table in which the values that mean missing ones are missing.

    >>> frame = pd.DataFrame({"sex": ["f", "NA"], "age": [-999, 30]})
    >>> without_missing(frame, Reading(missing=["NA", -999])).isna().to_numpy().tolist()
    [[False, True], [True, False]]
    """
    if reading.missing is None:
        return table
    if not isinstance(table, pd.DataFrame):
        return TableWithGaps(table, reading)
    return pd.DataFrame({name: _gapped(table[name], reading.missing_in(str(name))) for name in table.columns})


def _gapped(values: pd.Series, texts: frozenset[str] | None) -> pd.Series:
    if not texts or is_bool_dtype(values):
        return values
    gaps = values.isin(
        [number for text in texts for number in _numbers(text)] if is_numeric_dtype(values) else [*texts]
    )
    return values.mask(gaps) if gaps.any() else values


def _numbers(text: str) -> list[float]:
    try:
        return [float(text)]
    except ValueError:
        return []
