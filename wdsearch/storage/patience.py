"""A storage's server may be being restarted just when somebody begins."""

import time
from collections.abc import Callable
from typing import TypeVar

from wdsearch.storage.database import is_away

T = TypeVar("T")
EVERY_S = 2.0


def patiently(act: Callable[[], T], say: Callable[[str], None], seconds: float) -> T:
    """What `act` returns; as long as it raises because the storage is away it is called again, for so many seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            return act()
        except Exception as error:
            if not is_away(error) or time.monotonic() >= end:
                raise
            say("the storage does not answer: waiting for it")
            time.sleep(EVERY_S)
