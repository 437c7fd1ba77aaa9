"""The files of a new study: `wdsearch init`."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from wdsearch.errors import DataError, WdsearchError
from wdsearch.study.json_schema import FILE, HEADER, study_schema

LOOKED_AT = 100_000
"""Rows of a table larger than memory by which its study is written."""


class ScaffoldError(WdsearchError):
    """A folder in which no study can be begun."""


@dataclass(frozen=True)
class Scaffold:
    """Files that were written, with a line about each, the study file first, and notes about them."""

    files: Mapping[Path, str]
    notes: tuple[str, ...] = ()


def begin_study(folder: Path, csv: Path | None = None, target: str | None = None) -> Scaffold:
    """Write a study file, for the table in a CSV or Parquet file if one is given, and its schema; nothing is overwritten.

    Raises ScaffoldError, and DataError for a table of which no study can be made.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in begin_study(Path(folder)).files]
    ['study.yaml', 'study.schema.json']
    """
    notes: tuple[str, ...] = ()
    if csv is None:
        if target is not None:
            raise ScaffoldError("--target goes with --from-csv FILE: it names the column that is to be predicted")
        text = HEADER + _filled("study.yaml", name="mnist1d")
    else:
        text, notes = _of_table(csv, target, folder)
    texts = {"study.yaml": text}
    _check_free(folder, [*texts, FILE])
    texts[FILE] = schema_text() + "\n"
    return Scaffold(_written(folder, texts), notes)


def schema_text() -> str:
    """The schema as it is written.

    >>> json.loads(schema_text())["title"]
    'A study of wdsearch'
    """
    return json.dumps(study_schema(), indent=1, ensure_ascii=False)


def write_schema(path: Path) -> str:
    """Write the schema and say how an editor finds it; raises ScaffoldError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     print(write_schema(Path(folder, "s.json")).splitlines()[1])
    # yaml-language-server: $schema=s.json
    """
    try:
        path.write_text(schema_text() + "\n", encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"{path} cannot be written: {error.strerror}") from None
    header = HEADER.replace(FILE, path.name).strip()
    return f"{path} is written; editors find it by the first line of a study file beside it:\n{header}"


_ABOUT = {
    "study.yaml": "the study, with a comment on each key",
    FILE: "by which editors complete and check study files",
}


def _filled(template: str, **values: object) -> str:
    return Template((files("wdsearch.study") / "templates" / template).read_text(encoding="utf-8")).substitute(values)


def _check_free(folder: Path, names: list[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise ScaffoldError(f"{folder} is not a folder: give another one")
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        verb = "is" if len(taken) == 1 else "are"
        raise ScaffoldError(
            f"{folder}: {', '.join(taken)} {verb} there already, and would be lost: give another folder"
        )


def _written(folder: Path, texts: Mapping[str, str]) -> dict[Path, str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"{folder} cannot be written: {error.strerror}") from None
    return {folder / name: _ABOUT[name] for name in texts}


# -- a study of a table --------------------------------------------------------------------------------------------


def _of_table(path: Path, target: str | None, folder: Path) -> tuple[str, tuple[str, ...]]:
    """The study file for a table, and what to know about the table."""
    from wdsearch.datasets import frames  # pandas takes half a second

    frame, note = _rows_of(path)
    if target is None:
        names = ", ".join(frame.columns)
        raise ScaffoldError(f"which column of {path} is to be predicted? --target COLUMN; it has: {names}")
    frames.check_names(frame, [target], f"--target, {path}")
    try:
        frame = frames.rows_with_target(frame, target)
        asked, columns = frames.target_of(frame[target]), frames.columns_of(frame, without=[target])
        frames.check_any(columns, target)
    except DataError as error:
        raise DataError(f"{error}; {note}: if others differ, mix the rows") if note else error from None
    summary = frames.summary(target, asked, columns, len(frame))
    left_out = [f"left out: {name} ({why})" for name, why in [*columns.useless.items(), *columns.doubtful.items()]]
    text = _filled(
        "table_study.yaml",
        name=re.sub(r"[^A-Za-z0-9_.\-]+", "-", path.stem).strip("-_.") or "table",
        table=path.name,
        summary=summary,
        path=_quoted(_seen_from(folder, path)),
        target=_quoted(target),
        drop=_dropped(columns.doubtful),
        class_weight="" if asked.balanced else _CLASS_WEIGHT,
        batch_size=min(500, max(20, len(frame) // 50)),
    )
    return HEADER + text, (summary, *([note] if note else []), *left_out)


def _rows_of(path: Path) -> tuple[Any, str]:
    """The rows of a table that are looked at, and a note if these are not all: of a table larger than memory the first."""
    from wdsearch.datasets._base import fits
    from wdsearch.datasets.files import memory_size, read_frame, readable

    with readable(path):
        whole = fits(memory_size(path))
    frame = read_frame(path, rows=None if whole else LOOKED_AT)
    return frame, "" if whole else f"the table is large: only its first {len(frame):,} rows were looked at"


_CLASS_WEIGHT = "    # class_weight: balanced   # a class counts as much as another, however rare\n"


def _dropped(columns: Mapping[str, str]) -> str:
    lines = "".join(f"      - {_quoted(name)}   # {why}\n" for name, why in columns.items())
    return f"    drop:\n{lines}" if lines else ""


def _quoted(text: str) -> str:
    """A text as YAML, which reads JSON."""
    return json.dumps(text, ensure_ascii=False)


def _seen_from(folder: Path, path: Path) -> str:
    """A path as seen from a folder; absolute if it is far away."""
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return str(path.absolute()) if relative.startswith(os.path.join("..", "..")) else relative
