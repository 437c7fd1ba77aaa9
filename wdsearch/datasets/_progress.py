"""Progress bars of the data's preparation: on stderr, gone when done, and on a terminal only."""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress, track

FEWEST = 4
"""Blocks below which no bar is worth its line."""


def with_bar(blocks: Sequence[Any], what: str) -> Iterable[Any]:
    """Blocks, with a progress bar titled `what` if they are more than a few.

    >>> list(with_bar([1, 2], "reading"))
    [1, 2]
    """
    console = Console(stderr=True)
    few = len(blocks) < FEWEST or not console.is_terminal
    return track(blocks, what, console=console, transient=True, disable=few)


def with_byte_bar(pieces: Iterable[Any], file: IO[bytes], size: int, what: str) -> Iterator[Any]:
    """Pieces of a file of `size` bytes, with a progress bar of the bytes read.

    >>> with open(__file__, "rb") as file:
    ...     list(with_byte_bar(["a", "b"], file, size=2, what="reading"))
    ['a', 'b']
    """
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=size)
        for piece in pieces:
            bar.update(task, completed=file.tell())
            yield piece
