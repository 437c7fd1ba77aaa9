"""The table of engines: one file and one line each. An engine only starts workers; the study's storage does the rest."""

from typing import Any

from wdsearch.launch.engines._base import (
    ENDED,
    RUNNING,
    UNKNOWN,
    WAITING,
    EngineError,
    Launcher,
    LauncherOptions,
    LaunchError,
    Order,
)
from wdsearch.launch.engines.kubernetes import Kubernetes
from wdsearch.launch.engines.local import Local
from wdsearch.launch.engines.ray import Ray
from wdsearch.launch.engines.slurm import Slurm
from wdsearch.plugins import extended

LAUNCHERS: dict[str, Launcher[Any]] = {launcher.name: launcher for launcher in (Local(), Slurm(), Ray(), Kubernetes())}


def _misfit(entry: object) -> str:
    return "" if isinstance(entry, Launcher) else f"{entry!r} is no wdsearch.launch.engines.Launcher"


LAUNCHERS |= extended(LAUNCHERS, "engines", _misfit)  # last, for their modules import this one

__all__ = [
    "ENDED",
    "LAUNCHERS",
    "RUNNING",
    "UNKNOWN",
    "WAITING",
    "EngineError",
    "LaunchError",
    "Launcher",
    "LauncherOptions",
    "Order",
]
