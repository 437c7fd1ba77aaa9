"""Completes names of studies and paths of files at the tab key; imports nothing heavy."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import typer

DEEPEST = 20


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """Studies of the folder or storage that the command line names so far; none unless it is an SQLite file."""
    import sqlite3

    storage = context.params.get("storage") or os.environ.get("WDSEARCH_STORAGE")
    home = context.params.get("home") or os.environ.get("WDSEARCH_HOME", ".wdsearch")
    path = Path(storage.removeprefix("sqlite:///")) if storage else Path(home) / "optuna.db"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=0.2)) as database:
            rows = database.execute("SELECT study_name FROM studies ORDER BY study_id DESC").fetchall()
    except sqlite3.Error:
        return []
    return [name for (name,) in rows if name.startswith(incomplete)]


def study_files(incomplete: str) -> list[str]:
    """Paths of YAML files and folders that begin with the text.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "digits.yaml").touch()
    ...     study_files(f"{folder}/di") == [f"{folder}/digits.yaml"]
    True
    """
    return _paths(incomplete, (".yaml", ".yml"))


def table_files(incomplete: str) -> list[str]:
    """Paths of CSV and Parquet files and folders that begin with the text.

    >>> table_files("/no/such/folder/")
    []
    """
    return _paths(incomplete, (".csv", ".tsv", ".txt", ".csv.gz", ".parquet", ".pq"))


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """Paths that begin with the text; a single folder is entered, for the shell would put a space behind its name."""
    paths = sorted(_entries(incomplete, endings))
    for _ in range(DEEPEST):  # a link may lead back
        if len(paths) == 1 and paths[0].endswith("/"):
            paths = sorted(_entries(paths[0], endings))
    return paths


def _entries(incomplete: str, endings: tuple[str, ...]) -> Iterator[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        entries = [*os.scandir(os.path.expanduser(folder + slash) or ".")]
    except OSError:
        return
    for entry in entries:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start.startswith(".")):
            continue
        if entry.is_dir():
            yield f"{folder}{slash}{entry.name}/"
        elif entry.name.endswith(endings):
            yield f"{folder}{slash}{entry.name}"
