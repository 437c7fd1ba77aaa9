"""Temporary files of this process, removed when it ends; they never fill the disk."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import IO

from wdsearch.errors import DataError
from wdsearch.files import hold, is_locked

PREFIX, LOCK = "wdsearch_rows_", "lock"
RESERVE = 2**28
"""Bytes of a disk that stay free."""


class Scratch:
    """A new folder under TMPDIR; folders of killed processes are removed when the next one begins.

    It is removed with this object, or at the end of the process, which holds a lock in it. A copy, in another process or in
    this one, owns nothing. Raises DataError if no folder can be made.

    >>> scratch = Scratch()
    >>> scratch.claim(2**62, "a test")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    wdsearch.errors.DataError: a test needs about 4294967296.0 GiB of temporary files, and ...
    """

    def __init__(self) -> None:
        parent = Path(tempfile.gettempdir())
        _sweep(parent)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            lock = hold(self.path / "new")
            (self.path / "new").rename(self.path / LOCK)  # locked before others see it
        except OSError as error:
            raise DataError(f"{parent}: {error.strerror}; temporary files go to where TMPDIR says") from error
        self.remove = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}

    def claim(self, size: int, what: str) -> None:
        """Raise DataError unless `size` more bytes, of `what`, leave some of the disk free."""
        free = shutil.disk_usage(self.path).free
        if size + RESERVE > free:
            text = f"{what} needs about {_gib(size)} of temporary files, and {self.path.parent} has {_gib(free)} free"
            raise DataError(f"{text}: make room there, or let TMPDIR name a folder on a larger disk")


def _remove(folder: Path, lock: IO[str], owner: int) -> None:
    """Remove a folder of this process; a child that was forked leaves it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _sweep(parent: Path) -> None:
    """Remove the folders of dead processes, which hold no lock."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        if not is_locked(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
