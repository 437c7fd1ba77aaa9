"""The files of a new study: `wdsearch init`."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from wdsearch.editor_schema import FILE, HEADER, study_schema

if TYPE_CHECKING:  # pandas takes half a second
    from wdsearch.csv_table import CsvTable


class ScaffoldError(Exception):
    """A folder in which no study can be begun."""


@dataclass(frozen=True)
class Scaffold:
    """What was written: the files with a line about each, the study file first, and what to know about them."""

    files: Mapping[Path, str]
    notes: tuple[str, ...] = ()


def begin_study(folder: Path, csv: Path | None = None, target: str | None = None) -> Scaffold:
    """Write a study file, its schema, and for a CSV file the module that reads it; nothing that exists is overwritten.

    Raises ScaffoldError, and TableError for a CSV file of which no study can be made.
    """
    if csv is None:
        if target is not None:
            raise ScaffoldError("--target goes with --from-csv FILE: it names the column that is to be predicted")
        texts, notes = {"study.yaml": HEADER + _filled("study.yaml", name="mnist1d")}, []
    else:
        from wdsearch.csv_table import read_table

        table = read_table(csv, target)
        texts, notes = _of_table(table, folder), _notes(table)
    _check_free(folder, [*texts, FILE])
    texts[FILE] = schema_text() + "\n"
    return Scaffold(_written(folder, texts), tuple(notes))


def schema_text() -> str:
    """The schema as it is written."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False)


def write_schema(path: Path) -> str:
    """Write the schema and say how an editor finds it; raises ScaffoldError."""
    try:
        path.write_text(schema_text() + "\n", encoding="utf-8")
    except OSError as error:
        raise ScaffoldError(f"{path} cannot be written: {error.strerror}") from None
    header = HEADER.replace(FILE, path.name).strip()
    return f"{path} is written; editors find it by the first line of a study file beside it:\n{header}"


_ABOUT = {
    "study.yaml": "the study, with a comment on each key",
    "table_data.py": "how the table is read: its columns, what is done with them",
    FILE: "by which editors complete and check study files",
}


def _filled(template: str, **values: object) -> str:
    return Template((files("wdsearch") / "templates" / template).read_text(encoding="utf-8")).substitute(values)


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


def _of_table(table: "CsvTable", folder: Path) -> dict[str, str]:
    name = re.sub(r"[^A-Za-z0-9_.\-]+", "-", table.path.stem).strip("-_.") or "table"
    values = {
        "name": name,
        "csv": table.path.name,
        "summary": _summary(table),
        "batch_size": min(500, max(20, table.rows // 50)),
    }
    return {
        "study.yaml": HEADER + _filled("table_study.yaml", **values),
        "table_data.py": _filled("table_data.txt", **_code(table, folder)),
    }


def _code(table: "CsvTable", folder: Path) -> dict[str, str]:
    """The placeholders of the module, as Python writes them."""
    classes = 'rows[TARGET].astype(str).astype("category").cat.codes.to_numpy()'
    return {
        "csv": table.path.name,
        "path": _quoted(_seen_from(folder, table.path)),
        "target": _quoted(table.target),
        "numbers": _listed(table.numbers),
        "categories": _listed(table.categories),
        "left_out": "".join(f"# left out {_quoted(name)}: {why}\n" for name, why in table.left_out.items()),
        "task": _quoted(table.task),
        "metric": _quoted(table.metric),
        "separator": _quoted(table.separator),
        "targets": classes if table.classes else "rows[TARGET].to_numpy(dtype=float)",
    }


def _listed(names: tuple[str, ...]) -> str:
    return "[" + "".join(f"\n    {_quoted(name)}," for name in names) + ("\n]" if names else "]")


def _quoted(text: str) -> str:
    """A text as Python, and most formatters, write it."""
    return json.dumps(text, ensure_ascii=False)


def _seen_from(folder: Path, path: Path) -> str:
    """A path as seen from a folder; absolute if it is far away."""
    relative = os.path.relpath(path.absolute(), folder.absolute())
    return str(path.absolute()) if relative.startswith(os.path.join("..", "..")) else relative


def _summary(table: "CsvTable") -> str:
    learned = "a quantity" if table.classes is None else f"one of {table.classes} classes"
    counts = {"number": len(table.numbers), "category": len(table.categories)}
    columns = " and ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items() if count)
    return f"{table.target}, {learned}, from {columns} in each of {table.rows:,} rows"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else {"category": "categories"}.get(noun, f"{noun}s")


def _notes(table: "CsvTable") -> list[str]:
    return [_summary(table), *(f"left out: {name} ({why})" for name, why in table.left_out.items())]
