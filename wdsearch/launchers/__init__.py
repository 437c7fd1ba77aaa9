"""The table of engines: one file and one line each. An engine only starts workers; the study's storage does the rest."""

from typing import Any

from wdsearch.launchers._base import ENDED, RUNNING, UNKNOWN, WAITING, Launcher, LauncherOptions, LaunchError, Order
from wdsearch.launchers.local import Local
from wdsearch.launchers.slurm import Slurm

LAUNCHERS: dict[str, Launcher[Any]] = {launcher.name: launcher for launcher in (Local(), Slurm())}

__all__ = ["ENDED", "LAUNCHERS", "RUNNING", "UNKNOWN", "WAITING", "LaunchError", "Launcher", "LauncherOptions", "Order"]
