"""File locks that end with their process, and atomic writes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def hold(path: Path) -> IO[str]:
    """Wait for the lock on a file in an existing folder; closing the returned file releases it, and so does the process's end.

    A forked child holds the lock as well, until it ends or closes its copy.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, hold(Path(folder, "a.lock")):
    ...     is_locked(Path(folder, "a.lock"))
    True
    """
    file = path.open("a")  # some network file systems lock only what may be written
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except BaseException:
        file.close()
        raise
    return file


def hold_if_free(path: Path) -> IO[str] | None:
    """Locked file as by `hold`, without waiting; None if another process holds the lock.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, hold(Path(folder, "a.lock")):
    ...     hold_if_free(Path(folder, "a.lock")) is None
    True
    """
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Context that one process at a time enters; creates the folder of the lock file if it is missing.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, locked(Path(folder, "new", "a.lock")):
    ...     is_locked(Path(folder, "new", "a.lock"))
    True
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(path):
        yield


def is_locked(path: Path) -> bool:
    """True if a process holds the lock on a file, or if the file cannot be opened; does not create it.

    >>> is_locked(Path("no", "such.lock"))
    False
    """
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
    """Temporary path that replaces `path` atomically at the end; after an error or a crash the old file is unchanged.

    Creates the folder if it is missing.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, replacing(Path(folder) / "a.txt") as new:
    ...     _ = new.write_text("text")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
