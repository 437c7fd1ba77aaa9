"""Ends training in order after Ctrl-C or SIGTERM: at the next batch, with nothing lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.utilities.exceptions import SIGTERMException

from wdsearch.errors import StoppedError, WdsearchError


class InterruptedStudyError(WdsearchError):
    """A study that was stopped by a signal; `signal` is its number, and the exit code 128 more, as in shells."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal, self.exit_code = number, 128 + number


class StopRequest:
    """A request that this process ends at its next batch."""

    def __init__(self) -> None:
        self.is_made = False

    def make(self) -> None:
        """Ask for it; a signal handler may."""
        self.is_made = True

    def check(self) -> None:
        """Raise StoppedError if it was asked for."""
        if self.is_made:
            raise StoppedError


@contextmanager
def asked_to_end(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` at Ctrl-C and SIGTERM, whose numbers join the list; a second one ends this process as Python does."""
    received: list[int] = []

    def receive(number: int, _: Any) -> None:
        received.append(number)
        stop()
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopping_by_signal(stop: Callable[[], None], text: Callable[[], str]) -> Iterator[None]:
    """Ask to `stop` at the next batch at Ctrl-C and SIGTERM. Raises InterruptedStudyError with a text when that was done."""
    with asked_to_end(stop) as received:
        try:
            yield
        except (StoppedError, SIGTERMException):  # Lightning may notice it before the loop does
            raise InterruptedStudyError(text(), received[0]) from None
