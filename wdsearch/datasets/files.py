"""Tables from CSV and Parquet files in memory, and estimates of the space that they take."""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil

from wdsearch.datasets.tables.csv_files import Facts, read_csv
from wdsearch.datasets.tables.layout import undecodable
from wdsearch.datasets.tables.reading import Reading
from wdsearch.datasets.tables.rules import Roles
from wdsearch.errors import DataError

_PARQUET = (".parquet", ".pq")
_INFLATION = {"": 3, ".gz": 20, ".bz2": 20, ".xz": 30, ".zst": 20, ".zip": 20}
"""Bytes in memory per byte of text, measured on tables of numbers; compressed text is some five to ten times larger."""


def read_frame(
    path: Path, reading: Reading | None = None, roles: Roles | None = None, rows: int | None = None
) -> tuple[pd.DataFrame, Facts]:
    """Read all rows, or the first ones, of a CSV file, compressed or not, or of a Parquet file. Raises DataError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "t.csv").write_text("age;sex\\n30;f\\n41;m\\n")
    ...     frame, _ = read_frame(Path(folder, "t.csv"), rows=1)
    >>> frame.to_dict("records")
    [{'age': 30, 'sex': 'f'}]
    """
    reading = reading or Reading()
    with readable(path):
        if rows is None:
            _check_size(path)
        if not is_parquet(path):
            return read_csv(path, reading, roles or Roles(), rows)
        check_typed(reading, f"{path} is a Parquet file")
        frame = _read_parquet(path, rows)
        frame.columns = frame.columns.map(str)
        return frame, Facts()


def check_typed(reading: Reading, what: str) -> None:
    """Raise DataError for options that only a text file has.

    >>> check_typed(Reading(decimal=","), "this is a DataFrame")
    Traceback (most recent call last):
    wdsearch.errors.DataError: decimal says how a CSV file is written, and this is a DataFrame: its columns have types
    """
    if reading.of_text:
        names = " and ".join(reading.of_text)
        raise DataError(f"{names} says how a CSV file is written, and {what}: its columns have types")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise DataError, with the next step, for any error while a table is read.

    >>> with readable(Path("none.csv")):
    ...     open("none.csv")
    Traceback (most recent call last):
    wdsearch.errors.DataError: none.csv: there is no such file
    """
    try:
        _check_regular(path)
        yield
    except DataError:
        raise
    except FileNotFoundError:
        problem = "there is no such file"
    except UnicodeDecodeError as error:
        problem = undecodable(error)
    except (OSError, ValueError) as error:  # pandas' own are ValueErrors
        problem = f"it cannot be read as a table: {getattr(error, 'strerror', None) or error}"
    else:
        return
    raise DataError(f"{path}: {problem}")


def _check_regular(path: Path) -> None:
    """Raise DataError for what is no file with an end."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode):
        return
    kind = "a folder" if stat.S_ISDIR(mode) else "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "a pipe"
    raise DataError(f"{path}: it is {kind}, not a file; save the table to a file, CSV or Parquet")


def is_parquet(path: Path) -> bool:
    """True for the name of a Parquet file.

    >>> is_parquet(Path("rows.pq")), is_parquet(Path("rows.csv.gz"))
    (True, False)
    """
    return path.suffix in _PARQUET


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
