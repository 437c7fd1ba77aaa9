"""Tells a process that others keep from running."""

import time
from subprocess import Popen

import psutil

STARVED_S, STARVED_SHARE = 4.0, 0.2
"""It has starved when it got less than this share of a processor for so long."""


class Share:
    """How much of a processor a process gets from now on."""

    def __init__(self, process: Popen[bytes]) -> None:
        self._process, self._began = psutil.Process(process.pid), time.monotonic()
        self._used = self._cpu_s()

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def starves(self) -> bool:
        """Whether it waits for a processor, rather than for a disk or a server."""
        waited = time.monotonic() - self._began
        if waited < STARVED_S or self._process.status() != psutil.STATUS_RUNNING:
            return False
        return self._cpu_s() - self._used < waited * STARVED_SHARE
