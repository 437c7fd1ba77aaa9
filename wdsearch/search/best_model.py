"""The file of the best trial's weights, in the folder of a study."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wdsearch.storage.home import TOKEN
from wdsearch.storage.results import StudyResult


def kept_weights(path: Path) -> dict[str, Any]:
    """What `keep_weights` wrote: `study`, `trial`, `values`, `state_dict`; empty if there is no such file, or it is cut off."""
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found
    except Exception:  # whatever torch finds in a file
        return {}


def keep_weights(path: Path, study: str, trial: int, values: Sequence[float], state: Mapping[str, Tensor]) -> None:
    """Write a trial's weights, all or nothing; `study` is the token by which studies of one name differ."""
    new = path.with_name(f"{path.name}.new")
    torch.save({"study": study, "trial": trial, "values": list(values), "state_dict": dict(state)}, new)
    os.replace(new, path)


def has_best_weights(result: StudyResult) -> bool:
    """Whether the file has the best trial's; another machine may have trained it."""
    kept = kept_weights(result.weights)
    own = result.best is not None and kept.get("trial") == result.best.number
    return own and kept["study"] == result.optuna_study.user_attrs[TOKEN]
