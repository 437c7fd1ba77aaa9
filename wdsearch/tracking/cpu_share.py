"""Tells a process that others keep from running."""

import time
from subprocess import Popen

import psutil

STARVED_S, STARVED_SHARE = 4.0, 0.2
"""It has starved when it got less than this share of a processor for so long, and was ready to run most of the time."""


class Share:
    """Share of a processor that a process gets from now on."""

    def __init__(self, process: Popen[bytes]) -> None:
        self._process, self._began = psutil.Process(process.pid), time.monotonic()
        self._used, self._ready, self._looks = self._cpu_s(), 0, 0

    def _cpu_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def starves(self) -> bool:
        """True if it has waited for a processor, rather than for a disk or a server; to be asked again and again."""
        waited = time.monotonic() - self._began
        self._looks += 1
        self._ready += self._process.status() == psutil.STATUS_RUNNING
        if waited < STARVED_S or 2 * self._ready <= self._looks:
            return False
        return self._cpu_s() - self._used < waited * STARVED_SHARE
