"""CSV files read as texts in pieces, from which the columns' rules are learned, and then their values."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from wdsearch.datasets._progress import with_byte_bar
from wdsearch.datasets.tables.cells import Seen
from wdsearch.datasets.tables.layout import Layout, layout_of
from wdsearch.datasets.tables.reading import Reading
from wdsearch.datasets.tables.rules import Roles, Rule, rules_of
from wdsearch.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

PIECE = 2**19
"""Cells read from a CSV file at once."""
TOTALS = frozenset(
    ["total", "totals", "grand total", "sum", "gesamt", "gesamtsumme", "summe", "insgesamt", "somme", "totale", "suma"]
)
"""Texts, in small letters, that name a last row of sums."""
_METHODS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}


@dataclass(frozen=True)
class Facts:
    """What is to be known of a table beside its values: notes about its rows, and the rule of each column."""

    notes: tuple[str, ...] = ()
    rules: dict[str, Rule] | None = None

    @property
    def doubts(self) -> dict[str, str]:
        """Columns that need a decision, with the reason."""
        return {name: rule.doubt for name, rule in (self.rules or {}).items() if rule.doubt}

    @property
    def remarks(self) -> dict[str, str]:
        """Columns of which something is to be known."""
        return {name: rule.remark for name, rule in (self.rules or {}).items() if rule.remark}


class TextTable:
    """A CSV file as texts, read in pieces of rows; `columns` are its names, `notes` what was judged by the file.

    After all pieces have been read, `rules` gives each column's rule.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile(suffix=".csv") as file:
    ...     _ = Path(file.name).write_text("age;sex\\n30,5;f\\n41,0;m\\n")
    ...     table = TextTable(Path(file.name), Reading())
    ...     pieces = list(table.pieces())
    >>> pieces[0].to_pydict(), table.rules(Roles())["age"].kind
    ({'age': ['30,5', '41,0'], 'sex': ['f', 'm']}, 'number')
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path, self.reading = path, reading
        self.layout: Layout = layout_of(path, reading)
        self.notes = self.layout.notes
        self.seen: dict[str, Seen] = {}
        _check_columns(reading, self.layout.names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.layout.names

    def pieces(self, left_out: Collection[str] = (), rows: int | None = None) -> Iterator[pa.Table]:
        """Pieces of the table as texts without surrounding spaces, without some columns; or its first rows."""
        used = [name for name in self.columns if name not in {*left_out}]
        self.seen = {name: Seen() for name in used}
        for piece, is_last in _with_last(self._frames(rows)):
            cells = {name: pc.utf8_trim_whitespace(pa.array(piece[name], pa.large_string())) for name in self.columns}
            table = pa.table(cells)
            if is_last and (name := _name_of_totals(table)):
                self.notes += (f"the last row is left out: its {name!r} is {table[name][-1].as_py()!r}",)
                table = table.slice(0, len(table) - 1)
            table = self._without_headers(table)
            for name in used:
                self.seen[name].learn(table[name].combine_chunks())
            yield table.select(used)

    def _without_headers(self, table: pa.Table) -> pa.Table:
        """The table without rows that repeat the header, as of files put together."""
        repeats = pc.equal(table[0], self.columns[0])
        if not self.layout.header or not pc.any(repeats).as_py():
            return table
        for name, column in zip(self.columns, table.columns, strict=True):
            repeats = pc.and_(repeats, pc.equal(column, name))
        if count := pc.sum(repeats).as_py():
            self.notes += (f"{count} {'row repeats' if count == 1 else 'rows repeat'} the header, left out",)
        return table.filter(pc.invert(repeats))

    def rules(self, roles: Roles) -> dict[str, Rule]:
        """Rule of each column that was read. Raises DataError."""
        if twice := [name for name in roles.targets if name in self.layout.twice]:
            raise DataError(f"the target {twice[0]!r} names several columns; give each its own name in the header")
        return rules_of(self.seen, self.reading, self.layout.separator, roles)

    def _frames(self, rows: int | None) -> Iterator[pd.DataFrame]:
        import pandas as pd

        layout, path = self.layout, self.path
        options: dict[str, Any] = {
            "sep": layout.separator,
            "encoding": layout.encoding,
            "compression": "tar" if ".tar" in path.suffixes else _METHODS.get(path.suffix),
            "header": 0 if layout.header else None,
            "names": list(layout.names),
            "index_col": False,
            "dtype": str,
            "na_filter": False,
            "nrows": rows,
            "chunksize": max(1, PIECE // len(layout.names)),
        }
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of cells beyond the header, which would be lost
            try:
                with pd.read_csv(file, low_memory=False, **options) as pieces:
                    yield from with_byte_bar(pieces, file, path.stat().st_size, f"reading {path.name}")
            except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
                raise DataError(f"{path}: {_ragged(error, layout)}") from None


def _check_columns(reading: Reading, names: Sequence[str]) -> None:
    from wdsearch.messages import nearest

    for name in reading.columns:
        if name not in names:
            raise DataError(f"decimal and missing name the column {name!r}{nearest(name, names)}")


def _ragged(error: Exception, layout: Layout) -> str:
    text = str(error).removeprefix("Error tokenizing data. C error: ").strip()
    if isinstance(error, Warning):
        text = f"some rows have more than the {len(layout.names)} cells of the header"
    hint = "a text with the separator in it must be in quotes, and so must a number with a decimal comma in a file of commas"
    return f"its rows are of unequal length: {text}; {hint}"


def _with_last(items: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """Items, each with True if no other follows."""
    before = next(items, None)
    if before is None:
        return
    for item in items:
        yield before, False
        before = item
    yield before, True


def _name_of_totals(table: pa.Table) -> str | None:
    """Column whose last cell alone names a total."""
    if len(table) < 2:
        return None
    for name in table.column_names:
        last, before = table[name][-1].as_py(), table[name][-2].as_py()
        if last.lower().rstrip(":") in TOTALS and before.lower() != last.lower():
            return name
    return None


def read_csv(path: Path, reading: Reading, roles: Roles, rows: int | None = None) -> tuple[pd.DataFrame, Facts]:
    """Read a CSV file into memory, or its first rows. Raises DataError.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile(suffix=".csv") as file:
    ...     _ = Path(file.name).write_text("age;zip\\n30,5;01067\\n;10115\\n")
    ...     frame, facts = read_csv(Path(file.name), Reading(), Roles())
    >>> frame.to_dict("list"), facts.remarks["age"]
    ({'age': [30.5, nan], 'zip': ['01067', '10115']}, 'decimal comma, as in 30,5')
    """
    import pandas as pd

    table = TextTable(path, reading)
    cells = pa.concat_tables(table.pieces(rows=rows))
    rules = table.rules(roles)
    columns = {}
    for name in table.columns:
        columns[name] = rules[name].values(cells[name].combine_chunks()).to_pandas()
        cells = cells.drop_columns([name])  # texts and values are not there twice
    return pd.DataFrame(columns), Facts(table.notes, rules)
