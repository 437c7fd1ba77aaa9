"""What a population takes of memory: estimated before the start, made to fit, and compared with the measured peak."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from wdsearch.optimizers import OPTIMIZERS
from wdsearch.trial.batches import Batch
from wdsearch.trial.module import RegularizedModule
from wdsearch.types import States

RESERVE = 0.1
"""Share of the free memory that is left to others."""
WORKSPACE = 80 * 2**20
"""What torch and Lightning take for themselves when a training starts; measured with networks of a few kilobytes."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a trial in training (weights, gradients, moments, best copy), and of one in a call (activations)."""

    per_trial: int
    per_fused: int

    def total(self, trials: int, max_fused: int) -> int:
        """Bytes of so many trials in training, of which at most `max_fused` share a call."""
        return WORKSPACE + trials * self.per_trial + min(trials, max_fused) * self.per_fused

    def max_fused(self, trials: int, wanted: int, available: int) -> int:
        """Most trials in a call, up to `wanted`, that fit beside all in training; at least one."""
        left = (1.0 - RESERVE) * available - WORKSPACE - trials * self.per_trial
        return max(1, min(wanted, int(left / max(1, self.per_fused))))


class Memory:
    """Estimate and measured peak of what a search takes beyond what was in use before, in bytes."""

    def __init__(self, estimated: int, device: torch.device) -> None:
        self.estimated, self.device = estimated, device
        self._before = 0 if device.type == "cuda" else int(psutil.Process().memory_info().rss)

    def as_dict(self) -> dict[str, int]:
        """For the study's record; the peak is too large if this process needed more for something else before."""
        return {"estimated": self.estimated, "peak": max(0, peak(self.device) - self._before)}


def device_of(accelerator: str) -> torch.device:
    """Where a Trainer of this accelerator trains: a GPU or, as far as memory goes, this machine."""
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def device_name(accelerator: str) -> str:
    """What a Trainer of this accelerator trains on, in a word or two."""
    if (device := device_of(accelerator)).type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def footprint(module: RegularizedModule, batch: Batch, stops_early: bool) -> Footprint:
    """What one trial takes, from one forward pass over a batch of training rows.

    In training it holds its weights, those of its module until they are stacked, two sets of gradients (the next are
    computed while the last are still there), the optimizer's moments, what its regularizers remember, and its best weights
    if it may stop early. In a call it holds what autograd keeps for the backward pass, and the gradients of two neighbouring
    layers' outputs.
    """
    parameters = list(module.parameters())
    weights = sum(map(_bytes, parameters))
    moments = len(OPTIMIZERS[module.recipe.optimizer].stacked.moments(module.recipe.options))
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in own:
            kept[place] = _bytes(tensor)
        return tensor

    was_training = module.training
    module.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor), torch.random.fork_rng(devices=[]):
        module.rewind_noise(0, 0)
        module.objective(batch)
    module.train(was_training)
    copies = 4 + moments + int(stops_early)
    remembered = sum(_bytes(value) for state in _states(module).values() for value in state.values())
    buffers = sum(map(_bytes, module.buffers()))
    return Footprint(
        copies * weights + (1 + int(stops_early)) * buffers + remembered,
        sum(kept.values()) + 2 * max(kept.values(), default=0),
    )


def _states(module: RegularizedModule) -> States:
    """What a trial's regularizers remember, in shapes alone."""
    return module.following.init_states({name: value.to("meta") for name, value in module.trained().items()})


def available(device: torch.device) -> int:
    """Free bytes of a GPU, for this process; else of this machine, or of what its control group leaves to this process."""
    if device.type == "cuda":
        # what torch keeps for its next tensors is free as well
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    free = int(psutil.virtual_memory().available)
    for limit, usage in _CGROUPS:
        if limit.exists() and usage.exists() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text) - int(usage.read_text()))
    return free


def peak(device: torch.device) -> int:
    """Most bytes in use so far: on a GPU by torch, else by this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # of Unix alone
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough; torch has a type of its own for GPUs only."""
    texts = ("not enough memory", "can't allocate memory", "Cannot allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(text in str(error) for text in texts)
    )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_GROUP = Path("/sys/fs/cgroup")
_CGROUPS = (
    (_GROUP / "memory.max", _GROUP / "memory.current"),
    (_GROUP / "memory" / "memory.limit_in_bytes", _GROUP / "memory" / "memory.usage_in_bytes"),
)
