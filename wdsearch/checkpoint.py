"""A population on disk, from which a worker that was killed continues instead of training from the start."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from wdsearch.cohort import Cohort
from wdsearch.optim import stack_rows

Saved = dict[str, Any]


def cohort_state(cohort: Cohort) -> Saved:
    """All that a cohort's further training depends on, between two epochs; tensors are shared, not copied."""
    return {
        "numbers": list(cohort.numbers),
        "age": cohort.age,
        "params": {name: value.detach() for name, value in cohort.params.items()},
        "buffers": cohort.buffers,
        "moments": {name: dict(cohort.optimizer.state[value]) for name, value in cohort.params.items()},
        "schedule": cohort.schedule.state_dict(),
        "best": cohort.best,
        "best_age": cohort.best_age,
        "best_state": cohort.best_state,
    }


def restore_cohort(cohort: Cohort, saved: Saved) -> None:
    """Put a cohort of age 0, of some or all trials of a saved one, where that one was."""
    places = [saved["numbers"].index(number) for number in cohort.numbers]
    rows = torch.tensor(places, dtype=torch.int64)
    cohort.age = saved["age"]
    for name, value in cohort.params.items():
        moments = saved["moments"][name].items()
        value.data = stack_rows(saved["params"][name], rows).to(value.device)
        cohort.optimizer.state[value] = {
            key: (moment if key == "step" else stack_rows(moment, rows)).to(value.device) for key, moment in moments
        }
    cohort.buffers = {name: saved["buffers"][name][rows].to(value.device) for name, value in cohort.buffers.items()}
    cohort.best_state = {name: value[rows].to(cohort.device) for name, value in saved["best_state"].items()}
    cohort.best, cohort.best_age = ([saved[key][place] for place in places] for key in ("best", "best_age"))
    cohort.schedule.load_state_dict(saved["schedule"])
    for group, factor in zip(cohort.optimizer.param_groups, cohort.schedule.get_last_lr(), strict=True):
        group["lr"] = factor


def write_checkpoint(path: Path, tick: int, cohorts: Sequence[Cohort]) -> None:
    """Write a population as it stands at the end of an epoch, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    torch.save({"tick": tick, "cohorts": [cohort_state(cohort) for cohort in cohorts]}, new)
    os.replace(new, path)


def read_checkpoint(path: Path, running: Collection[int]) -> tuple[int, list[Saved]]:
    """The tick of a checkpoint and its cohorts as far as they still train; -1 and nothing if there is none to be used."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found["tick"], [saved for saved in found["cohorts"] if set(saved["numbers"]) & set(running)]
    except Exception:  # missing, cut off, of another version: it only spares time
        return -1, []
