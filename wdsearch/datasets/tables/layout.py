"""Layout of a CSV file: its encoding, its separator, and whether its first row names the columns."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas.io.common import get_handle

from wdsearch.datasets.tables.cells import form_of
from wdsearch.datasets.tables.reading import Reading
from wdsearch.errors import DataError

SAMPLE_BYTES, SAMPLE_ROWS = 2**18, 200
SEPARATORS = ("\t", ";", "|", ",")
"""Separators in the order in which they are believed: a comma may be a decimal mark."""
_BOMS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
NAMES = {"\t": "a tab", ";": "';'", "|": "'|'", ",": "','", " ": "a space"}


@dataclass(frozen=True)
class Layout:
    """Layout of a CSV file; `names` are those of the columns, `header` is True if the first row holds them, some `twice`."""

    encoding: str
    separator: str
    header: bool
    names: tuple[str, ...]
    twice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def layout_of(path: Path, reading: Reading) -> Layout:
    """Layout by the options, and by the first rows where they say nothing. Raises DataError for what can be read in two ways.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile(suffix=".csv") as file:
    ...     _ = Path(file.name).write_text("age;sex\\n30,5;f\\n41,0;m\\n")
    ...     layout_of(Path(file.name), Reading())
    Layout(encoding='utf-8-sig', separator=';', header=True, names=('age', 'sex'), twice=(), notes=())
    """
    sample, whole = _first_bytes(path)
    encoding = reading.encoding or _encoding_of(sample)
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding  # with or without its first mark
    text = _decoded(sample, encoding, whole, path)
    separator = reading.separator or _separator_of(text, whole)
    rows = _rows(text, separator, whole)
    if not rows:
        raise DataError(f"{path}: the file is empty; a table has a row of names and rows of values")
    header = _has_header(rows) if reading.header is None else reading.header
    names = _names(rows, header)
    unique, twice = _unique(names)
    notes = tuple(f"{names.count(name)} columns are named {name}: the later ones are {name}.1 ..." for name in twice)
    if header and reading.header is None and _count_up([name for name in unique if name.isdigit()]):
        notes += ("the first row (0, 1, 2 ...) names the columns; else header: false",)
    if not header and reading.header is None:
        shown = ", ".join(rows[0][:4])
        notes += (f"the first row ({shown}) holds values: the columns are named {_range(unique)}; else header: true",)
    return Layout(encoding, separator, header, unique, twice, notes)


def _first_bytes(path: Path) -> tuple[bytes, bool]:
    """First bytes of a file, decompressed, and whether these are all."""
    with get_handle(path, "rb", compression="infer", is_text=False) as handles:
        sample = handles.handle.read(SAMPLE_BYTES + 1)
    data = sample if isinstance(sample, bytes) else sample.encode()
    return data[:SAMPLE_BYTES], len(data) <= SAMPLE_BYTES


# -- encoding ------------------------------------------------------------------------------------------------------


def _encoding_of(sample: bytes) -> str:
    for bom, encoding in _BOMS.items():
        if sample.startswith(bom):
            return encoding
    zeros = [sample[first::2].count(0) > len(sample) // 5 for first in (0, 1)]
    return "utf-16-be" if zeros == [True, False] else "utf-16-le" if zeros == [False, True] else "utf-8-sig"


def _decoded(sample: bytes, encoding: str, whole: bool, path: Path) -> str:
    """Text of the sample, whose last character may be cut."""
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError as error:
        if not whole and error.start >= len(sample) - 4:
            return sample[: error.start].decode(encoding)
        raise DataError(f"{path}: {undecodable(error)}") from None


def undecodable(error: UnicodeDecodeError) -> str:
    """Problem and remedy of a file that is not of its encoding, with what two frequent ones make of its bytes.

    >>> try:
    ...     b"M\\xfcnchen".decode()
    ... except UnicodeDecodeError as error:
    ...     undecodable(error)
    "it is not UTF-8 text; say which encoding: cp1252 (Windows, Western Europe) reads 'München', cp1250 (Central) 'München'"
    """
    around = bytes(error.object[max(0, error.start - 20) : error.start + 20])
    word = next((part for part in re.split(rb"[\s,;|\t\"]", around) if any(byte > 127 for byte in part)), around)
    western, central = (word.decode(name, errors="replace") for name in ("cp1252", "cp1250"))
    name = "UTF-8" if error.encoding.startswith("utf-8") else error.encoding
    readings = f"cp1252 (Windows, Western Europe) reads {western!r}, cp1250 (Central) {central!r}"
    return f"it is not {name} text; say which encoding: {readings}"


# -- separator -----------------------------------------------------------------------------------------------------


def _separator_of(text: str, whole: bool) -> str:
    """Separator with which the rows have one width, else the most frequent in the first line."""
    for separator in SEPARATORS:
        widths = [len(row) for row in _rows(text, separator, whole)]
        if widths and widths[0] > 1 and all(width in (widths[0], widths[0] + 1) for width in widths):
            return separator
    lines = [line.split() for line in text.splitlines()[:SAMPLE_ROWS] if line.strip()]
    if len({*map(len, lines)}) == 1 and len(lines[0]) > 1 and not any(mark in text for mark in SEPARATORS):
        raise DataError(
            f"columns may be separated by spaces ({' '.join(lines[0][:6])}); set separator: '\\s+' if they are"
        )
    first = text.lstrip().partition("\n")[0]
    return max(reversed(SEPARATORS), key=first.count)


def _rows(text: str, separator: str, whole: bool) -> list[list[str]]:
    """First rows that are not blank; the last one of a file that goes on may be cut, and is left out."""
    if len(separator) > 1:
        lines = [re.split(separator, line.strip()) for line in text.splitlines() if line.strip()]
        return lines[:SAMPLE_ROWS]
    records = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        for row in reader:
            if row and row != [""]:
                records.append([cell.strip() for cell in row])
            if len(records) > SAMPLE_ROWS:
                break
    except csv.Error:  # a cell longer than csv's limit: rows so far must do
        pass
    return records if whole or len(records) > SAMPLE_ROWS else records[:-1] or records


# -- header --------------------------------------------------------------------------------------------------------


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """True if the first row names columns; raises DataError where that cannot be told."""
    first, others = rows[0], [row for row in rows[1:] if row != rows[0]]
    forms = [form_of(cell)[0] for cell in first]
    numbers = [cell for cell, form in zip(first, forms, strict=True) if form != "text"]
    recurring = [any(column < len(row) and row[column] == cell for row in others) for column, cell in enumerate(first)]
    texts = [again for again, form, cell in zip(recurring, forms, first, strict=True) if form == "text" and cell]
    if not numbers:
        return not (texts and all(texts))
    if _count_up(numbers) and not any(texts):
        return True
    if not texts or all(texts) or {*forms} - {"text", "integer", "code"}:
        return False
    if all(re.fullmatch(r"1[5-9]\d\d|20\d\d|21\d\d", cell) for cell in numbers) and len({*numbers}) == len(numbers):
        return not any(texts)
    shown = ", ".join(first[:6])
    raise DataError(
        f"the first row is {shown}: names of columns, or values? set header: true if it names them, header: false if not"
    )


def _count_up(numbers: Sequence[str]) -> bool:
    """True for 0, 1, 2 ..., the names that programs give to columns without names."""
    return len(numbers) > 2 and list(numbers) == [str(number) for number in range(len(numbers))]


def _names(rows: Sequence[Sequence[str]], header: bool) -> list[str]:
    """Names of all columns as the header says. Raises DataError if rows do not have its width."""
    width = len(rows[0])
    if not header:
        return [f"column{number}" for number in range(1, width + 1)]
    names = [name.lstrip("\ufeff") or f"Unnamed: {number}" for number, name in enumerate(rows[0])]
    widths = Counter(map(len, rows[1:]))
    usual = max(widths, key=lambda other: widths[other], default=width)
    if usual == width + 1 and len(widths) == 1:
        if any(row[-1] for row in rows[1:]):
            raise DataError(
                f"rows have {width + 1} cells and the header {width}: name the first column as well (R writes names of "
                "rows there, without one), put numbers with a decimal comma in quotes, or set header: false"
            )
        return [*names, f"Unnamed: {width}"]
    if usual > width:
        shown = ", ".join(rows[0][:4])
        text = f"the first row ({shown}) has {width} {'cell' if width == 1 else 'cells'}, most others have {usual}"
        raise DataError(f"{text}: remove what stands above the names, and put cells with a separator in quotes")
    return names


def _unique(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names numbered where they are there twice, as pandas does (a, a.1), and those that are."""
    counts: Counter[str] = Counter()
    unique: list[str] = []
    for name in names:
        number = counts[name]
        counts[name] += 1
        while number and f"{name}.{number}" in {*names, *unique}:
            number += 1
        unique.append(f"{name}.{number}" if number else name)
    return tuple(unique), tuple(name for name, count in counts.items() if count > 1)


def _range(names: Sequence[str]) -> str:
    return f"{names[0]} to {names[-1]}" if len(names) > 1 else names[0]
