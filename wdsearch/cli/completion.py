"""What the shell offers at the tab key: names of studies and study files. Nothing heavy is imported here."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import typer

DEEPEST = 20


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """Studies of the folder or storage that the command line names so far; none if it is no SQLite file."""
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
    """YAML files and folders that a path so far may become."""
    return _paths(incomplete, (".yaml", ".yml"))


def table_files(incomplete: str) -> list[str]:
    """CSV and Parquet files and folders that a path so far may become."""
    return _paths(incomplete, (".csv", ".tsv", ".txt", ".csv.gz", ".parquet", ".pq"))


def _paths(incomplete: str, endings: tuple[str, ...]) -> list[str]:
    """A folder alone is entered: the shell would put a space behind its name."""
    found = sorted(_entries(incomplete, endings))
    for _ in range(DEEPEST):  # a link may lead back
        if len(found) == 1 and found[0].endswith("/"):
            found = sorted(_entries(found[0], endings))
    return found


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
