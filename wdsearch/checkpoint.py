"""A population on disk, from which a worker that was killed continues instead of training from the start."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from wdsearch.cohort import Cohort, Saved


def write_checkpoint(path: Path, tick: int, cohorts: Sequence[Cohort]) -> None:
    """Write a population as it stands at the end of an epoch, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    torch.save({"tick": tick, "cohorts": [cohort.saved() for cohort in cohorts]}, new)
    os.replace(new, path)


def read_checkpoint(path: Path, running: Collection[int]) -> tuple[int, list[Saved]]:
    """The tick of a checkpoint and its cohorts as far as they still train; -1 and nothing if there is none to be used."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found["tick"], [saved for saved in found["cohorts"] if set(saved["numbers"]) & set(running)]
    except Exception:  # missing, cut off, of another version: it only spares time
        return -1, []
