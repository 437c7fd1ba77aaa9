"""What the training of a trial alone goes on from, beside what Lightning saves, in Lightning's own checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wdsearch.types import States

KEY = "wdsearch"


@dataclass
class Progress:
    """What regularizers remember of the steps so far, and the lowest validation loss with its epoch and judged state."""

    states: States = field(default_factory=dict)
    best_loss: float = math.inf
    best_epoch: int = 0
    best_state: dict[str, Any] | None = None

    def to(self, device: torch.device) -> "Progress":
        """The same, with what is remembered on a device."""
        states = {key: {name: value.to(device) for name, value in state.items()} for key, state in self.states.items()}
        return replace(self, states=states)


def in_checkpoint(state_dict: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """An entry for a checkpoint, of plain collections, which torch loads with `weights_only`: the state dict in training too."""
    return {KEY: {"state_dict": dict(state_dict), "progress": dict(vars(progress))}}


def of_checkpoint(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], Progress] | None:
    """The state dict in training and the progress of a checkpoint; None if its weights are all it takes."""
    saved = checkpoint.get(KEY)
    return None if saved is None else (saved["state_dict"], Progress(**saved["progress"]))
