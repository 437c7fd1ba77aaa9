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
from wdsearch.plugins import Table


def _misfit(name: str, entry: object) -> str:
    if not isinstance(entry, Launcher):
        return f"{entry!r} is no wdsearch.launch.engines.Launcher"
    return "" if entry.name == name else f"its name is {entry.name!r}"


LAUNCHERS: Table[Launcher[Any]] = Table(
    "engines", {launcher.name: launcher for launcher in (Local(), Slurm(), Ray(), Kubernetes())}, _misfit
)

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
