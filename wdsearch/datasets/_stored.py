"""Tables larger than memory: Parquet files read one column at a time, to which CSV files are converted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wdsearch.datasets._progress import with_byte_bar
from wdsearch.datasets._scratch import Scratch

if TYPE_CHECKING:  # pandas takes half a second
    import pandas as pd

TABLE = "table.parquet"
PIECE = 2**20
"""Values read from a CSV file at once."""
_DTYPES = {"whole": "int64", "negative": "int64", "large": "uint64", "number": "float64", "text": str}
_METHODS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}


class StoredTable:
    """Columns of a Parquet file, each read when it is indexed: the same values as `pandas.read_parquet` gives.

    `columns` may name more than the file holds. With `rows`, a column has these rows only.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None = None, rows: np.ndarray | None = None) -> None:
        import pandas as pd
        from pyarrow.parquet import ParquetFile

        self.file, self.rows = ParquetFile(path), rows
        held = self.file.schema_arrow.empty_table().to_pandas().columns  # without an index
        self.columns = pd.Index(held.map(str) if columns is None else columns)

    def __len__(self) -> int:
        return self.file.metadata.num_rows if self.rows is None else len(self.rows)

    def __getitem__(self, name: str) -> pd.Series:
        values = self.file.read(columns=[name], use_pandas_metadata=False).to_pandas()[name]
        return (values if self.rows is None else values.iloc[self.rows]).reset_index(drop=True)

    def of(self, rows: np.ndarray) -> StoredTable:
        """Same columns of some rows, by their numbers."""
        subset = object.__new__(StoredTable)
        subset.__dict__ = self.__dict__ | {"rows": rows}
        return subset


def stored_csv(path: Path, separator: str, left_out: set[str], scratch: Scratch, size: int) -> StoredTable:
    """Convert a CSV file of about `size` bytes when not compressed, without some columns, to a temporary Parquet file.

    Its values are those of `pandas.read_csv`, which chooses a column's type by all its rows: a column is read with the kind of
    its rows so far; if a later piece changes the kind, the file is read a second time.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile(suffix=".csv") as file:
    ...     size = Path(file.name).write_text("age,name\\n30,Ann\\n41,Bob\\n")
    ...     table = stored_csv(Path(file.name), ",", {"name"}, Scratch(), size)
    >>> len(table), table["age"].tolist()
    (2, [30, 41])
    """
    import pandas as pd

    scratch.claim(size, f"{path}: reading it column by column")
    columns = list(pd.read_csv(path, sep=separator, encoding="utf-8-sig", nrows=0).columns.map(str))
    table, kinds = scratch.path / TABLE, _Kinds()
    if not _written(_pieces(path, separator, len(columns), None), table, kinds, left_out, scratch):
        dtypes = {name: _DTYPES[kind] for name, kind in kinds.by_column.items() if kind != "truth"}
        _written(_pieces(path, separator, len(columns), dtypes), table, kinds, left_out, scratch)
    return StoredTable(table, columns)


def _written(pieces: Iterator[pd.DataFrame], table: Path, kinds: _Kinds, left_out: set[str], scratch: Scratch) -> bool:
    """Write pieces to a Parquet file; False, with all kinds learned, if a later piece changed the kind of a column."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    writer = changed = None
    for piece in pieces:
        used = piece[[name for name in piece.columns if name not in left_out]]
        changed = (kinds.learn(used) and writer is not None) or changed
        if changed:
            continue
        schema = kinds.schema()
        writer = writer or ParquetWriter(table, schema, use_dictionary=kinds.texts, write_statistics=False)
        scratch.claim(int(piece.memory_usage().sum()), f"{table}: another piece of the table")
        arrays = [_array(used[field.name], field.type) for field in schema]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    if writer is not None:
        writer.close()
    return not changed


def _array(values: pd.Series, kind: Any) -> Any:
    import pyarrow as pa

    return pa.nulls(len(values), kind) if values.isna().all() else pa.array(values, kind, from_pandas=True)


def _pieces(path: Path, separator: str, columns: int, dtypes: Mapping[str, Any] | None) -> Iterator[pd.DataFrame]:
    """Pieces of a CSV file, with columns of the types in `dtypes`, or of those that fit each piece."""
    import pandas as pd

    method: Any = "tar" if ".tar" in path.suffixes else _METHODS.get(path.suffix)
    rows = max(1, PIECE // max(1, columns))
    options: dict[str, Any] = {"sep": separator, "encoding": "utf-8-sig", "compression": method, "dtype": dtypes}
    with (
        path.open("rb") as file,
        pd.read_csv(file, low_memory=False, chunksize=rows, **options) as pieces,
    ):
        yield from with_byte_bar(pieces, file, path.stat().st_size, f"reading {path.name}")


class _Kinds:
    """Kinds of a table's columns by name, as far as the table has been read."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}
        self.by_column: dict[str, str] = {}

    def learn(self, piece: pd.DataFrame) -> bool:
        """Take in another piece; True if it changes the kind of a column."""
        for name in piece.columns:
            self.seen.setdefault(name, set()).update(_kinds_of(piece[name]))
        before = self.by_column
        self.by_column = {name: _joined(kinds) for name, kinds in self.seen.items()}
        return before != self.by_column

    @property
    def texts(self) -> list[str]:
        """Columns of texts, many of which are equal."""
        return [name for name, kind in self.by_column.items() if kind == "text"]

    def schema(self) -> Any:
        """Types in which the columns are stored."""
        import pyarrow as pa

        types = {"large": pa.uint64(), "number": pa.float64(), "text": pa.string(), "truth": pa.bool_()}
        return pa.schema({name: types.get(kind, pa.int64()) for name, kind in self.by_column.items()})


def _kinds_of(values: pd.Series) -> set[str]:
    """Kinds in a piece of a column: `gaps`, and that of the other values."""
    gaps, known = {"gaps"} if values.hasnans else set(), values.dropna()
    if known.empty:
        return gaps
    kind = {"b": "truth", "u": "large", "f": "number", "i": "whole"}.get(values.dtype.kind, "text")
    if kind == "text" and values.dtype == object and known.map(type).eq(bool).all():
        kind = "truth"
    return gaps | {"negative" if kind == "whole" and known.min() < 0 else kind}


def _joined(kinds: set[str]) -> str:
    """Kind that pandas gives to a column in which these occur."""
    gaps, present = "gaps" in kinds, kinds - {"gaps"}
    if present in ({"text"}, {"truth"}):
        return present.pop()
    if present <= {"whole", "negative"}:
        return "number" if gaps or not present else "whole"
    if present <= {"whole", "large"}:
        return "text" if gaps else "large"
    numbers = present <= {"whole", "negative", "large", "number"}
    return "number" if numbers and "number" in present else "text"
