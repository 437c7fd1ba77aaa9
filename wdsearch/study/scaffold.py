"""The files of a new study: `wdsearch init`."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from wdsearch.errors import DataError, WdsearchError
from wdsearch.study.file import as_yaml, assignments
from wdsearch.study.json_schema import FILE, HEADER, study_schema

LOOKED_AT = 100_000
"""Rows of a table larger than memory by which its study is written."""
READ = ("separator", "decimal", "thousands", "missing", "encoding", "header")
OPTIONS = (*READ, "drop", "numbers", "categories")
"""Arguments of a table that `init` takes and writes into the study."""


class ScaffoldError(WdsearchError):
    """A folder in which no study can be begun."""


@dataclass(frozen=True)
class Scaffold:
    """Files that were written, with a line about each, the study file first; notes, and what became of a table's columns."""

    files: Mapping[Path, str]
    notes: tuple[str, ...] = ()
    columns: tuple[Any, ...] = ()


def begin_study(
    folder: Path,
    csv: Path | None = None,
    target: str | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Scaffold:
    """Write a study file, for the table in a CSV or Parquet file if one is given, and its schema; nothing is overwritten.

    `options` are arguments of the table: how it is written, and kinds of columns (`OPTIONS`).
    Raises ScaffoldError, and DataError for a table of which no study can be made.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     [path.name for path in begin_study(Path(folder)).files]
    ['study.yaml', 'study.schema.json']
    """
    targets = (target,) if isinstance(target, str) else tuple(target or ())
    table = None
    if csv is None:
        if targets or options:
            raise ScaffoldError(
                "--target goes with --from-csv FILE, and so does --set: they say how a table is to be read"
            )
        text = HEADER + _filled("study.yaml", name="mnist1d")
    else:
        table = _looked_at(csv, targets, options or {})
        text = _of_table(table, folder)
    texts = {"study.yaml": text}
    _check_free(folder, [*texts, FILE])
    texts[FILE] = schema_text() + "\n"
    written = _written(folder, texts)
    return Scaffold(written, table.notes, table.columns) if table else Scaffold(written)


def table_options(texts: Sequence[str]) -> dict[str, Any]:
    """Arguments of a table as a command line gives them, NAME=VALUE; a mark needs no quotes. Raises StudyFileError.

    >>> table_options(["decimal=,", "missing=[NA, -999]", "drop=[id]"])
    {'decimal': ',', 'missing': ['NA', -999], 'drop': ['id']}
    """
    marks = {f"{name}={mark}": {name: mark} for name in ("separator", "decimal", "thousands") for mark in ",.;|' \t"}
    options: dict[str, Any] = {}
    for text in texts:
        options |= marks.get(text) or assignments([text], "--set")
    return options


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


@dataclass(frozen=True)
class _Table:
    """A table that was looked at: its target, what became of its columns, and notes about it."""

    path: Path
    targets: tuple[str, ...]
    options: Mapping[str, Any]
    rows: int
    balanced: bool
    summary: str
    doubtful: Mapping[str, str]
    notes: tuple[str, ...]
    columns: tuple[Any, ...] = field(repr=False)


def _looked_at(path: Path, targets: tuple[str, ...], options: Mapping[str, Any]) -> _Table:
    from wdsearch.datasets.tables.reading import Reading  # pandas takes half a second

    if unknown := [name for name in options if name not in OPTIONS]:
        raise ScaffoldError(
            f"--set {unknown[0]}: of a table can be set {', '.join(OPTIONS)}; edit the rest in the study file"
        )
    lists = {name: options.get(name, ()) for name in ("drop", "numbers", "categories")}
    columns = {name: (names,) if isinstance(names, str) else tuple(names) for name, names in lists.items()}
    reading = Reading(**{name: options[name] for name in READ if name in options})
    try:
        return _judged(path, targets, dict(options), reading, columns)
    except DataError as error:
        hint = "; with init: --set NAME=VALUE" if re.search(r"\bset \w+:", str(error)) else ""
        raise DataError(f"{error}{hint}") from None


def _judged(
    path: Path, targets: tuple[str, ...], options: dict[str, Any], reading: Any, named: Mapping[str, tuple[str, ...]]
) -> _Table:
    from wdsearch.datasets import frames
    from wdsearch.datasets.tables.notes import column_notes
    from wdsearch.datasets.tables.rules import Roles

    frame, facts, note = _rows_of(path, reading, Roles(targets, named["numbers"], named["categories"], named["drop"]))
    about_file = "".join(f"; {text}" for text in facts.notes)
    if not targets:
        names = ", ".join(frame.columns)
        raise ScaffoldError(f"which column of {path} is to be predicted? --target COLUMN; it has: {names}{about_file}")
    try:
        frames.check_names(frame, targets, f"--target, {path}")
        for name in ("drop", "numbers", "categories"):
            frames.check_names(frame, named[name], f"--set {name}")
    except DataError as error:
        raise DataError(f"{error}{about_file}") from None
    try:
        rows, unlabelled = frames.rows_with_target(frame, targets)
        target = frames.targets_of([rows[name] for name in targets])
        doubts = facts.doubts | frames.identities(frame, [*{*frame.columns} - {*targets, *named["drop"]}])
        kinds = frames.columns_of(rows, named["numbers"], named["categories"], {*targets, *named["drop"]}, doubts)
        frames.check_any(kinds, targets)
    except DataError as error:
        raise DataError(f"{error}; {note}: if others differ, mix the rows") if note else error from None
    summary = frames.summary(targets, target, kinds, len(rows))
    roles = dict.fromkeys(named["drop"], "left out by drop") | dict.fromkeys(targets, "target")
    left_out = [f"left out: {name} ({why})" for name, why in [*kinds.useless.items(), *kinds.doubtful.items()]]
    notes = (summary, *filter(None, [note, *facts.notes, unlabelled]), *left_out)
    described = column_notes(rows, roles, target, kinds, facts)
    return _Table(path, targets, options, len(rows), target.balanced, summary, kinds.doubtful, notes, described)


def _of_table(table: _Table, folder: Path) -> str:
    """The study file for a table."""
    others = {name: value for name, value in table.options.items() if name != "drop"}
    return HEADER + _filled(
        "table_study.yaml",
        name=re.sub(r"[^A-Za-z0-9_.\-]+", "-", table.path.stem).strip("-_.") or "table",
        table=table.path.name,
        summary=table.summary,
        path=_quoted(_seen_from(folder, table.path)),
        target=_quoted(table.targets[0] if len(table.targets) == 1 else list(table.targets)),
        options="".join(f"    {line}\n" for name, value in others.items() for line in _lines(name, value)),
        drop=_dropped(dict.fromkeys(table.options.get("drop", ()), "") | dict(table.doubtful)),
        class_weight="" if table.balanced else _CLASS_WEIGHT,
        batch_size=min(500, max(20, table.rows // 50)),
    )


def _lines(name: str, value: Any) -> list[str]:
    return as_yaml({name: value}).rstrip().splitlines()


def _rows_of(path: Path, reading: Any, roles: Any) -> tuple[Any, Any, str]:
    """The rows of a table that are looked at, facts, and a note if these are not all: of a table larger than memory the first."""
    from wdsearch.datasets._base import fits
    from wdsearch.datasets.files import is_parquet, memory_size, read_frame, readable
    from wdsearch.datasets.tables.gaps import without_missing

    with readable(path):
        whole = fits(memory_size(path))
    frame, facts = read_frame(path, reading, roles, rows=None if whole else LOOKED_AT)
    frame = without_missing(frame, reading) if is_parquet(path) else frame
    return frame, facts, "" if whole else f"the table is large: only its first {len(frame):,} rows were looked at"


_CLASS_WEIGHT = "    # class_weight: balanced   # a class counts as much as another, however rare\n"


def _dropped(columns: Mapping[str, str]) -> str:
    reasons = {name: f"   # {' '.join(why.split())}" if why else "" for name, why in columns.items()}
    lines = "".join(f"      - {_quoted(name)}{why}\n" for name, why in reasons.items())
    return f"    drop:\n{lines}" if lines else ""


def _quoted(text: str | list[str]) -> str:
    """A text, or several, as YAML, which reads JSON."""
    return json.dumps(text, ensure_ascii=False)


def _seen_from(folder: Path, path: Path) -> str:
    """A path as seen from a folder; absolute if it is far away."""
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return str(path.absolute()) if relative.startswith(os.path.join("..", "..")) else relative
