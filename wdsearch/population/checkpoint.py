"""Checkpoints of a population, from which a killed worker resumes instead of training from the start."""

from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from wdsearch.files import replacing
from wdsearch.population.cohort import Cohort, Saved

FORMAT = 3
"""Version of the format; it is raised whenever the content of a saved cohort changes."""
READABLE = (2, FORMAT)
"""Versions that can be read; in version 2 no regularizer had a state."""


def write_checkpoint(path: Path, tick: int, cohorts: Sequence[Cohort], device: torch.device) -> None:
    """Write the state of a population at the end of an epoch, atomically.

    It lacks cohorts whose networks hold what cannot be written: their trials train from the start again.
    """
    saved = [cohort.saved() for cohort in cohorts if cohort.resumable()]
    checkpoint = {"tick": tick, "made": _environment(device), "cohorts": saved}
    with replacing(path) as new:
        torch.save(checkpoint, new)


def read_checkpoint(path: Path, running: Collection[int], device: torch.device) -> tuple[int, list[Saved]]:
    """Tick and cohorts with running trials of a checkpoint; -1 and an empty list if there is no usable checkpoint.

    Checkpoints of other versions, or of another type of device, are ignored: they may train differently.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if checkpoint["made"] not in [_environment(device, number) for number in READABLE]:
            return -1, []
        return checkpoint["tick"], [saved for saved in checkpoint["cohorts"] if set(saved["numbers"]) & set(running)]
    except Exception:  # missing, truncated or of an early version: it only saves time
        return -1, []


def _environment(device: torch.device, number: int = FORMAT) -> str:
    """Versions and type of device, on which the numbers of a training depend."""
    return f"wdsearch {version('wdsearch')} ({number}), torch {version('torch')}, {device.type}"
