"""Tables larger than memory: Parquet files read one column at a time, to which CSV files are converted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wdsearch.datasets._scratch import Scratch

if TYPE_CHECKING:  # pandas takes half a second
    import pandas as pd

    from wdsearch.datasets.tables.csv_files import Facts
    from wdsearch.datasets.tables.reading import Reading
    from wdsearch.datasets.tables.rules import Roles, Rule

TABLE = "table.parquet"


class StoredTable:
    """Columns of a Parquet file, each read when it is indexed: the same values as `pandas.read_parquet` gives.

    `columns` may name more than the file holds. With `rules` the file holds texts, which the rules turn into values. With `rows`,
    a column has these rows only.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str] | None = None,
        rules: Mapping[str, Rule] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        import pandas as pd
        from pyarrow.parquet import ParquetFile

        self.file, self.rows, self.rules = ParquetFile(path), rows, rules or {}
        held = self.file.schema_arrow.empty_table().to_pandas().columns  # without an index
        self.columns = pd.Index(held.map(str) if columns is None else columns)

    def __len__(self) -> int:
        return self.file.metadata.num_rows if self.rows is None else len(self.rows)

    def __getitem__(self, name: str) -> pd.Series:
        cells = self.file.read(columns=[name], use_pandas_metadata=False)
        if name in self.rules:
            values = self.rules[name].values(cells[name].combine_chunks()).to_pandas().rename(name)
        else:
            values = cells.to_pandas()[name]
        return (values if self.rows is None else values.iloc[self.rows]).reset_index(drop=True)

    def of(self, rows: np.ndarray) -> StoredTable:
        """Same columns of some rows, by their numbers."""
        subset = object.__new__(StoredTable)
        subset.__dict__ = self.__dict__ | {"rows": rows}
        return subset


def stored_csv(
    path: Path, reading: Reading, roles: Roles, left_out: Collection[str], scratch: Scratch, size: int
) -> tuple[StoredTable, Facts]:
    """Convert a CSV file of about `size` bytes when not compressed, without some columns, to a temporary Parquet file.

    The file holds texts; its values are those of `read_csv`, which judges a column by all its rows as well.

    >>> from tempfile import NamedTemporaryFile
    >>> from wdsearch.datasets.tables.reading import Reading
    >>> from wdsearch.datasets.tables.rules import Roles
    >>> with NamedTemporaryFile(suffix=".csv") as file:
    ...     size = Path(file.name).write_text("age,name\\n30,Ann\\n41,Bob\\n")
    ...     table, _ = stored_csv(Path(file.name), Reading(), Roles(), {"name"}, Scratch(), size)
    >>> len(table), table["age"].tolist()
    (2, [30, 41])
    """
    from pyarrow.parquet import ParquetWriter

    from wdsearch.datasets.tables.csv_files import Facts, TextTable

    scratch.claim(size, f"{path}: reading it column by column")
    texts, stored, writer = TextTable(path, reading), scratch.path / TABLE, None
    for piece in texts.pieces(left_out=left_out):
        writer = writer or ParquetWriter(stored, piece.schema, compression="zstd", write_statistics=False)
        scratch.claim(piece.nbytes, f"{stored}: another piece of the table")
        writer.write_table(piece)
    if writer is not None:
        writer.close()
    rules = texts.rules(roles)
    return StoredTable(stored, texts.columns, rules), Facts(texts.notes, rules)
