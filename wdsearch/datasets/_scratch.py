"""Temporary files of this process, removed when it ends; they never fill the disk."""

import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

from wdsearch.errors import DataError

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
            lock = os.open(self.path / "new", os.O_RDWR | os.O_CREAT)
            fcntl.flock(lock, fcntl.LOCK_EX)
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


def _remove(folder: Path, lock: int, owner: int) -> None:
    """Remove a folder of this process; a child that was forked leaves it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove the folders of dead processes, which hold no lock."""
    for lock in parent.glob(f"{PREFIX}*/{LOCK}"):
        try:
            with lock.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # its process lives, or the folder is another user's
            continue


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
