"""Options that say how a CSV file is written, where the file alone would be judged."""

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wdsearch.errors import DataError

MARKS = {".": ",", ",": "."}
"""Decimal marks, and the thousands mark that goes with each."""
THOUSANDS = (".", ",", " ", "'", "")


@dataclass(frozen=True)
class Reading:
    """How a CSV file is written, as far as a user says; what is None is judged by the file. Raises DataError.

    `decimal` is `.` or `,`, or one of these by column; `thousands` one of `.`, `,`, a space, `'`, or empty for none. `missing`
    are the texts of missing values beside the empty cell, in all columns or by column. `header` says whether the first row
    names the columns.

    >>> Reading(decimal=",").mark("price"), Reading(missing={"sex": ["NA"]}).missing_in("sex")
    (',', frozenset({'NA'}))
    >>> Reading(decimal=";")
    Traceback (most recent call last):
    wdsearch.errors.DataError: decimal is ';'; it is '.' or ',', or one of these for each column: {price: ','}
    """

    separator: str | None = None
    decimal: str | Mapping[str, str] | None = None
    thousands: str | None = None
    missing: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None
    encoding: str | None = None
    header: bool | None = None

    def __post_init__(self) -> None:
        for name in ("separator", "thousands", "encoding"):
            if not isinstance(value := getattr(self, name), str | None):
                raise DataError(f"{name} is {value!r}; it is a text, in quotes if need be: '{value}'")
        marks = self.decimal.values() if isinstance(self.decimal, Mapping) else [self.decimal]
        if wrong := [mark for mark in marks if mark not in (None, *MARKS)]:
            text = "it is '.' or ',', or one of these for each column: {price: ','}"
            raise DataError(f"decimal is {wrong[0]!r}; {text}")
        if self.thousands is not None and self.thousands not in THOUSANDS:
            raise DataError(f"thousands is {self.thousands!r}; it is one of ',', '.', ' ', \"'\", or '' for none")
        if self.thousands and self.thousands == self.decimal:
            raise DataError(f"decimal and thousands are both {self.thousands!r}; they differ")
        if self.header is not None and not isinstance(self.header, bool):
            raise DataError(f"header is {self.header!r}; it is true if the first row names the columns, else false")
        _check_encoding(self.encoding)
        self._check_missing()

    def _check_missing(self) -> None:
        lists = self.missing.values() if isinstance(self.missing, Mapping) else [self.missing]
        for texts in lists:
            if isinstance(texts, str) or not isinstance(texts, Sequence | None):
                raise DataError(
                    f"missing is {texts!r}; it is a list of texts, as in [NA, -999], or one for each column"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the options name."""
        return tuple(name for option in (self.decimal, self.missing) if isinstance(option, Mapping) for name in option)

    def mark(self, column: str) -> str | None:
        """Decimal mark of a column as the options say."""
        if isinstance(self.decimal, Mapping):
            return self.decimal.get(column)
        implied = MARKS.get(self.thousands or "")  # 1.234 as 1234 leaves the comma to decimals
        return self.decimal or implied

    def missing_in(self, column: str) -> frozenset[str] | None:
        """Texts of missing values in a column as the options say; None if they do not."""
        texts = self.missing.get(column) if isinstance(self.missing, Mapping) else self.missing
        return None if texts is None else frozenset(map(_text, texts))

    @property
    def of_text(self) -> dict[str, Any]:
        """Options that only a text file has, as far as they are set."""
        names = ("separator", "decimal", "thousands", "encoding", "header")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def _check_encoding(encoding: str | None) -> None:
    try:
        codecs.lookup(encoding or "utf-8")
    except LookupError:
        text = "Python knows utf-8, utf-16, cp1252, latin-1, cp1250, cp437 and more"
        raise DataError(f"encoding is {encoding!r}; {text}") from None


def _text(value: Any) -> str:
    """A value of the option as it stands in a cell: YAML reads null as None, and -999 as a number."""
    return "null" if value is None else str(value).strip()
