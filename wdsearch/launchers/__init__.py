"""The table of engines: one file and one line each. An engine only starts workers; the study's storage does the rest."""

from typing import Any

from wdsearch.launchers._base import (
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
from wdsearch.launchers.kubernetes import Kubernetes
from wdsearch.launchers.local import Local
from wdsearch.launchers.ray import Ray
from wdsearch.launchers.slurm import Slurm

LAUNCHERS: dict[str, Launcher[Any]] = {launcher.name: launcher for launcher in (Local(), Slurm(), Ray(), Kubernetes())}

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
