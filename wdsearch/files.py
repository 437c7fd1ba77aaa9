"""Locks that end with their process, and files that are written all or nothing."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def hold(path: Path) -> IO[str]:
    """Lock file in an existing folder, once nobody else holds it; closing it frees it, and so does the process's death.

    A child that was forked holds it as well, until it ends or closes its copy.
    """
    file = path.open("a")  # some network file systems lock only what may be written
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except BaseException:
        file.close()
        raise
    return file


def hold_if_free(path: Path) -> IO[str] | None:
    """Lock file as `hold` returns it; None if somebody holds it."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Block that one process at a time enters; the folder of its lock file is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path):
        yield


def is_locked(path: Path) -> bool:
    """Test for a process that holds a lock file; it makes none, and takes one that cannot be opened for held."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """New file beside `path`, which takes its place when it is whole; after an error, or a death, the old one is there.

    The folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
