"""What became of each column of a table, for people: `init` and `validate` print it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

if TYPE_CHECKING:
    from wdsearch.datasets.frames import Columns, Table, Target
    from wdsearch.datasets.tables.csv_files import Facts

LONGEST = 30


class ColumnNote(NamedTuple):
    """A column: its name, what became of it, a sample value, how many are missing, and what else is to be known."""

    name: str
    became: str
    sample: str
    missing: int
    remark: str = ""


def column_notes(
    table: Table, roles: Mapping[str, str], target: Target, columns: Columns, facts: Facts
) -> tuple[ColumnNote, ...]:
    """A note for each column of a table; `roles` say what becomes of those that are no inputs.

    >>> from wdsearch.datasets.frames import Columns, Target
    >>> from wdsearch.datasets.tables.csv_files import Facts
    >>> frame = pd.DataFrame({"age": [30.5, None], "kind": ["a", "b"]})
    >>> columns = Columns(("age",), (), {}, {})
    >>> for note in column_notes(frame, {"kind": "target"}, Target(("a", "b")), columns, Facts()):
    ...     print(note[:4])
    ('age', 'number', '30.5', 1)
    ('kind', 'target, one of 2 classes', 'a', 0)
    """
    others = dict(roles) | {name: f"left out: {why}" for name, why in {**columns.useless, **columns.doubtful}.items()}
    return tuple(_note(table, name, others, target, columns, facts) for name in map(str, table.columns))


def _note(
    table: Table, name: str, others: Mapping[str, str], target: Target, columns: Columns, facts: Facts
) -> ColumnNote:
    try:
        values = table[name]
    except KeyError:  # left out while the table was read
        return ColumnNote(name, others.get(name, "left out"), "", 0)
    known = values.dropna()
    if name in columns.categories:
        became = f"category, one of {known.nunique():,}"
    elif name in columns.numbers:
        became = "number"
    else:
        became = others.get(name, "left out")
    if became == "target":
        became += f", one of {len(target.classes)} classes" if target.classes else ", a quantity"
    sample = "" if known.empty else _short(known.iloc[0])
    return ColumnNote(name, became, sample, int(values.isna().sum()), _remark(name, values, facts))


def _remark(name: str, values: pd.Series, facts: Facts) -> str:
    rule = (facts.rules or {}).get(name)
    if rule is None:
        return ""
    texts = sorted(rule.missing)
    shown = ", ".join(texts[:4]) + (" ..." if len(texts) > 4 else "")
    missing = f"missing: {shown}" if texts and values.isna().any() else ""
    return "; ".join(filter(None, [rule.remark, missing]))


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
