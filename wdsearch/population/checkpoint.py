"""A population on disk, from which a worker that was killed continues instead of training from the start."""

from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from wdsearch.files import replacing
from wdsearch.population.cohort import Cohort, Saved

FORMAT = 3
"""Number of the format; it goes up when a cohort saves other things than before."""
READABLE = (2, FORMAT)
"""Formats that are read: in format 2 no regularizer remembered anything."""


def write_checkpoint(path: Path, tick: int, cohorts: Sequence[Cohort], device: torch.device) -> None:
    """Write a population as it stands on a device at the end of an epoch, all or nothing."""
    checkpoint = {"tick": tick, "made": _made(device), "cohorts": [cohort.saved() for cohort in cohorts]}
    with replacing(path) as new:
        torch.save(checkpoint, new)


def read_checkpoint(path: Path, running: Collection[int], device: torch.device) -> tuple[int, list[Saved]]:
    """The tick of a checkpoint and its cohorts as far as they still train; -1 and nothing if there is none to be used.

    Other versions, or another device, may train in another way: theirs is not used.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        if checkpoint["made"] not in [_made(device, number) for number in READABLE]:
            return -1, []
        return checkpoint["tick"], [saved for saved in checkpoint["cohorts"] if set(saved["numbers"]) & set(running)]
    except Exception:  # missing, cut off, of an early version: it only spares time
        return -1, []


def _made(device: torch.device, number: int = FORMAT) -> str:
    """Versions and device, which decide how trials are trained."""
    return f"wdsearch {version('wdsearch')} ({number}), torch {version('torch')}, {device.type}"
