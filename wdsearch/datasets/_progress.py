"""Progress bars of the data's preparation: on stderr, gone when done, and only where there is a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress, track

FEWEST = 4
"""Blocks below which no bar is worth its line."""


def shown(blocks: Sequence[Any], what: str) -> Iterable[Any]:
    """Blocks, with a bar that says `what` is done with them, if they are more than a few."""
    console = Console(stderr=True)
    few = len(blocks) < FEWEST or not console.is_terminal
    return track(blocks, what, console=console, transient=True, disable=few)


def shown_by_bytes(pieces: Iterable[Any], file: IO[bytes], size: int, what: str) -> Iterator[Any]:
    """Pieces of a file of `size` bytes, with a bar that says how much of it is read."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=size)
        for piece in pieces:
            bar.update(task, completed=file.tell())
            yield piece
