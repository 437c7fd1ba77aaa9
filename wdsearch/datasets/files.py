"""The only file that reads tables from CSV and Parquet files into memory, and that estimates the space that they take."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil

from wdsearch.errors import DataError

_PARQUET = (".parquet", ".pq")
_INFLATION = {"": 3, ".gz": 20, ".bz2": 20, ".xz": 30, ".zst": 20, ".zip": 20}
"""Bytes in memory per byte of text, measured on tables of numbers; compressed text is some five to ten times larger."""


def read_frame(path: Path, separator: str | None = None, rows: int | None = None) -> pd.DataFrame:
    """Read all rows, or the first ones, of a CSV file, compressed or not, or of a Parquet file. Raises DataError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "t.csv").write_text("age;sex\\n30;f\\n41;m\\n")
    ...     frame = read_frame(Path(folder, "t.csv"), rows=1)
    >>> frame.to_dict("records")
    [{'age': 30, 'sex': 'f'}]
    """
    with readable(path):
        if rows is None:
            _check_size(path)
        frame = _read_parquet(path, rows) if is_parquet(path) else _read_csv(path, separator, rows)
        frame.columns = frame.columns.map(str)
    return frame


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise DataError, with the next step, for any error while a table is read.

    >>> with readable(Path("none.csv")):
    ...     open("none.csv")
    Traceback (most recent call last):
    wdsearch.errors.DataError: none.csv: there is no such file
    """
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError:
        problem = "there is no such file"
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text; save it as UTF-8"
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        problem = f"it cannot be read as a table: {getattr(error, 'strerror', None) or error}"
    else:
        return
    raise DataError(f"{path}: {problem}")


def is_parquet(path: Path) -> bool:
    """True for the name of a Parquet file.

    >>> is_parquet(Path("rows.pq")), is_parquet(Path("rows.csv.gz"))
    (True, False)
    """
    return path.suffix in _PARQUET


def _read_csv(path: Path, separator: str | None, rows: int | None) -> pd.DataFrame:
    separator = separator or separator_of(path)
    return pd.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False, nrows=rows)


def _read_parquet(path: Path, rows: int | None) -> pd.DataFrame:
    if rows is None:
        return pd.read_parquet(path)
    from pyarrow import Table as ArrowTable
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        first = next(file.iter_batches(rows), None)
        return (file.schema_arrow.empty_table() if first is None else ArrowTable.from_batches([first])).to_pandas()


def text_size(path: Path) -> int:
    """Approximate bytes of a CSV file when it is not compressed.

    >>> text_size(Path(__file__)) == Path(__file__).stat().st_size
    True
    """
    return path.stat().st_size * _INFLATION.get(path.suffix, 3) // 3


def memory_size(path: Path) -> int:
    """Approximate bytes of a table in memory.

    >>> memory_size(Path(__file__)) == 3 * Path(__file__).stat().st_size
    True
    """
    if not is_parquet(path):
        return 3 * text_size(path)
    from pyarrow.parquet import read_metadata

    return read_metadata(path).num_rows * read_metadata(path).num_columns * 8 * 3


def _check_size(path: Path) -> None:
    """Raise DataError for a file that would not fit into memory."""
    needed, free = memory_size(path), psutil.virtual_memory().available
    if needed > free:
        text = f"it would take about {needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free"
        raise DataError(f"{path}: {text}; leave in_memory out, and it is read batch by batch")


def separator_of(path: Path) -> str:
    """Separator of a CSV file's columns, by its first line.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".csv") as file:
    ...     _ = Path(file.name).write_text("age;sex")
    ...     separator_of(Path(file.name))
    ';'
    """
    options = {"header": None, "nrows": 1, "encoding": "utf-8-sig", "engine": "python", "quoting": csv.QUOTE_NONE}
    header = pd.read_csv(path, sep="\0", **options).iloc[0, 0]
    try:
        return csv.Sniffer().sniff(str(header), ",;\t|").delimiter
    except csv.Error:  # one column, or a header without a clear separator
        return ","
