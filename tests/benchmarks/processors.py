"""Measures the processor time of this benchmark, and of others: whether its numbers can be trusted."""

import os
import resource
from pathlib import Path


def own_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def all_seconds() -> float:
    """Processor time that all programs of the machine have taken so far; NaN if this is not Linux."""
    if not Path("/proc/stat").exists():
        return float("nan")
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    user, nice, system, _idle, _waiting, *interrupts = map(int, fields[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
