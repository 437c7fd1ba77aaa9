"""Splits of rows into training, validation and test parts: at random, by group, or by time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from wdsearch.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from wdsearch.datasets.frames import Table

WAYS = ("stratify", "group", "time")


def split_rows(
    table: Table, split: Mapping[str, Any], shares: tuple[float, float], seed: int, classes: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Row numbers of each part; `shares` are those of validation and test, `classes` None for a quantity.

    Raises DataError.

    >>> import pandas as pd
    >>> parts = split_rows(pd.DataFrame({"year": [2024, 2021, 2023, 2022]}), {"time": "year"}, (0.25, 0.25), 0, None)
    >>> {name: rows.tolist() for name, rows in parts.items()}
    {'train': [1, 3], 'validation': [2], 'test': [0]}
    """
    from wdsearch.datasets.frames import coded  # pandas takes half a second

    _check(split, shares)
    for way, name in split.items():
        if isinstance(name, str) and (missing := int(table[name].isna().sum())):
            raise DataError(f"split.{way}: {name!r} has no value in {missing} rows; fill them, or leave these rows out")
    rows, seed = np.arange(len(table)), seed % 2**32
    validation, test = shares
    if "time" in split:
        return _by_time(table[split["time"]], validation, test)
    if "group" in split:
        groups, _ = coded(table[split["group"]])
        rest, tested = grouped(rows, groups, test, seed)
        trained, validated = grouped(rest, groups, validation / (1 - test), seed)
        return {"train": trained, "validation": validated, "test": tested}
    by = split.get("stratify", True)
    strata = coded(table[by])[0] if isinstance(by, str) else classes if by else None
    rest, tested = shuffled(rows, strata, test, seed)
    trained, validated = shuffled(rest, strata, validation / (1 - test), seed)
    return {"train": trained, "validation": validated, "test": tested}


def _check(split: Mapping[str, Any], shares: tuple[float, float]) -> None:
    if len(split) > 1 or not split.keys() <= set(WAYS):
        raise DataError(f"split is {dict(split)}; it has one of {', '.join(WAYS)}, as in {{group: COLUMN}}")
    for way, name in split.items():
        if not isinstance(name, str) and not (way == "stratify" and isinstance(name, bool)):
            raise DataError(f"split.{way} is {name!r}; it is the name of a column")
    check_shares({"validation": shares[0], "test": shares[1]})


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise DataError for parts that leave nothing for training.

    >>> check_shares({"test": 1.0})
    Traceback (most recent call last):
    wdsearch.errors.DataError: test is 1; these are shares of all rows, above 0, that leave some for training
    """
    if shares and not (min(shares.values()) > 0 and sum(shares.values()) < 1):
        listed = " and ".join(f"{part} is {share:g}" for part, share in shares.items())
        raise DataError(f"{listed}; these are shares of all rows, above 0, that leave some for training")


def shuffled(rows: np.ndarray, strata: np.ndarray | None, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of some row numbers, the second with this share of them, classes alike in both. Raises DataError.

    >>> first, second = shuffled(np.arange(10), np.array([0, 1] * 5), share=0.2, seed=0)
    >>> len(first), sorted((second % 2).tolist())
    (8, [0, 1])
    """
    try:
        first, second = train_test_split(
            rows, test_size=share, random_state=seed, stratify=None if strata is None else strata[rows]
        )
    except ValueError as error:
        raise DataError(f"{len(rows)} rows cannot be split: {error}") from None
    return first, second


def grouped(rows: np.ndarray, groups: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two parts of some row numbers, the second with this share of the groups. Raises DataError.

    >>> first, second = grouped(np.arange(6), np.array([0, 0, 1, 1, 2, 2]), share=0.3, seed=0)
    >>> set(first // 2) & set(second // 2)
    set()
    """
    splitter = GroupShuffleSplit(1, test_size=share, random_state=seed)
    try:
        first, second = next(splitter.split(rows, groups=groups[rows]))
    except ValueError as error:
        raise DataError(f"{len(set(groups[rows]))} groups cannot be split: {error}") from None
    return rows[first], rows[second]


def _by_time(times: pd.Series, validation: float, test: float) -> dict[str, np.ndarray]:
    """Split with the earliest rows for training, the latest for the test; rows of one time stay together."""
    import pandas as pd

    values = times if times.dtype.kind in "iufM" else pd.to_datetime(times, errors="coerce", format="mixed", utc=True)
    if values.isna().any():
        broken = times[values.isna()].iloc[0]
        raise DataError(f"split.time: {times.name!r} has values such as {broken!r}, which are no times")
    order = np.argsort(values.to_numpy(), kind="stable")
    ordered = values.to_numpy()[order]
    cuts = [round(len(order) * share) for share in (1 - validation - test, 1 - test)]
    first, second = (int(np.searchsorted(ordered, ordered[cut], side="left")) for cut in cuts)
    if not 0 < first < second:
        raise DataError(f"split.time: {times.name!r} has too few different times for three parts")
    return {"train": order[:first], "validation": order[first:second], "test": order[second:]}
