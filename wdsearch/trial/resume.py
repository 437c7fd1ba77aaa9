"""Progress of a single trial, saved in Lightning's checkpoint, from which training resumes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wdsearch.types import States

KEY = "wdsearch"


@dataclass
class Progress:
    """States of the regularizers, and the lowest validation loss so far with its epoch and state dict."""

    states: States = field(default_factory=dict)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_state: dict[str, Any] | None = None

    def to(self, device: torch.device) -> "Progress":
        """Copy with the states of the regularizers on a device."""
        states = {key: {name: value.to(device) for name, value in state.items()} for key, state in self.states.items()}
        return replace(self, states=states)


def in_checkpoint(state_dict: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Entry for a checkpoint with the state dict in training, in plain collections that torch loads with `weights_only`.

    >>> in_checkpoint({}, Progress(best_loss=0.5, best_epoch=3))["wdsearch"]["progress"]["best_epoch"]
    3
    """
    return {KEY: {"state_dict": dict(state_dict), "progress": dict(vars(progress))}}


def of_checkpoint(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], Progress] | None:
    """State dict in training and progress of a checkpoint; None if it has no such entry.

    >>> of_checkpoint(in_checkpoint({}, Progress(best_epoch=3)))[1].best_epoch
    3
    >>> of_checkpoint({"state_dict": {}}) is None
    True
    """
    saved = checkpoint.get(KEY)
    return None if saved is None else (saved["state_dict"], Progress(**saved["progress"]))
